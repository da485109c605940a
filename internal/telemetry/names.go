package telemetry

import "go.opentelemetry.io/otel/attribute"

// Metric names. The Prometheus form replaces dots by underscores and appends
// the unit and, for counters, _total: kedge.ingest.rows becomes
// kedge_ingest_rows_total.
const (
	// Ingest.
	MetricIngestRecords    = "kedge.ingest.records"               // counter, by topic
	MetricIngestRows       = "kedge.ingest.rows"                  // counter, by kind
	MetricIngestDead       = "kedge.ingest.dead_letters"          // counter, by reason
	MetricIngestDuplicates = "kedge.ingest.duplicates"            // counter, by topic
	MetricIngestUnits      = "kedge.ingest.units"                 // counter, by topic
	MetricIngestBytes      = "kedge.ingest.bytes"                 // counter, by topic
	MetricIngestLag        = "kedge.ingest.lag"                   // gauge s: append time → queryable
	MetricIngestLagRecords = "kedge.ingest.lag.records"           // gauge, by partition
	MetricIngestUnitTime   = "kedge.ingest.unit.duration"         // histogram s, by phase
	MetricIngestUnknown    = "kedge.ingest.unknown_members"       // counter
	MetricIngestMissing    = "kedge.ingest.missing_records"       // counter: retention overtook the reader
	MetricIngestIDWindow   = "kedge.ingest.id_window.size"        // gauge: ids held for duplicate search
	MetricIngestThrottled  = "kedge.ingest.throttled"             // counter s, by namespace: units that waited for their quota
	MetricNamespaceRows    = "kedge.namespace.rows"               // gauge, by namespace: what is stored of one with a quota of rows or bytes
	MetricNamespaceBytes   = "kedge.namespace.storage"            // gauge By, as before: compressed
	MetricNamespaceRefused = "kedge.namespace.requests.refused"   // counter, by namespace: beyond its quota
	MetricAuthRefused      = "kedge.auth.refused"                 // counter, by code and method
	MetricIngestDeadBytes  = "kedge.ingest.dead_letters.dropped"  // counter By, by namespace: bytes beyond the cap
	MetricIngestRetries    = "kedge.ingest.retries"               // counter, by phase
	MetricPairOutcomes     = "kedge.pairs.outcomes"               // counter, by namespace, source and outcome: paired, unpaired, duplicate, refused, other
	MetricPairWaiting      = "kedge.pairs.waiting"                // gauge, by namespace and source: halves without the other one
	MetricPairBytes        = "kedge.pairs.waiting.size"           // gauge By: of those
	MetricPairMissing      = "kedge.pairs.missing_records"        // counter: retention overtook the reader
	MetricLedgerGap        = "kedge.ledger.gap_rows"              // gauge
	MetricLedgerDuplicate  = "kedge.ledger.duplicate_rows"        // gauge
	MetricDefinitions      = "kedge.definitions"                  // gauge, by state
	MetricRegistryEntries  = "kedge.registry.entries"             // gauge
	MetricStoreQueryTime   = "kedge.store.query.duration"         // histogram s, by question
	MetricStoreInsertTime  = "kedge.store.insert.duration"        // histogram s, by kind
	MetricStoreBytes       = "kedge.store.size"                   // gauge By
	MetricStoreFree        = "kedge.store.free"                   // gauge By
	MetricDriftTime        = "kedge.drift.eval.duration"          // histogram s
	MetricDriftSkipped     = "kedge.drift.eval.skipped"           // counter
	MetricDriftIncidents   = "kedge.drift.incidents"              // gauge, by severity
	MetricDriftSubjects    = "kedge.drift.subjects"               // gauge: views and models with an open incident
	MetricAlertsSent       = "kedge.alerts.sent"                  // counter, by outcome
	MetricAlertsFiring     = "kedge.alerts.firing"                // gauge
	MetricFreshness        = "kedge.feature.freshness"            // gauge s, by view
	MetricMismatch         = "kedge.feature.consistency.mismatch" // gauge ratio, by view and column
	MetricServedVectors    = "kedge.feature.served"               // counter, by outcome
	MetricServingRequest   = "kedge.serving.request.duration"     // histogram s, by model, version, variant
	MetricServingFeatures  = "kedge.serving.features.duration"    // histogram s, of predictions by key
	MetricServingQueue     = "kedge.serving.queue.duration"       // histogram s
	MetricServingCompute   = "kedge.serving.compute.duration"     // histogram s
	MetricServingRequests  = "kedge.serving.requests"             // counter, by model and outcome
	MetricServingRecords   = "kedge.serving.records"              // counter, by outcome
	MetricServingPending   = "kedge.serving.pending"              // gauge, by model
	MetricServingRestarts  = "kedge.serving.process.restarts"     // counter, by model and version: native runtimes' processes
	MetricModelLoadFailed  = "kedge.model.load_failures"          // counter

	// HTTP and Kafka, from the semantic conventions.
	MetricHTTPServerTime = "http.server.request.duration" // histogram s
	MetricHTTPServerBody = "http.server.request.body.size"
	MetricMessagesSent   = "messaging.client.sent.messages"
	MetricMessagesRead   = "messaging.client.consumed.messages"
	MetricMessagingTime  = "messaging.client.operation.duration"
)

