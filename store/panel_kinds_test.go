package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// TestDriftState walks incidents of three columns through their changes: what is
// open has the severity of its newest window, a window judged again for late
// rows keeps the change it had, and what ended is quiet.
func TestDriftState(t *testing.T) {
	s, sub := open(t), store.Subject{Kind: event.Features, TableID: 7}
	start := time.UnixMicro(minute).UTC()
	at := func(column string, hour int, change, severity string, effect float64) store.Verdict {
		return store.Verdict{Namespace: "test", Monitor: "m", Subject: "view7", Column: column, Detector: "ks", Start: start.Add(time.Duration(hour) * time.Hour), End: start.Add(time.Duration(hour+1) * time.Hour),
			Effect: effect, Floor: 0.1, Severity: severity, Change: change, Sentence: column + " " + change}
	}
	for revision, vs := range [][]store.Verdict{
		{at("open", 0, "opened", "notice", 0.2), at("ended", 0, "opened", "warning", 0.5), at("calm", 0, "same", "quiet", 0.02)},
		{at("open", 1, "worsened", "critical", 0.9), at("ended", 1, "resolved", "quiet", 0.01), at("calm", 1, "suppressed", "warning", 0.3)},
		{at("open", 0, "same", "notice", 0.25)}, // late rows
	} {
		if err := s.SaveVerdicts(t.Context(), sub, vs, uint64(revision+1)); err != nil {
			t.Fatal(err)
		}
	}

	r := query.Request{Namespace: "test", From: start, To: start.Add(2 * time.Hour)}
	f, err := s.DriftState(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(column(t, f[0], "column").Values, column(t, f[0], "state").Values)
	if got != "[open calm ended] [3 0 0]" {
		t.Errorf("states %s", got)
	}
	if f, err = s.DriftShare(t.Context(), r); err != nil || column(t, f[0], "share").Values.([]float64)[0] != 1.0/3 {
		t.Errorf("share %+v, %v", f, err)
	}
	r.Detector = "chi2,missing_rate"
	if f, err = s.DriftState(t.Context(), r); err != nil || f[0].Rows() != 0 {
		t.Errorf("other detectors: %+v, %v", f, err)
	}
	r.Detector, r.View = "", "view7"
	if f, err = s.DriftHeatmap(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, c := range f[0].Columns[1:] {
		v := c.Values.([]*float64)
		rows = append(rows, fmt.Sprintf("%s %.1f %.1f", c.Name, *v[0], *v[1]))
	}
	if got := fmt.Sprint(rows); got != "[calm 0.2 3.0 ended 5.0 0.1 open 2.5 9.0]" {
		t.Errorf("heat map %s: the worst belongs on top, which is last", got)
	}
	marks, err := s.DriftMarks(t.Context(), r)
	if err != nil || fmt.Sprint(column(t, marks, "change").Values) != "[worsened resolved opened opened]" && fmt.Sprint(column(t, marks, "change").Values) != "[resolved worsened opened opened]" {
		t.Errorf("marks %+v, %v", column(t, marks, "change").Values, err)
	}
}
