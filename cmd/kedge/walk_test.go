package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/alerts/expr"
	"github.com/kedge-ml/kedge/dashboards"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// stormyDemo makes a data directory whose demo stream is in its first storm: an
// hour of past, of which the last ten minutes are stormy.
func stormyDemo(t *testing.T) string {
	t.Helper()
	dir, now := t.TempDir(), time.Now().UTC().Truncate(time.Second)
	mark := fmt.Sprintf(`{"began":%q,"next":%q}`, now.Add(-15*time.Minute).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339))
	if err := os.WriteFile(filepath.Join(dir, "demo.json"), []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEDGE_DEMO_BACKFILL", "1h")
	t.Setenv("KEDGE_DEMO_RATE", "10")
	return dir
}

// walker goes from panel to panel as a reader does: by what stands in rules and by
// the links of the values that panels show.
type walker struct {
	t    *testing.T
	p    *pluginProcess
	vars map[string]string
	uid  string
}

// panels are the panels of the dashboard on which the walker is.
func (w *walker) panels() []renderedPanel {
	w.t.Helper()
	all := dashboards.All()
	i := slices.IndexFunc(all, func(d dashboards.Dashboard) bool { return d.UID == w.uid })
	if i < 0 {
		w.t.Fatalf("a link leads to dashboard %q, which there is not", w.uid)
	}
	b, err := all[i].Render()
	if err != nil {
		w.t.Fatal(err)
	}
	var out struct{ Panels []renderedPanel }
	if err := json.Unmarshal(b, &out); err != nil {
		w.t.Fatal(err)
	}
	return out.Panels
}

// look asks what the panel of a title, or of an id, asks.
func (w *walker) look(title string, id int) data.Frames {
	w.t.Helper()
	for _, panel := range w.panels() {
		if panel.Title != title && panel.ID != id {
			continue
		}
		text := string(panel.Targets[0])
		for name, v := range w.vars {
			text = strings.ReplaceAll(text, "$"+name, v)
		}
		now := time.Now()
		r := w.p.ask(backend.DataQuery{RefID: "A", JSON: []byte(text), MaxDataPoints: 800, Interval: 5 * time.Second, TimeRange: backend.TimeRange{From: now.Add(-time.Hour), To: now}})["A"]
		if r.Error != nil || len(r.Frames) == 0 {
			w.t.Fatalf("%s: %q: %v", w.uid, panel.Title, r.Error)
		}
		return r.Frames
	}
	w.t.Fatalf("%s has no panel %q (%d)", w.uid, title, id)
	return nil
}

// follow clicks on a link of a field's value.
func (w *walker) follow(f *data.Field, title, value string) {
	w.t.Helper()
	i := slices.IndexFunc(f.Config.Links, func(l data.DataLink) bool { return l.Title == title })
	if i < 0 {
		w.t.Fatalf("%s: %s has no link %q: %+v", w.uid, f.Name, title, f.Config.Links)
	}
	u, err := url.Parse(strings.NewReplacer("${__value.raw}", url.QueryEscape(value), "${__from}", "0", "${__to}", "1").Replace(f.Config.Links[i].URL))
	if err != nil || !strings.HasPrefix(u.Path, "/d/") {
		w.t.Fatalf("%s: %v, %v", title, u, err)
	}
	w.uid = strings.TrimPrefix(u.Path, "/d/")
	for name, v := range u.Query() {
		if after, ok := strings.CutPrefix(name, "var-"); ok {
			w.vars[after] = v[0]
		}
	}
}

func field(t *testing.T, f *data.Frame, name string) *data.Field {
	t.Helper()
	got, at := f.FieldByName(name)
	if at < 0 {
		t.Fatalf("%s has no %s", f.Name, name)
	}
	return got
}