// Attribute keys. Those without the kedge or ml prefix are OpenTelemetry's
// semantic conventions.
const (
	AttrNamespace   = attribute.Key("kedge.namespace")
	AttrTopic       = attribute.Key("messaging.destination.name")
	AttrPartition   = attribute.Key("messaging.destination.partition.id")
	AttrOffset      = attribute.Key("messaging.kafka.offset")
	AttrBatchCount  = attribute.Key("messaging.batch.message_count")
	AttrMessaging   = attribute.Key("messaging.system") // "kafka"
	AttrOperation   = attribute.Key("messaging.operation.name")
	AttrGroup       = attribute.Key("messaging.consumer.group.name")
	AttrDBSystem    = attribute.Key("db.system.name") // "clickhouse"
	AttrTable       = attribute.Key("db.collection.name")
	AttrDBOperation = attribute.Key("db.operation.name")
	AttrDBRows      = attribute.Key("db.response.returned_rows")
	AttrErrorType   = attribute.Key("error.type")
	AttrHTTPMethod  = attribute.Key("http.request.method")
	AttrHTTPRoute   = attribute.Key("http.route")
	AttrHTTPStatus  = attribute.Key("http.response.status_code")

	AttrRole     = attribute.Key("kedge.role")
	AttrKind     = attribute.Key("kedge.event.kind") // features, predictions, labels
	AttrReason   = attribute.Key("kedge.dead_letter.reason")
	AttrSource   = attribute.Key("kedge.source.name")
	AttrOutcome  = attribute.Key("kedge.pair.outcome")
	AttrPhase    = attribute.Key("kedge.ingest.phase")
	AttrEpoch    = attribute.Key("kedge.ingest.epoch")
	AttrFrom     = attribute.Key("kedge.ingest.offset.from")
	AttrTo       = attribute.Key("kedge.ingest.offset.to")
	AttrQuestion = attribute.Key("kedge.store.question")
	AttrQuery    = attribute.Key("kedge.query.kind")

	AttrModel        = attribute.Key("ml.model.name")
	AttrModelVersion = attribute.Key("ml.model.version")
	AttrView         = attribute.Key("ml.feature_view.name")
	AttrColumn       = attribute.Key("ml.feature.name")
	AttrDetector     = attribute.Key("ml.drift.test")
)

// Log keys that occur in more than one room.
const (
	LogTraceID   = "trace_id"
	LogSpanID    = "span_id"
	LogRoom      = "room"
	LogError     = "error"
	LogTopic     = "topic"
	LogPartition = "partition"
	LogOffset    = "offset"
	LogEpoch     = "epoch"
	LogTable     = "table"
)
