package serving

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// meters are the durations of a prediction's parts, by model, version and
// variant. A sampled request leaves its trace as an exemplar.
type meters struct {
	request, features, queue, compute metric.Float64Histogram
}

// durationBounds reach from a tree model's microseconds to a native model's
// second.
func durationBounds() []float64 {
	return []float64{5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
}

// Observe gives the server its meters. Call it before the first request.
func (s *Server) Observe(m metric.Meter) error {
	var errs []error
	histogram := func(name, about string) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about), metric.WithExplicitBucketBoundaries(durationBounds()...))
		errs = append(errs, err)
		return h
	}
	s.meters = &meters{
		request:  histogram(telemetry.MetricServingRequest, "A prediction, from its parsed request to its record"),
		features: histogram(telemetry.MetricServingFeatures, "Looking features up, of predictions by key"),
		queue:    histogram(telemetry.MetricServingQueue, "Waiting for a place to compute"),
		compute:  histogram(telemetry.MetricServingCompute, "Computing"),
	}
	errs = append(errs, s.observeCounts(m))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}

// observeCounts exports what the server counts anyway.
func (s *Server) observeCounts(m metric.Meter) error {
	requests, err1 := m.Int64ObservableCounter(telemetry.MetricServingRequests, metric.WithDescription("Requests by model and outcome"))
	records, err2 := m.Int64ObservableCounter(telemetry.MetricServingRecords, metric.WithDescription("Predictions' records by what became of them"))
	pending, err3 := m.Int64ObservableGauge(telemetry.MetricServingPending, metric.WithDescription("Requests inside, by model"))
	restarts, err4 := m.Int64ObservableCounter(telemetry.MetricServingRestarts, metric.WithDescription("Native models' processes that were replaced, by model and version"))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	outcome := attribute.Key("kedge.serving.outcome")
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, d := range *s.models.Load() {
			by := func(what string, n uint64) {
				o.ObserveInt64(requests, int64(n), metric.WithAttributes(telemetry.AttrModel.String(name), outcome.String(what)))
			}
			rejected := d.stats.rejected.Load()
			by("answered", d.stats.success.Load())
			by("rejected", rejected)
			by("refused", d.stats.failure.Load()-rejected)
			o.ObserveInt64(pending, int64(d.gate.pending()), metric.WithAttributes(telemetry.AttrModel.String(name)))
			for version, v := range d.state.Load().versions {
				if v.native != nil {
					o.ObserveInt64(restarts, int64(v.native.proc.Restarts()), metric.WithAttributes(telemetry.AttrModel.String(name), telemetry.AttrModelVersion.String(version)))
				}
			}
		}
		o.ObserveInt64(requests, int64(s.unknown.Load()), metric.WithAttributes(telemetry.AttrModel.String(""), outcome.String("unknown")))
		c := s.Records()
		for what, n := range map[string]uint64{"recorded": c.Recorded, "dropped": c.Dropped, "sampled": c.Sampled, "failed": c.Failed} {
			o.ObserveInt64(records, int64(n), metric.WithAttributes(outcome.String(what)))
		}
		return nil
	}, requests, records, pending, restarts)
	return err
}

// measure records an answered request's parts.
func (s *Server) measure(ctx context.Context, a *Answer, took time.Duration) {
	if s.meters == nil {
		return
	}
	by := a.Model.attributes(a.Variant)
	s.meters.request.Record(ctx, took.Seconds(), by)
	s.meters.queue.Record(ctx, a.Queue.Seconds(), by)
	s.meters.compute.Record(ctx, a.Compute.Seconds(), by)
	if a.fetched != nil {
		s.meters.features.Record(ctx, a.fetched.took.Seconds(), by)
	}
}

// Trace gives the server its tracer. Call it before the first request.
func (s *Server) Trace(t trace.Tracer) { s.tracer = t }

// spans puts an answered request's parts into its trace, after the fact: what
// is not sampled costs nothing.
func (s *Server) spans(ctx context.Context, a *Answer, began time.Time) {
	at := began
	part := func(name string, took time.Duration) {
		_, span := s.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(
			telemetry.AttrModel.String(a.Model.Name), telemetry.AttrModelVersion.String(a.Version), attribute.String("kedge.serving.variant", a.Variant), attribute.Int("kedge.serving.rows", a.Rows)))
		at = at.Add(took)
		span.End(trace.WithTimestamp(at))
	}
	if a.fetched != nil {
		part("features", a.fetched.took)
	}
	if a.Queue > 0 {
		part("queue", a.Queue)
	}
	part("compute", a.Compute)
}

// recording opens the span that the record's message continues, where the
// request is sampled.
func (s *Server) recording(ctx context.Context, call *Call) func() {
	ctx, span := s.tracer.Start(ctx, "record", trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(telemetry.AttrMessaging.String("kafka"), telemetry.AttrTopic.String(s.rec.topic)))
	call.Parent = telemetry.Traceparent(ctx)
	return func() { span.End() }
}

// sampled reports whether somebody will see the request's trace.
func (s *Server) sampled(ctx context.Context) bool {
	return s.tracer != nil && trace.SpanContextFromContext(ctx).IsSampled()
}

// attributes are made once per version and variant: making them costs more
// than recording.
func (m *Model) attributes(variant string) metric.MeasurementOption {
	if v, ok := m.measured.Load(variant); ok {
		return v.(metric.MeasurementOption)
	}
	by := metric.WithAttributeSet(attribute.NewSet(telemetry.AttrModel.String(m.Name), telemetry.AttrModelVersion.String(m.Version), attribute.String("kedge.serving.variant", variant)))
	m.measured.Store(variant, by)
	return by
}
