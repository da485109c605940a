package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/time/rate"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
)

// requestQuotas hold namespaces to their requests per second, each process by
// itself: a second's worth may come at once. It knows namespaces that have a
// definition alone, so that their number is bounded.
type requestQuotas struct {
	registry *registry.Registry
	now      func() time.Time

	mu   sync.Mutex
	of   map[string]*requestQuota
	over func(namespace string) // counts a refusal
}

// requestQuota is one namespace's, by one version of its definition.
type requestQuota struct {
	version uint64
	limit   *rate.Limiter // nil: no bound
}

// allow takes one request off a caller's namespace, or refuses it.
func (q *requestQuotas) allow(c auth.Caller) bool {
	d, ok := q.registry.State().Get(event.NamespaceKind, c.Namespace, c.Namespace)
	if !ok {
		return true
	}
	limit := q.limit(d)
	if limit == nil || limit.AllowN(q.now(), 1) {
		return true
	}
	q.over(c.Namespace)
	return false
}

// limit is what the newest version of a definition says. A definition that
// cannot be read was never accepted.
func (q *requestQuotas) limit(d registry.Definition) *rate.Limiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	known := q.of[d.Name]
	if known != nil && known.version == d.Version {
		return known.limit
	}
	known = &requestQuota{version: d.Version}
	if s, err := event.ParseNamespace(d.Spec); err == nil && s.Quotas.RequestsPerSecond > 0 {
		n := s.Quotas.RequestsPerSecond
		known.limit = rate.NewLimiter(rate.Limit(n), int(n))
	}
	q.of[d.Name] = known
	return known.limit
}

// countRefusals gives the door its counters.
func (a *App) countRefusals(cfg *auth.GateConfig) error {
	m := a.tel.Scope("auth").Meter
	refused, err := m.Int64Counter(telemetry.MetricAuthRefused, metric.WithDescription("Calls that the door refused"))
	if err != nil {
		return fmt.Errorf("count refusals: %w", err)
	}
	over, err := m.Int64Counter(telemetry.MetricNamespaceRefused, metric.WithDescription("Calls beyond their namespace's requests per second"))
	if err != nil {
		return fmt.Errorf("count refusals: %w", err)
	}
	cfg.Guarded = func(code, method string) {
		refused.Add(context.Background(), 1, metric.WithAttributes(attribute.String("code", code), attribute.String("method", method)))
	}
	quotas := &requestQuotas{registry: a.registry, now: time.Now, of: map[string]*requestQuota{}, over: func(namespace string) {
		over.Add(context.Background(), 1, metric.WithAttributes(attribute.String("namespace", namespace)))
	}}
	cfg.Allow = quotas.allow
	return nil
}
