package app

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/store/chdb"
)

// Config is everything that can be set. Its YAML form is what `kedge config`
// prints; every member can also be set by an environment variable named after
// its path: http.listen is KEDGE_HTTP_LISTEN.
type Config struct {
	DataDir    string          `yaml:"data_dir"`  // everything this process keeps
	Namespace  string          `yaml:"namespace"` // the caller's namespace while there is one identity
	Roles      []string        `yaml:"roles"`
	HTTP       HTTPConfig      `yaml:"http"`
	Auth       AuthConfig      `yaml:"auth"`
	Outbound   OutboundConfig  `yaml:"outbound"`
	GRPC       string          `yaml:"grpc"` // inference over gRPC, e.g. 127.0.0.1:7071; empty: none
	Kafka      KafkaConfig     `yaml:"kafka"`
	ClickHouse ClickHouse      `yaml:"clickhouse"`
	Outside    OutsideConfig   `yaml:"outside"`
	Ingest     IngestConfig    `yaml:"ingest"`
	Erasure    ErasureConfig   `yaml:"erasure"`
	Features   FeaturesConfig  `yaml:"features"`
	Retention  RetentionConfig `yaml:"retention"`
	Telemetry  TelemetryConfig `yaml:"telemetry"`
	Trainer    TrainerConfig   `yaml:"trainer"`
	Serving    ServingConfig   `yaml:"serving"`
	Artifacts  ArtifactsConfig `yaml:"artifacts"`
	Sources    SourcesConfig   `yaml:"sources"`
	Alerts     AlertsConfig    `yaml:"alerts"`
	Demo       DemoConfig      `yaml:"demo"`
	Durability string          `yaml:"durability"` // what an acknowledged event survives: "process" crash or "power" loss
	Drain      Duration        `yaml:"drain"`      // how long a stop may take
}

// HTTPConfig is the door that serves the API and the page.
type HTTPConfig struct {
	Listen        string   `yaml:"listen"`
	TLS           HTTPTLS  `yaml:"tls"`            // of this port, Feast's and gRPC's
	Feast         string   `yaml:"feast"`          // a second port with the Feast routes alone, e.g. 127.0.0.1:6566; empty: none
	Admin         string   `yaml:"admin"`          // a loopback port with profiles (pprof) and metrics, without authentication; empty: none
	MaxBody       Size     `yaml:"max_body"`       // of a request, JSON calls
	MaxEvents     Size     `yaml:"max_events"`     // of one POST /v1/events, after decompression
	HeaderTimeout Duration `yaml:"header_timeout"` // slow clients are cut off
	BodyTimeout   Duration `yaml:"body_timeout"`
	QueryTimeout  Duration `yaml:"query_timeout"`
}

// HTTPTLS is the certificate that the server shows. Files are read again when
// they change.
type HTTPTLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	ClientCA string `yaml:"client_ca"` // clients need a certificate of this authority too; empty: they need none
}

// AuthConfig says who is let in. Without authentication everybody who reaches
// the ports is an administrator, so they have to be on loopback.
type AuthConfig struct {
	Enabled bool `yaml:"enabled"` // keys and tokens; the first key is written to admin.key in the data directory
	// Insecure lets ports listen beyond loopback without TLS or without
	// authentication: for a container whose network is the guard.
	Insecure bool       `yaml:"insecure"`
	OIDC     OIDCConfig `yaml:"oidc"`
	Grafana  OIDCConfig `yaml:"grafana"` // verifies the identity that Grafana signs and forwards
}

// OutboundConfig bounds where addresses of this configuration may lead: to
// issuers, receivers of alerts, a schema registry, a collector. See
// [web.Outbound].
type OutboundConfig struct {
	// Networks may be led to beside public ones, e.g. 10.0.0.0/8. An address that
	// is written as one, and a name of private networks, needs none.
	Networks []string `yaml:"networks"`
}

// OIDCConfig names an issuer of JSON web tokens and what its claims mean.
type OIDCConfig struct {
	Issuer     string   `yaml:"issuer"`   // empty: none
	Audience   string   `yaml:"audience"` // the token has to be meant for this
	Algorithms []string `yaml:"algorithms"`
	KeySet     string   `yaml:"key_set"`     // address of its key set; empty: its discovery document says
	RolesClaim string   `yaml:"roles_claim"` // e.g. groups, or realm_access.roles
	// Roles maps values of that claim to grants: "fraud-team=fraud:scientist".
	Roles []string `yaml:"roles"`
	// Default are the grants of everybody else, e.g. default:viewer; empty: none.
	Default []string `yaml:"default"`
}

// KafkaConfig names the brokers, or describes the embedded one.
type KafkaConfig struct {
	Brokers           []string `yaml:"brokers"` // empty: start the embedded broker
	Listen            string   `yaml:"listen"`  // embedded broker
	Advertise         string   `yaml:"advertise"`
	Partitions        int      `yaml:"partitions"`         // of topics that Kedge makes
	ReplicationFactor int      `yaml:"replication_factor"` // with outside brokers
	Retention         Duration `yaml:"retention"`          // of data topics, whichever of the two comes first
	RetentionSize     Size     `yaml:"retention_size"`     // per partition
	TLS               KafkaTLS `yaml:"tls"`
	SASL              SASL     `yaml:"sasl"`
}

