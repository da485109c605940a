package ingest

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
)

// metrics are the consumer's counters. Attributes are made once per partition.
type metrics struct {
	records, rows, dead, duplicates, units, bytes, unknown, missing, retries metric.Int64Counter
	deadDropped                                                              metric.Int64Counter
	throttled                                                                metric.Float64Counter
	unitTime                                                                 metric.Float64Histogram
}

func newMetrics(m metric.Meter) (*metrics, error) {
	out := &metrics{}
	var errs []error
	counter := func(to *metric.Int64Counter, name string) {
		var err error
		*to, err = m.Int64Counter(name)
		errs = append(errs, err)
	}
	counter(&out.records, telemetry.MetricIngestRecords)
	counter(&out.rows, telemetry.MetricIngestRows)
	counter(&out.dead, telemetry.MetricIngestDead)
	counter(&out.duplicates, telemetry.MetricIngestDuplicates)
	counter(&out.units, telemetry.MetricIngestUnits)
	counter(&out.bytes, telemetry.MetricIngestBytes)
	counter(&out.unknown, telemetry.MetricIngestUnknown)
	counter(&out.missing, telemetry.MetricIngestMissing)
	counter(&out.retries, telemetry.MetricIngestRetries)
	counter(&out.deadDropped, telemetry.MetricIngestDeadBytes)
	var err, err2 error
	out.throttled, err2 = m.Float64Counter(telemetry.MetricIngestThrottled, metric.WithUnit("s"))
	out.unitTime, err = m.Float64Histogram(telemetry.MetricIngestUnitTime, metric.WithUnit("s"))
	return out, errors.Join(append(errs, err, err2)...)
}

func namespaceLabel(ns string) metric.MeasurementOption {
	return metric.WithAttributes(telemetry.AttrNamespace.String(ns))
}

// observe registers the gauges that are read off the consumer's status.
func (c *Consumer) observe(m metric.Meter) (stop func() error, err error) {
	lag, err1 := m.Int64ObservableGauge(telemetry.MetricIngestLagRecords)
	ids, err2 := m.Int64ObservableGauge(telemetry.MetricIngestIDWindow)
	rows, err3 := m.Int64ObservableGauge(telemetry.MetricNamespaceRows)
	bytes, err4 := m.Int64ObservableGauge(telemetry.MetricNamespaceBytes, metric.WithUnit("By"))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, p := range c.Status().Partitions {
			set := metric.WithAttributes(telemetry.AttrTopic.String(p.Topic), telemetry.AttrPartition.Int(int(p.Partition)))
			o.ObserveInt64(lag, p.Lag, set)
			o.ObserveInt64(ids, int64(p.IDs), set)
		}
		for ns, held := range c.usage.held() {
			o.ObserveInt64(rows, held.Rows, namespaceLabel(ns))
			o.ObserveInt64(bytes, held.Bytes, namespaceLabel(ns))
		}
		return nil
	}, lag, ids, rows, bytes)
	if err != nil {
		return nil, err
	}
	return reg.Unregister, nil
}

// labels are a partition's ready-made attributes.
type labels struct{ topic, kind metric.MeasurementOption }

func newLabels(topic string, kind event.Kind) labels {
	set := func(kv attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(kv))
	}
	return labels{set(telemetry.AttrTopic.String(topic)), set(telemetry.AttrKind.String(kindName(kind)))}
}

// kindName: a source's records may give events of all kinds.
func kindName(k event.Kind) string {
	if k == 0 {
		return "source"
	}
	return k.String()
}

// finished counts a unit that is stored.
func (m *metrics) finished(ctx context.Context, l labels, w *work, r *event.LedgerRow, took time.Duration) {
	m.units.Add(ctx, 1, l.topic)
	m.records.Add(ctx, r.Records, l.topic)
	m.bytes.Add(ctx, w.bytes, l.topic)
	m.rows.Add(ctx, r.Rows, l.kind)
	m.duplicates.Add(ctx, r.Duplicates, l.topic)
	m.missing.Add(ctx, r.Missing, l.topic)
	m.unknown.Add(ctx, w.unit.Counts.Unknown, l.topic)
	m.unitTime.Record(ctx, took.Seconds(), l.topic)
	for _, d := range w.unit.Dead {
		m.dead.Add(ctx, 1, metric.WithAttributes(telemetry.AttrReason.String(string(d.Reason))))
	}
}
