package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Health is whether this process can do its work, part by part.
type Health struct {
	Ready bool         `json:"ready"`
	Parts []PartHealth `json:"parts"`
}

// PartHealth is one dependency.
type PartHealth struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty" doc:"Why it is not ready"`
	Detail string `json:"detail,omitempty"`
}

const checkTimeout = 3 * time.Second

// health asks every part at once.
func (a *App) health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	checks := []func(context.Context) PartHealth{a.brokerHealth, a.registryHealth}
	if a.store != nil {
		checks = append(checks, a.storeHealth)
	}
	if a.consumer != nil {
		checks = append(checks, a.ingestHealth)
		if len(a.pairer.Statuses()) > 0 {
			checks = append(checks, a.pairsHealth)
		}
	}
	if a.features != nil {
		checks = append(checks, a.featuresHealth)
	}
	if a.serving != nil {
		checks = append(checks, a.servingHealth)
	}
	out := Health{Ready: true, Parts: make([]PartHealth, len(checks))}
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { out.Parts[i] = check(ctx) })
	}
	wg.Wait()
	for _, p := range out.Parts {
		out.Ready = out.Ready && p.Ready
	}
	return out
}

func partHealth(name, detail string, err error) PartHealth {
	p := PartHealth{Name: name, Ready: err == nil, Detail: detail}
	if err != nil {
		p.Reason = err.Error()
	}
	return p
}

func (a *App) brokerHealth(ctx context.Context) PartHealth {
	where := "Kafka at " + strings.Join(a.brokers, ", ")
	if a.broker != nil {
		where = "embedded, Kafka protocol at " + a.broker.Addr()
	}
	return partHealth("broker", where, a.client.Ping(ctx))
}

func (a *App) storeHealth(ctx context.Context) PartHealth {
	where := "ClickHouse at " + a.cfg.ClickHouse.URL.String()
	if a.cfg.EmbeddedStore() {
		where = "embedded ClickHouse engine in " + a.dir.Sub("store")
	}
	return partHealth("store", where, a.store.Ping(ctx))
}

func (a *App) registryHealth(context.Context) PartHealth {
	n := len(a.registry.State().List("", ""))
	return PartHealth{Name: "registry", Ready: true, Detail: plural(n, "definition")}
}

func (a *App) ingestHealth(context.Context) PartHealth {
	s := a.consumer.Status()
	lag := int64(0)
	for _, p := range s.Partitions {
		lag += max(0, p.Lag)
	}
	h := PartHealth{Name: "ingest", Ready: s.Ready, Detail: fmt.Sprintf("%s, %s behind", plural(len(s.Partitions), "partition"), plural(int(lag), "record"))}
	if !s.Ready {
		h.Reason = s.Reason
	}
	return h
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// gate answers while parts are opening or closing.
func (a *App) gate() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", livez)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]any{"code": "starting", "message": "kedge is starting or stopping", "ready": false})
	})
	return mux
}

func livez(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

func (a *App) readyz(w http.ResponseWriter, r *http.Request) {
	h := a.health(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !h.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(h) // the prober may have gone
}
