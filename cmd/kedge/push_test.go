package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/alerts/expr"
	"github.com/kedge-ml/kedge/alerts/push"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// receivers are an Alertmanager and a webhook at one address.
type receivers struct {
	mu     sync.Mutex
	events []push.Event
	ends   map[string]time.Time // what the Alertmanager was last told, by alertname and subject
	faults []string
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Header.Get("Authorization") != "Bearer from-a-file" {
		r.faults = append(r.faults, "token "+req.Header.Get("Authorization"))
	}
	if req.URL.Path == "/hook" {
		var e push.Event
		if err := json.NewDecoder(req.Body).Decode(&e); err != nil || e.Key != req.Header.Get("Idempotency-Key") {
			r.faults = append(r.faults, fmt.Sprint(err, e))
		}
		r.events = append(r.events, e)
		return
	}
	var in []struct {
		Labels map[string]string `json:"labels"`
		EndsAt time.Time         `json:"endsAt"`
	}
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil || req.URL.Path != "/api/v2/alerts" {
		r.faults = append(r.faults, fmt.Sprint(err, req.URL.Path))
	}
	for _, a := range in {
		r.ends[a.Labels["alertname"]+" "+a.Labels["subject"]+a.Labels["model"]] = a.EndsAt
	}
}

// TestAlertsArePushed holds that a running kedge tells an Alertmanager and a
// webhook of a rule's beginning and end, with a token from a file.
func TestAlertsArePushed(t *testing.T) {
	to := &receivers{ends: map[string]time.Time{}}
	s := httptest.NewServer(to)
	defer s.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEDGE_ALERTS_ALERTMANAGERS", s.URL)
	t.Setenv("KEDGE_ALERTS_ALERTMANAGER_TOKEN", "file:"+token)
	t.Setenv("KEDGE_ALERTS_WEBHOOKS", s.URL+"/hook")
	t.Setenv("KEDGE_ALERTS_WEBHOOK_TOKEN", "file:"+token)
	t.Setenv("KEDGE_ALERTS_EVERY", "2s")
	k := startKedge(t, t.TempDir())
	k.rollBack(t)
	told := func(status string) push.Event {
		t.Helper()
		var e push.Event
		testenv.Eventually(t, 90*time.Second, func() error {
			to.mu.Lock()
			defer to.mu.Unlock()
			i := slices.IndexFunc(to.events, func(e push.Event) bool { return e.Status == status && e.Labels["model"] == "fraud" })
			if i < 0 || len(to.faults) > 0 {
				return fmt.Errorf("not told that the rollback alert is %s: %+v, %v", status, to.events, to.faults)
			}
			e = to.events[i]
			return nil
		})
		return e
	}
	e := told("firing")
	if e.Labels["alertname"] != "A model was rolled back" || e.Labels["severity"] != "warning" || e.Annotations["summary"] != "fraud went back to an earlier version" {
		t.Errorf("%+v", e)
	}
	k.must("delete", "Deployment", "fraud", "--why", "over")
	if over := told("resolved"); over.ID != e.ID || !over.StartsAt.Equal(e.StartsAt) {
		t.Errorf("%+v, %+v", e, over)
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if end, ok := to.ends["A model was rolled back fraud"]; !ok || end.After(time.Now().Add(time.Minute)) {
		t.Errorf("the Alertmanager was told %v", to.ends)
	}
}

// pushed asks a rule's question of Kedge itself and evaluates it as the push
// does.
func (k *kedgeProcess) pushed(r alerts.Rule, now time.Time) ([]push.Instance, error) {
	q := r.Query
	q.From, q.To = now.Add(-r.Range), now
	return push.Evaluate(r, k.ask(q))
}

// checkAgree holds that Grafana, by the plugin and its own steps, and the push
// see the same instances of every rule.
func checkAgree(t *testing.T, k *kedgeProcess, p *pluginProcess, rules map[string]alerts.FileRule) {
	t.Helper()
	instances := 0
	for _, g := range alerts.All() {
		for _, r := range g.Rules {
			if slices.Contains([]string{"freshness", "column_freshness", "ingest_lag"}, r.Query.Kind) {
				continue // a value of its moment: who is listed is compared below
			}
			testenv.Eventually(t, 20*time.Second, func() error { // rows may land between the two questions
				now := time.Now()
				inGrafana := p.evaluate(rules[r.UID], now)
				inPush, err := k.pushed(r, now)
				if err != nil || inGrafana.Err != nil {
					return fmt.Errorf("%s: %w, %w", r.UID, err, inGrafana.Err)
				}
				if a, b := named(inGrafana), namedPush(inPush); !reflect.DeepEqual(a, b) {
					return fmt.Errorf("%s: Grafana sees %v, the push %v", r.UID, a, b)
				}
				instances += len(inPush)
				return nil
			})
		}
	}
	if instances == 0 {
		t.Error("nothing was compared")
	}
}

func named(o expr.Outcome) map[string]bool {
	out := map[string]bool{}
	for _, i := range o.Instances {
		out[i.Labels.String()] = i.Firing
	}
	return out
}

func namedPush(found []push.Instance) map[string]bool {
	out := map[string]bool{}
	for _, i := range found {
		out[data.Labels(i.Labels).String()] = i.Firing
	}
	return out
}

// rollBack deploys a model, its successor, and the model again.
func (k *kedgeProcess) rollBack(t *testing.T) {
	t.Helper()
	for version, champion := range []string{"1", "2", "1"} {
		file := filepath.Join(t.TempDir(), "deployment.yaml")
		spec := fmt.Sprintf("kind: Deployment\nname: fraud\nversion: %d\nspec:\n  versions: [{version: '1', artifact: %s}, {version: '2', artifact: %s}]\n  champion: %q\n", version, strings.Repeat("a", 64), strings.Repeat("b", 64), champion)
		if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		k.must("apply", "-f", file)
	}
}
