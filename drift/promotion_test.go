package drift_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
)

// promoted is a model whose world moves by three deviations at a minute, and
// whose champion is what the test says.
type promoted struct {
	*churn
	scheduler *drift.Scheduler
	begin, at time.Time
	rng       *rand.Rand
	champion  drift.Champion
}

func newPromoted(t *testing.T) *promoted {
	c, _ := newChurn(t, churnModel)
	p := &promoted{churn: c, begin: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), rng: rand.New(rand.NewPCG(5, 6))}
	p.at = p.begin
	p.restart()
	return p
}

func (p *promoted) restart() {
	p.t.Helper()
	var err error
	cfg := drift.SchedulerConfig{Namespace: "test", Scope: telemetry.Discard(), Champion: func(string) (drift.Champion, bool) { return p.champion, p.champion.Version != "" }}
	if p.scheduler, err = drift.NewScheduler(cfg, p.store, p.registry, nil); err != nil {
		p.t.Fatal(err)
	}
}

// minutes writes predictions of so many minutes and looks.
func (p *promoted) minutes(n int, mean float64) {
	p.predict(p.at, n, mean)
	p.at = p.at.Add(time.Duration(n) * time.Minute)
	p.scheduler.Look(p.t.Context(), p.at.Add(10*time.Second))
}

func (p *promoted) predict(at time.Time, minutes int, mean float64) {
	rows := 250 * minutes
	var lines []string
	for i := range rows {
		lines = append(lines, fmt.Sprintf(`{"model":"churn","version":"v1","id":"p%d-%d","event_time":%q,"inputs":{"x":%.5f},"output":{"score":%.4f}}`,
			p.offset, i, at.Add(time.Duration(i)*time.Minute/250).Format(time.RFC3339Nano), p.rng.NormFloat64()+mean, p.rng.Float64()))
	}
	p.write(event.Predictions, lines)
}