// fieldTexts are the values of a field of texts.
func fieldTexts(f *data.Field) (out []string) {
	for i := range f.Len() {
		v, _ := f.ConcreteAt(i)
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// walkToTrace goes the way of docs/grafana.md: from the alert about a column of
// the demo's storm to the segment that moved, to a row, to its trace.
func walkToTrace(t *testing.T, p *pluginProcess, r alerts.FileRule) {
	t.Helper()
	testenv.Eventually(t, 5*time.Minute, func() error { // monitors learn an hour first
		o := p.evaluate(r, time.Now())
		if o.Err != nil || !slices.ContainsFunc(o.Instances, func(i expr.Instance) bool { return i.Firing && i.Labels["column"] == "wait_minutes" }) {
			return fmt.Errorf("the storm is not told of: %+v", o)
		}
		return nil
	})
	drift := p.watch(r)
	drift.fires(map[string]string{"subject": "ride_cancel", "column": "wait_minutes"})
	w := &walker{t: t, p: p, vars: map[string]string{"column": "wait_minutes"}, uid: r.Annotations["__dashboardUid__"]}
	var id int
	if _, err := fmt.Sscan(r.Annotations["__panelId__"], &id); err != nil {
		t.Fatalf("the rule names no panel: %v", err)
	}
	open := w.look("", id)[0]
	subject := field(t, open, "subject")
	if !slices.Contains(fieldTexts(subject), "ride_cancel") {
		t.Fatalf("the alert's panel does not show ride_cancel: %v", fieldTexts(subject))
	}
	w.follow(subject, "As a model", "ride_cancel")
	if w.uid != dashboards.ModelUID || w.vars["model"] != "ride_cancel" {
		t.Fatalf("the subject leads to %s of %v", w.uid, w.vars)
	}
	moved := w.look("What moved most", 0)[0]
	if bins := fieldTexts(field(t, moved, "column")); !slices.Contains(bins, "wait_minutes") {
		t.Errorf("what moved most does not name wait_minutes: %v", bins)
	}
	if said := strings.Join(fieldTexts(field(t, w.look("Verdicts", 0)[0], "sentence")), "\n"); !strings.Contains(said, "wait_minutes") {
		t.Errorf("no verdict says a sentence about wait_minutes: %s", said)
	}
	w.toTrace()
}

// toTrace takes the newest row that has a trace, and follows it.
func (w *walker) toTrace() {
	w.t.Helper()
	var rows *data.Frame
	var at int
	testenv.Eventually(w.t, 3*time.Minute, func() error {
		rows = w.look("Newest predictions", 0)[0]
		at = slices.IndexFunc(fieldTexts(field(w.t, rows, "trace_id")), func(id string) bool { return id != "" })
		if at < 0 {
			return fmt.Errorf("no row of %d has a trace", rows.Rows())
		}
		return nil
	})
	traces := field(w.t, rows, "trace_id")
	id, row := fieldTexts(traces)[at], fieldTexts(field(w.t, rows, "id"))[at]
	w.follow(traces, "Open trace", id)
	if w.uid != dashboards.TraceUID || w.vars["trace"] != id || w.vars["datasource"] != "kedge" || w.vars["model"] != "ride_cancel" {
		w.t.Fatalf("the trace leads to %s of %v", w.uid, w.vars)
	}
	if of := fieldTexts(field(w.t, w.look("Rows of the trace", 0)[0], "id")); !slices.Equal(of, []string{row}) {
		w.t.Errorf("rows of trace %s: %v, want %s", id, of, row)
	}
	testenv.Eventually(w.t, 2*time.Minute, func() error { // the unit's span ends after its rows can be read
		spans := w.look("Spans", 0)[0]
		if spans.Meta.PreferredVisualization != data.VisTypeTrace {
			return fmt.Errorf("the frame is no trace: %+v", spans.Meta)
		}
		own, parents, names := fieldTexts(field(w.t, spans, "spanID")), fieldTexts(field(w.t, spans, "parentSpanID")), fieldTexts(field(w.t, spans, "operationName"))
		under := map[string]string{}
		for i, name := range names {
			under[name] = ""
			if up := slices.Index(own, parents[i]); up >= 0 {
				under[name] = names[up]
			}
		}
		const request = "predict ride_cancel"
		for name, want := range map[string]string{request: "", "features": request, "compute": request, "record": request, "ingest unit": "record"} {
			if got, ok := under[name]; !ok || got != want {
				return fmt.Errorf("span %q lies under %q, want %q: %v", name, got, want, names)
			}
		}
		return nil
	})
	w.vars["trace"] = strings.Repeat("0", 31) + "1"
	if r := w.p.ask(panelOf(w, "Spans"))["A"]; r.Error == nil || !strings.Contains(r.Error.Error(), "keeps no span") {
		w.t.Errorf("a trace that nobody keeps: %v", r.Error)
	}
}

// panelOf is the question of a panel, for an answer that may be a refusal.
func panelOf(w *walker, title string) backend.DataQuery {
	for _, panel := range w.panels() {
		if panel.Title == title {
			return backend.DataQuery{RefID: "A", JSON: []byte(strings.ReplaceAll(string(panel.Targets[0]), "$trace", w.vars["trace"]))}
		}
	}
	return backend.DataQuery{}
}
