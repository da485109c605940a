package serving

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ObserveAsTriton exports what the server counts anyway under the names of
// Triton's metrics too, so that dashboards made for it go on working. They are
// gauges that only grow, because Triton's counters lack the suffix that
// counters get here. The counts are the model's; the version is its champion.
func (s *Server) ObserveAsTriton(m metric.Meter) error {
	var all []metric.Observable
	var errs []error
	gauge := func(name, about string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge("nv_inference_"+name, metric.WithDescription(about))
		all, errs = append(all, g), append(errs, err)
		return g
	}
	success := gauge("request_success", "Number of successful inference requests")
	failure := gauge("request_failure", "Number of failed inference requests, by reason")
	count := gauge("count", "Number of inferences performed (rows)")
	executions := gauge("exec_count", "Number of model executions performed")
	pending := gauge("pending_request_count", "Number of requests inside")
	request := gauge("request_duration_us", "Cumulative duration of queue and compute")
	queue := gauge("queue_duration_us", "Cumulative queuing duration")
	compute := gauge("compute_infer_duration_us", "Cumulative compute duration")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("triton's metrics: %w", err)
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, d := range *s.models.Load() {
			st := d.state.Load()
			by := []attribute.KeyValue{attribute.String("model", name), attribute.String("version", st.routing.Champion)}
			put := func(g metric.Int64ObservableGauge, n uint64, more ...attribute.KeyValue) {
				o.ObserveInt64(g, int64(n), metric.WithAttributes(append(more, by...)...))
			}
			rejected, waited, computed := d.stats.rejected.Load(), d.stats.queueNS.Load()/1000, d.stats.computeNS.Load()/1000
			put(success, d.stats.success.Load())
			put(failure, rejected, attribute.String("reason", "REJECTED"))
			put(failure, d.stats.failure.Load()-rejected, attribute.String("reason", "OTHER"))
			put(count, d.stats.rows.Load())
			put(executions, d.executions(st))
			put(pending, uint64(d.gate.pending()))
			put(request, waited+computed)
			put(queue, waited)
			put(compute, computed)
		}
		return nil
	}, all...)
	return err
}

// executions is how often models computed: once per request, or per batch of
// native runtimes that are loaded.
func (d *deployed) executions(st *state) uint64 {
	n, native := uint64(0), false
	for _, m := range st.versions {
		if m.native != nil {
			n, native = n+m.native.batches.Load(), true
		}
	}
	if !native {
		return d.stats.success.Load()
	}
	return n
}
