package pair

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

type metrics struct{ outcomes, missing metric.Int64Counter }

func newMetrics(m metric.Meter) (*metrics, error) {
	outcomes, err1 := m.Int64Counter(telemetry.MetricPairOutcomes)
	missing, err2 := m.Int64Counter(telemetry.MetricPairMissing)
	return &metrics{outcomes, missing}, errors.Join(err1, err2)
}

// labels are a source's, with an outcome if one is named.
func (s *session) labels(outcome ...string) metric.MeasurementOption {
	set := sourceLabels(s.j.definition.Namespace, s.j.definition.Name)
	for _, o := range outcome {
		set = append(set, telemetry.AttrOutcome.String(o))
	}
	return metric.WithAttributes(set...)
}

func sourceLabels(namespace, name string) []attribute.KeyValue {
	return []attribute.KeyValue{telemetry.AttrNamespace.String(namespace), telemetry.AttrSource.String(name)}
}

// observe registers the gauges.
func (p *Pairer) observe(m metric.Meter) (stop func() error, err error) {
	waiting, err1 := m.Int64ObservableGauge(telemetry.MetricPairWaiting)
	size, err2 := m.Int64ObservableGauge(telemetry.MetricPairBytes, metric.WithUnit("By"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range p.Statuses() {
			set := metric.WithAttributes(sourceLabels(s.Namespace, s.Name)...)
			o.ObserveInt64(waiting, int64(s.Waiting), set)
			o.ObserveInt64(size, s.Bytes, set)
		}
		return nil
	}, waiting, size)
	if err != nil {
		return nil, err
	}
	return reg.Unregister, nil
}
