package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
)

// ErrUnasked is answered by an Ask that cannot answer a kind in this process:
// the rule is left alone.
var ErrUnasked = errors.New("this process does not answer that kind")

// Config says who is told of what.
type Config struct {
	Rules     []alerts.Rule
	Receivers []Receiver
	Every     time.Duration // between two looks
	Namespace string
	Links     string        // address of a Grafana, for links; empty: none
	File      string        // where alerts outlive a restart; empty: nowhere
	Timeout   time.Duration // of one message; 10 s when zero
	Backoff   time.Duration // before the second try of a message; 1 s when zero
	Client    *http.Client  // nil: one of its own
	Ask       func(context.Context, query.Request) ([]query.Frame, error)
	Scope     telemetry.Scope
}

// Pusher looks at the rules and tells the receivers.
type Pusher struct {
	cfg    Config
	watch  Watch
	sent   metric.Int64Counter
	firing metric.Int64Gauge
}

// New returns a pusher that goes on where the one before it, with the same file,
// stopped. A file that cannot be read is an error: it is not overwritten.
func New(cfg Config) (*Pusher, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = time.Second
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // a token goes nowhere else
	}
	p := &Pusher{cfg: cfg, watch: Watch{Namespace: cfg.Namespace, Links: cfg.Links, Alerts: map[string]*Alert{}}}
	var errs [2]error
	p.sent, errs[0] = cfg.Scope.Meter.Int64Counter(telemetry.MetricAlertsSent, metric.WithDescription("Attempts to bring a receiver of alerts up to date, by outcome"))
	p.firing, errs[1] = cfg.Scope.Meter.Int64Gauge(telemetry.MetricAlertsFiring, metric.WithDescription("Alerts that fire"))
	return p, errors.Join(errs[0], errs[1], p.load())
}

// Run looks again and again until ctx ends.
func (p *Pusher) Run(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	for {
		p.Look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look asks every rule's question, and tells every receiver what is new.
func (p *Pusher) Look(ctx context.Context, now time.Time) {
	p.watch.Left = 0
	for _, r := range p.cfg.Rules {
		q := r.Query
		q.From, q.To = now.Add(-r.Range).UTC(), now.UTC()
		frames, err := p.cfg.Ask(ctx, q)
		if errors.Is(err, ErrUnasked) {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		var found []Instance
		if err == nil {
			found, err = Evaluate(r, frames)
		}
		if err != nil {
			p.cfg.Scope.Log.Error("an alert rule could not be evaluated", "rule", r.UID, telemetry.LogError, err)
		}
		p.watch.Step(r, found, err, now)
	}
	if p.watch.Left > 0 {
		p.cfg.Scope.Log.Error("more alerts fire than are told of", "most", maxAlerts, "left_out", p.watch.Left)
	}
	p.save()
	p.deliver(ctx, now)
	p.watch.Forget(p.webhooks(), now)
	p.save()
}

func (p *Pusher) webhooks() []string {
	var out []string
	for _, r := range p.cfg.Receivers {
		if r.Webhook {
			out = append(out, r.URL)
		}
	}
	return out
}

// deliver tells all receivers side by side, so that one that hangs holds up
// nobody else.
func (p *Pusher) deliver(ctx context.Context, now time.Time) {
	loud := p.watch.loud()
	firing := int64(0)
	for _, a := range loud {
		if a.Ends.IsZero() {
			firing++
		}
	}
	p.firing.Record(ctx, firing)
	told := make([]map[string]string, len(p.cfg.Receivers))
	var wg sync.WaitGroup
	for i, r := range p.cfg.Receivers {
		wg.Go(func() {
			var err error
			told[i], err = p.tell(ctx, r, loud, now)
			outcome := "ok"
			if err != nil && ctx.Err() == nil {
				outcome = "failed"
				p.cfg.Scope.Log.Error("a receiver of alerts was not told everything; the next look tries again what was not refused", telemetry.LogError, err)
			}
			p.sent.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
		})
	}
	wg.Wait()
	for i, r := range p.cfg.Receivers {
		for id, key := range told[i] {
			p.watch.Alerts[id].Told[r.URL] = key
		}
	}
}

// kept is the form of the file.
type kept struct {
	Version int      `json:"version"`
	Alerts  []*Alert `json:"alerts"`
}

func (p *Pusher) load() error {
	if p.cfg.File == "" {
		return nil
	}
	b, err := os.ReadFile(p.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err == nil && k.Version != 1 {
		err = fmt.Errorf("version %d: this build reads 1", k.Version)
	}
	if err != nil {
		return fmt.Errorf("read where alerts stand from %s: %w: move it away to begin anew", p.cfg.File, err)
	}
	for _, a := range k.Alerts {
		if a.Told == nil {
			a.Told = map[string]string{}
		}
		p.watch.Alerts[a.ID] = a
	}
	return nil
}

// save writes the file whole and then puts it in the old one's place.
func (p *Pusher) save() {
	if p.cfg.File == "" {
		return
	}
	k := kept{Version: 1}
	for _, id := range slices.Sorted(maps.Keys(p.watch.Alerts)) {
		k.Alerts = append(k.Alerts, p.watch.Alerts[id])
	}
	b, err := json.Marshal(k)
	if err == nil {
		next := filepath.Join(filepath.Dir(p.cfg.File), "."+filepath.Base(p.cfg.File))
		if err = os.WriteFile(next, b, 0o600); err == nil {
			err = os.Rename(next, p.cfg.File)
		}
	}
	if err != nil {
		p.cfg.Scope.Log.Error("where alerts stand was not stored; after a restart they may be told again", telemetry.LogError, err)
	}
}
