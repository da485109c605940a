package web

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// Secure sets headers that keep an answer from being framed, sniffed or
// allowed to load anything from elsewhere.
func Secure(next http.Handler) http.Handler {
	fixed := []struct {
		name  string
		value []string // shared by all answers: who changes one replaces it
	}{
		{"Content-Security-Policy", []string{"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}},
		{"X-Content-Type-Options", []string{"nosniff"}},
		{"X-Frame-Options", []string{"DENY"}},
		{"Referrer-Policy", []string{"no-referrer"}},
		{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
		{"Cache-Control", []string{"no-store"}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for i := range fixed {
			h[fixed[i].name] = fixed[i].value
		}
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// SameOrigin refuses what a page of another origin makes a browser send: a
// change with the reader's stored password, or, with onlyLocal, anything at all
// under a name that was made to point here (DNS rebinding). onlyLocal lets
// through addresses and localhost alone. refused is told of each before its answer.
func SameOrigin(onlyLocal bool, refused func(*http.Request, *Error), next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	refuse := func(w http.ResponseWriter, r *http.Request, err *Error) {
		refused(r, err)
		WriteError(w, err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if onlyLocal && !isLocalName(r.Host) {
			refuse(w, r, Errorf(http.StatusMisdirectedRequest, CodeBadRequest, "the host %.100q is not this server: without authentication it answers to its address and to localhost alone", r.Host))
			return
		}
		if cross.Check(r) != nil {
			refuse(w, r, Errorf(http.StatusForbidden, "cross_origin", "a page of another origin may not change anything here"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost") || host == ""
}

// Observe recovers panics, opens a span that continues the caller's trace, and
// counts duration by route and status. It must wrap the mux directly, since it
// reads the pattern that the mux matched.
func Observe(sc telemetry.Scope, next http.Handler) (http.Handler, error) {
	duration, err := sc.Meter.Float64Histogram(telemetry.MetricHTTPServerTime, metric.WithUnit("s"),
		metric.WithDescription("Duration of HTTP requests"),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
	if err != nil {
		return nil, fmt.Errorf("metric %s: %w", telemetry.MetricHTTPServerTime, err)
	}
	return &observer{sc: sc, duration: duration, next: next}, nil
}

type observer struct {
	sc       telemetry.Scope
	duration metric.Float64Histogram
	next     http.Handler
	series   sync.Map // outcome → *series; routes, methods and statuses are few
}

// outcome is what requests are told apart by, and series what is made of it
// once.
type (
	outcome struct {
		method, route string
		status        int
	}
	series struct {
		attrs  []attribute.KeyValue
		option metric.MeasurementOption
	}
)

func (o *observer) seriesOf(k outcome) *series {
	if s, ok := o.series.Load(k); ok {
		return s.(*series)
	}
	s := &series{attrs: []attribute.KeyValue{
		telemetry.AttrHTTPMethod.String(k.method),
		telemetry.AttrHTTPRoute.String(k.route),
		telemetry.AttrHTTPStatus.Int(k.status),
	}}
	s.option = metric.WithAttributeSet(attribute.NewSet(s.attrs...))
	o.series.Store(k, s)
	return s
}

func (o *observer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ctx := telemetry.ContextFrom(r.Context(), r.Header.Get("Traceparent"), r.Header.Get("Tracestate"))
	ctx, span := o.sc.Tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	r = r.WithContext(ctx)
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if v := recover(); v != nil {
			o.panicked(rec, r, v)
		}
		o.finish(r, rec, span, time.Since(start))
	}()
	o.next.ServeHTTP(rec, r)
}

func (o *observer) panicked(rec *recorder, r *http.Request, v any) {
	if v == http.ErrAbortHandler { // a handler's way to cut the connection
		panic(v)
	}
	o.sc.Log.ErrorContext(r.Context(), "handler panicked", telemetry.LogError, v, "path", r.URL.Path, "stack", string(debug.Stack()))
	if rec.status == 0 {
		e := From(fmt.Errorf("panic: %v", v))
		e.TraceID = telemetry.TraceID(r.Context())
		WriteError(rec, e)
	}
}

func (o *observer) finish(r *http.Request, rec *recorder, span trace.Span, took time.Duration) {
	route := r.Pattern
	if route == "" {
		route = "unmatched"
	}
	status := max(rec.status, http.StatusOK)
	s := o.seriesOf(outcome{knownMethod(r.Method), route, status})
	if span.IsRecording() {
		span.SetName(route)
		span.SetAttributes(s.attrs...)
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
	}
	o.duration.Record(r.Context(), took.Seconds(), s.option)
	if o.sc.Log.Enabled(r.Context(), slog.LevelDebug) {
		o.sc.Log.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "status", status, "took", took)
	}
}

// knownMethod keeps a caller from making metric series at will.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