// KafkaTLS is how to talk to brokers over TLS.
type KafkaTLS struct {
	Enabled  bool   `yaml:"enabled"`
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// SASL is how to authenticate with brokers.
type SASL struct {
	Mechanism string `yaml:"mechanism"` // "", PLAIN, SCRAM-SHA-256, SCRAM-SHA-512
	Username  string `yaml:"username"`
	Password  Secret `yaml:"password"`
}

// ClickHouse names a server, or describes the embedded engine.
type ClickHouse struct {
	URL ServerURL `yaml:"url"` // empty: open the embedded engine
	// Cluster makes tables ReplicatedMergeTree, ON CLUSTER of this name. It
	// was not run on a cluster yet.
	Cluster string `yaml:"cluster"`
	Listen  string `yaml:"listen"` // read-only ClickHouse HTTP port of the embedded engine; empty: off
	// Share is the engine's read-write port for other kedge processes, which
	// name it as their clickhouse.url with user kedge; it needs a password.
	Share         string `yaml:"share"`
	SharePassword Secret `yaml:"share_password"`

	Library string `yaml:"library"` // libchdb.so; empty: looked for beside the binary and in .deps
	Memory  Size   `yaml:"memory"`  // the embedded engine's limit

	// Volumes are folders by name, on other disks, to which the embedded engine moves
	// rows when a view, model or namespace says so (retention). They exist and are
	// empty when they are named first.
	Volumes map[string]string `yaml:"volumes"`
	// Policy is the storage policy of a server's tables of events; its volumes are
	// those that definitions may name. Empty: the server's own choice.
	Policy string `yaml:"policy"`
}

// ErasureConfig is about entities that were erased for good.
type ErasureConfig struct {
	// Key makes the hashes by which they are recognised; every process of an
	// installation needs the same. Empty: erasure.key in the data directory, which
	// the first start makes.
	Key Secret `yaml:"key"`
}

// IngestConfig bounds what one unit of work holds and what an event may be.
type IngestConfig struct {
	Group        string   `yaml:"group"`    // Kafka consumer group
	MaxRows      int      `yaml:"max_rows"` // of one unit
	MaxBytes     Size     `yaml:"max_bytes"`
	Memory       Size     `yaml:"memory"`    // of all units, being decoded and being written
	MinDelay     Duration `yaml:"min_delay"` // how long a unit waits for company
	MaxDelay     Duration `yaml:"max_delay"` // and when the store is busy
	Writers      int      `yaml:"writers"`
	IDWindow     int      `yaml:"id_window"` // offsets of a partition within which an id makes a duplicate; 0: off
	FetchMemory  Size     `yaml:"fetch_memory"`
	MaxRecord    Size     `yaml:"max_record"`    // larger records become dead letters
	DeadLetters  Size     `yaml:"dead_letters"`  // bytes of a namespace without a quota of its own; beyond, they lose their bytes; 0: no bound
	FutureBound  Duration `yaml:"future_bound"`  // how far event_time may be ahead of the broker's clock
	DeclaredOnly bool     `yaml:"declared_only"` // no inference: unknown views and models become dead letters
}

// FeaturesConfig is how features are served.
type FeaturesConfig struct {
	Online  OnlineConfig  `yaml:"online"`
	Served  ServedConfig  `yaml:"served"`
	Limits  FeatureLimits `yaml:"limits"`
	History HistoryConfig `yaml:"history"`
}

// HistoryConfig bounds one join in time that is asked for over HTTP.
type HistoryConfig struct {
	Memory Size `yaml:"memory"` // half of it the engine's; beyond, rows are sorted on disk and larger tables of entities take more passes
}

// OnlineConfig names the Redis or Valkey in which a fleet of processes shares
// its online rows. Without addresses each process keeps them in its memory.
type OnlineConfig struct {
	Addresses    []string `yaml:"addresses"` // a server, or some nodes of a cluster
	Username     string   `yaml:"username"`  // empty: the default user
	Password     Secret   `yaml:"password"`
	PasswordFile string   `yaml:"password_file"` // instead; read again at every connection
	TLS          KafkaTLS `yaml:"tls"`
	Prefix       string   `yaml:"prefix"`  // of every key: one for each installation
	Timeout      Duration `yaml:"timeout"` // of one read
}

// FeatureLimits bound one request for features, and one push.
type FeatureLimits struct {
	Entities int  `yaml:"entities"` // rows
	Features int  `yaml:"features"`
	Values   int  `yaml:"values"` // rows × features
	Body     Size `yaml:"body"`
	Push     Size `yaml:"push"` // body of a push
}

// ServedConfig says which served vectors are written to the served topic, where
// the consistency monitor reads them.
type ServedConfig struct {
	Share float64  `yaml:"share"` // 0 to 1; 0: none
	By    string   `yaml:"by"`    // key: every read of the chosen keys; request: whole requests by chance
	Delay Duration `yaml:"delay"` // how long after a read it is recomputed: longer than rows take to the store
}

// RetentionConfig says how long rows stay, counted from when Kedge first knew
// them. Zero keeps them for ever.
type RetentionConfig struct {
	Rows        Duration `yaml:"rows"`
	DeadLetters Duration `yaml:"dead_letters"`
	Ledger      Duration `yaml:"ledger"`
}

// TelemetryConfig says where logs, metrics and traces go. Metrics are always
// served at /metrics.
type TelemetryConfig struct {
	LogFormat   string  `yaml:"log_format"` // text or json
	LogLevel    string  `yaml:"log_level"`  // debug, info, warn, error
	OTLP        string  `yaml:"otlp"`       // base URL of an OTLP/HTTP collector
	SampleRatio float64 `yaml:"sample_ratio"`
	TritonNames bool    `yaml:"triton_names"` // the inference metrics under Triton's names too
}

// DemoConfig describes the built-in stream.
type DemoConfig struct {
	Enabled  bool     `yaml:"enabled"`
	Seed     uint64   `yaml:"seed"`
	Rate     float64  `yaml:"rate"`     // predictions a second
	Backfill Duration `yaml:"backfill"` // how much past the stream starts with
}

// DefaultConfig runs everything in one process on loopback.
func DefaultConfig() Config {
	return Config{
		DataDir:   "kedge-data",
		Namespace: "default",
		Roles:     BuiltRoles(),
		Drain:     Duration(25 * time.Second),
		HTTP: HTTPConfig{
			Listen: "127.0.0.1:7070", MaxBody: 4 << 20, MaxEvents: 256 << 20,
			HeaderTimeout: Duration(10 * time.Second), BodyTimeout: Duration(5 * time.Minute), QueryTimeout: Duration(30 * time.Second),
		},
		Auth: AuthConfig{
			OIDC: OIDCConfig{Algorithms: []string{"RS256", "ES256"}, RolesClaim: "groups"},
			Grafana: OIDCConfig{Algorithms: []string{"ES256"}, RolesClaim: "role", Roles: []string{"Viewer=*:viewer", "Editor=*:scientist", "Admin=*:operator"},
				Default: []string{"*:viewer"}},
		},
		Kafka: KafkaConfig{
			Listen: "127.0.0.1:9092", Partitions: 4, ReplicationFactor: 1,
			Retention: Duration(72 * time.Hour), RetentionSize: 2 << 30,
		},
		ClickHouse: ClickHouse{Memory: 2 << 30, Volumes: map[string]string{}},
		Durability: "process",
		Ingest: IngestConfig{
			Group: "kedge", MaxRows: 100_000, MaxBytes: 48 << 20, Memory: 256 << 20,
			MinDelay: Duration(200 * time.Millisecond), MaxDelay: Duration(time.Second), Writers: 2, IDWindow: 1_000_000, FetchMemory: 64 << 20,
			MaxRecord: 1 << 20, DeadLetters: 1 << 30, FutureBound: Duration(10 * time.Minute),
		},
		Sources: SourcesConfig{PairMemory: 256 << 20},
		Features: FeaturesConfig{
			Online:  OnlineConfig{Prefix: "kedge", Timeout: Duration(time.Second)},
			Served:  ServedConfig{Share: 0.01, By: "key", Delay: Duration(time.Minute)},
			Limits:  FeatureLimits{Entities: 10_000, Features: 1_000, Values: 2_000_000, Body: 16 << 20, Push: 64 << 20},
			History: HistoryConfig{Memory: 1 << 30},
		},
		Retention: RetentionConfig{Rows: Duration(30 * 24 * time.Hour), DeadLetters: Duration(7 * 24 * time.Hour), Ledger: Duration(90 * 24 * time.Hour)},
		Alerts:    AlertsConfig{Every: Duration(time.Minute)},
		Telemetry: TelemetryConfig{LogFormat: "text", LogLevel: "info", SampleRatio: 0.01},
		Trainer:   TrainerConfig{Memory: 4 << 30, Quotas: map[string]TrainerQuota{}, Commands: map[string][]string{}},
		Demo:      DemoConfig{Seed: 1, Rate: 20, Backfill: Duration(30 * time.Minute)},
	}
}

// EmbeddedBroker reports whether this process runs its own broker.
func (c *Config) EmbeddedBroker() bool { return len(c.Kafka.Brokers) == 0 }

// volumes are those of the embedded engine, by name.
func (c *Config) volumes() (out []chdb.Volume) {
	for _, name := range slices.Sorted(maps.Keys(c.ClickHouse.Volumes)) {
		out = append(out, chdb.Volume{Name: name, Path: filepath.Clean(c.ClickHouse.Volumes[name])})
	}
	return out
}

// EmbeddedStore reports whether this process opens the engine itself.
func (c *Config) EmbeddedStore() bool { return c.ClickHouse.URL == "" }
