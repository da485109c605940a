package features

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// metrics of the HTTP interface, under the names that Feast's server has.
type metrics struct {
	requests metric.Int64Counter
	latency  metric.Float64Histogram
	entities metric.Int64Counter
	options  map[endpointStatus]metric.MeasurementOption
	paths    map[string]metric.MeasurementOption
}

type endpointStatus struct {
	path  string
	class int // status / 100
}

func (m *metrics) init(meter metric.Meter) (err error) {
	var errs [3]error
	m.requests, errs[0] = meter.Int64Counter("feast.feature_server.request", metric.WithDescription("Requests by endpoint and status class."))
	m.latency, errs[1] = meter.Float64Histogram("feast.feature_server.request.latency", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5))
	m.entities, errs[2] = meter.Int64Counter("feast.feature_server.online_features.entities")
	m.options, m.paths = map[endpointStatus]metric.MeasurementOption{}, map[string]metric.MeasurementOption{}
	for _, p := range (&Server{}).Paths() {
		path := attribute.String("endpoint", p)
		m.paths[p] = metric.WithAttributeSet(attribute.NewSet(path))
		for class := 2; class <= 5; class++ {
			m.options[endpointStatus{p, class}] = metric.WithAttributeSet(attribute.NewSet(path, attribute.String("status", []string{"success", "redirect", "client_error", "error"}[class-2])))
		}
	}
	return errors.Join(errs[:]...)
}

func (m *metrics) observe(ctx context.Context, path string, status int, d time.Duration, entities int) {
	m.requests.Add(ctx, 1, m.options[endpointStatus{path, status / 100}])
	m.latency.Record(ctx, d.Seconds(), m.paths[path])
	if entities > 0 {
		m.entities.Add(ctx, int64(entities))
	}
}

// watch publishes what the tables and the tail hold.
func (t *Tail) watch(meter metric.Meter) error {
	freshness, err1 := meter.Float64ObservableGauge(telemetry.MetricFreshness, metric.WithUnit("s"))
	rows, err2 := meter.Int64ObservableGauge("kedge.feature.rows")
	size, err3 := meter.Int64ObservableGauge("kedge.feature.size", metric.WithUnit("By"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := t.cfg.Now()
		for _, v := range t.online.Views("") {
			attrs := metric.WithAttributes(telemetry.AttrView.String(v.Name), telemetry.AttrNamespace.String(v.Schema.Namespace))
			st := v.stats()
			if t.online.shared == nil { // rows that are shared are nobody's to count
				o.ObserveInt64(rows, int64(st.Rows), attrs)
				o.ObserveInt64(size, int64(st.Used), attrs)
			}
			if st.Newest != 0 {
				o.ObserveFloat64(freshness, float64(now-st.Newest)/1e6, attrs)
			}
		}
		return nil
	}, freshness, rows, size)
	return err
}