// trainedOn is what training rows around a mean looked like.
func trainedOn(t *testing.T, rng *rand.Rand, mean float64) map[string]*drift.Baseline {
	t.Helper()
	g, err := dist.NumericGrid(normals(rng, 20_000, mean), dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	b := dist.NewBuilder(g)
	for _, v := range normals(rng, 50_000, mean) {
		b.Add(v)
	}
	return map[string]*drift.Baseline{"x": {Grid: g, Reference: b.Summary()}}
}

// judged is the newest verdict of a column's shape at a window.
type judged struct {
	drifted   bool
	reference string
	revision  uint64
	rows      uint64
}

func (p *promoted) judged(minute int) (judged, bool) {
	p.t.Helper()
	start := p.begin.Add(time.Duration(minute) * time.Minute)
	f := ask(p.t, p.store.Verdicts, query.Request{Namespace: "test", Model: "churn", From: start, To: start.Add(time.Minute), Limit: 100})
	for i, c := range cells(p.t, f, "column") {
		if c == "x" && cells(p.t, f, "detector")[i] == "ks" {
			return judged{values[bool](p.t, f, "drifted")[i], cells(p.t, f, "reference")[i], values[uint64](p.t, f, "revision")[i], values[uint64](p.t, f, "rows")[i]}, true
		}
	}
	return judged{}, false
}

func (p *promoted) want(minute int, drifted bool, reference string) judged {
	p.t.Helper()
	v, ok := p.judged(minute)
	if !ok || v.rows < 250 || v.drifted != drifted || !strings.HasPrefix(v.reference, reference) {
		p.t.Errorf("minute %d: %+v (judged: %v), want drifted %v under %q", minute, v, ok, drifted, reference)
	}
	return v
}

// A world that has moved is news under the first champion's reference. The
// version that learnt from it brings its own: from its promotion on the same
// rows are normal, what was said before stays, late rows and a restart included,
// and a version whose training nobody knows learns from its own first rows.
func TestPromotionBringsItsReference(t *testing.T) {
	p := newPromoted(t)
	p.champion = drift.Champion{Version: "1", Artifact: "aaaa", Since: p.begin, Training: func() (map[string]*drift.Baseline, error) {
		return nil, errors.New("the first champion's training was read, without being asked for")
	}}
	p.minutes(40, 0)
	p.minutes(6, 3)
	p.want(38, false, "2026-03-01 00:00 to")
	old := p.want(44, true, "2026-03-01 00:00 to")

	trained := trainedOn(t, p.rng, 3)
	p.champion = drift.Champion{Version: "2", Artifact: "bbbb", Since: p.at.Add(-10 * time.Second), Training: func() (map[string]*drift.Baseline, error) { return trained, nil }}
	p.minutes(6, 3)
	p.want(45, true, "2026-03-01 00:00 to") // it ended before the promotion's window
	p.want(48, false, "training of version 2 (bbbb)")
	p.restart()
	p.predict(p.begin.Add(44*time.Minute), 1, 0)
	p.minutes(4, 3)
	if now := p.want(44, true, "2026-03-01 00:00 to"); now != old {
		t.Errorf("late rows changed a verdict under an earlier reference: %+v to %+v", old, now)
	}
	p.want(53, false, "training of version 2 (bbbb)")
	p.minutes(4, 0)
	p.want(58, true, "training of version 2 (bbbb)")

	p.champion = drift.Champion{Version: "3", Since: p.at, Training: func() (map[string]*drift.Baseline, error) { return nil, nil }}
	p.minutes(4, 0)
	if state := cells(t, ask(t, p.scheduler.Monitors, query.Request{}), "state"); !strings.HasPrefix(state[0], "learning ") {
		t.Errorf("a version without training is %v", state)
	}
	p.restart()
	p.minutes(26, 0)
	p.want(87, false, "2026-03-01 01:0")
	p.want(58, true, "training of version 2 (bbbb)")
	p.minutes(4, 3)
	p.want(92, true, "2026-03-01 01:0")
}

// A definition that asks for it stands on the first champion's training; one
// that states a range keeps it whatever is promoted.
func TestReferenceAsItsMonitorSays(t *testing.T) {
	p := newPromoted(t)
	far := trainedOn(t, p.rng, 3)
	p.champion = drift.Champion{Version: "1", Artifact: "aaaa", Since: p.begin, Training: func() (map[string]*drift.Baseline, error) { return far, nil }}
	define(t, p.registry, drift.MonitorKind, "trained", `{"model":"churn","reference":{"training":true},"window":"1m"}`, "")
	p.minutes(36, 0)
	p.want(34, true, "training of version 1 (aaaa)")
	f := ask(t, p.scheduler.Distribution, query.Request{Namespace: "test", Model: "churn", Columns: []string{"x"}})
	if f.Rows() == 0 {
		t.Error("no distribution under the champion's bins")
	}

	define(t, p.registry, drift.MonitorKind, "trained", `{"model":"churn","reference":{"from":"2026-03-01T00:00:00Z","to":"2026-03-01T00:30:00Z"},"window":"1m"}`, "")
	p.champion.Version = "2"
	p.minutes(4, 0)
	p.want(38, false, "2026-03-01 00:00 to 2026-03-01 00:30")
	for _, bad := range []string{`{"view":"user","reference":{"training":true}}`, `{"model":"churn","reference":{"training":true,"file":"x"}}`} {
		if _, err := drift.ParseMonitor([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// Two versions that share their traffic at random are alike in all but what
// the test gives one of them alone: inputs, scores and labels of version 2 are
// another model's.
func TestVersionAgainstVersion(t *testing.T) {
	p := newPromoted(t)
	p.minutes(40, 0)
	var lines, labels []string
	for i := range 2000 {
		version, score := "1", p.rng.Float64()
		truth := 0
		if p.rng.Float64() < score {
			truth = 1
		}
		if i%2 == 1 { // its scores are higher and say nothing
			version, score = "2", 0.5+0.5*p.rng.Float64()
		}
		at := p.at.Add(time.Duration(i) * time.Second / 10).Format(time.RFC3339Nano)
		lines = append(lines, fmt.Sprintf(`{"model":"churn","version":"v%s","id":"w%d","event_time":%q,"inputs":{"x":%.5f},"output":{"score":%.4f}}`, version, i, at, p.rng.NormFloat64(), score))
		labels = append(labels, fmt.Sprintf(`{"model":"churn","prediction_id":"w%d","label":%d,"event_time":%q}`, i, truth, at))
	}
	p.write(event.Predictions, lines)
	p.write(event.Labels, labels)
	frames, err := p.scheduler.VersionCompare(t.Context(), query.Request{Namespace: "test", Model: "churn", Version: "v2", Params: []byte(`{"against":"v1"}`), From: p.at, To: p.at.Add(10 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	differs := map[string]bool{}
	for i, c := range cells(t, frames[0], "column") {
		if cells(t, frames[0], "detector")[i] == "ks" {
			differs[c] = values[bool](t, frames[0], "differs")[i]
			if rows := values[uint64](t, frames[0], "rows")[i]; rows != 1000 {
				t.Errorf("%s of %d rows, want 1000", c, rows)
			}
		}
	}
	if differs["x"] || !differs["score"] {
		t.Errorf("differ: %v, want the score alone", differs)
	}
	for i, name := range cells(t, frames[1], "metric") {
		if name != "roc_auc" {
			continue
		}
		is, was, p := *values[*float64](t, frames[1], "value")[i], *values[*float64](t, frames[1], "against")[i], *values[*float64](t, frames[1], "adjusted")[i]
		if is < 0.4 || is > 0.6 || was < 0.78 || was > 0.88 || p > 1e-6 { // chance, and 5/6
			t.Errorf("ROC AUC %v against %v, chance %v", is, was, p)
		}
	}
	for _, bad := range []query.Request{{Model: "churn"}, {Model: "churn", Version: "v1", Params: []byte(`{"against":"v1"}`)}, {Model: "churn", Version: "v1", Params: []byte(`{`)}, {Model: "churn", Version: "v1", Params: []byte(`{"against":"v2","agianst":"v1"}`)}, {Model: "nobody", Version: "v1", Params: []byte(`{"against":"v2"}`)}} {
		bad.Namespace = "test"
		if _, err := p.scheduler.VersionCompare(t.Context(), bad); err == nil {
			t.Errorf("%+v is answered", bad)
		}
	}
}
