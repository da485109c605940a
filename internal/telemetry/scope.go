package telemetry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Scope is what a room is given to speak through. Copy it freely.
type Scope struct {
	Log    *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
}

// Discard returns a scope that says nothing, for tests and tools.
func Discard() Scope {
	return Scope{
		Log:    slog.New(slog.DiscardHandler),
		Tracer: tracenoop.NewTracerProvider().Tracer(""),
		Meter:  metricnoop.NewMeterProvider().Meter(""),
	}
}

// With returns a scope whose log lines carry the given attributes.
func (s Scope) With(args ...any) Scope {
	s.Log = s.Log.With(args...)
	return s
}

// ContextFrom returns ctx with the remote span that a W3C traceparent names, so
// that the next span started becomes its child. An empty or malformed value
// returns ctx as it is.
func ContextFrom(ctx context.Context, traceparent, tracestate string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": traceparent, "tracestate": tracestate,
	})
}

// Traceparent returns the W3C traceparent of the span in ctx, or "".
func Traceparent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

// TraceID returns the 32 hex digits of the span in ctx, or "".
func TraceID(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.HasTraceID() {
		return ""
	}
	return sc.TraceID().String()
}
