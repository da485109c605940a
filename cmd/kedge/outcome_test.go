package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// TestOutcomesDecide replays a market and a census in time order with late
// labels, past three models each: a canary that learnt from swapped classes is
// rolled back by its guard-rail, a better one is promoted, and the history and
// the query API tell both.
func TestOutcomesDecide(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startKedge(t, dir)
	file := func(name string) string { return testenv.Shared(t, "data/"+name) }
	for model, args := range map[string][]string{
		"elec": {file("elec.csv"), "--label", "class", "--less", "nswprice,vicprice"},
		"employment": {file("employment_MA_reference.pq"), "--then", file("employment_MA_analysis.pq"), "--truth", file("employment_MA_analysis_target.pq"), "--label", "employed",
			"--drop", "id,year,prediction,predicted_probability", "--less", "AGEP,SCHL,RELP,MAR,ESP,DIS,MIL", "--categories", "SCHL,MAR,RELP,DIS,ESP,CIT,MIG,MIL,ANC,NATIVITY,DEAR,DEYE,DREM,SEX,RAC1P"},
	} {
		rehearsed(p, model, append(args, "--artifacts", filepath.Join(dir, "artifacts"))...)
	}
	p.must("rollout", "rollback", "elec", "--why", "second thoughts")
	if out := p.must("rollout", "status", "elec"); !strings.Contains(out, "champion champion since") {
		t.Errorf("after the rollback:\n%s", out)
	}
	if _, errs, status := p.kedge("rollout", "rehearse", file("elec.csv"), "--model", "elec", "--label", "class", "--less", "nswprice", "--artifacts", filepath.Join(dir, "artifacts")); status == 0 || !strings.Contains(errs, "deploy elec") {
		t.Errorf("a rehearsal took a live model over: status %d, %s", status, errs)
	}
}

// TestDemoRidesDecide is the same with the demo stream's rides, as `make demo` has
// it where there is no folder of real data, and fewer of them.
func TestDemoRidesDecide(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startKedge(t, dir)
	rehearsed(p, "rides", "--train", "2000", "--artifacts", filepath.Join(dir, "artifacts"))
}

// rehearsed plays a rollout, and finds both decisions in its history and in the
// answer of the query API.
func rehearsed(p *kedgeProcess, model string, args ...string) {
	p.t.Helper()
	out := p.must(append([]string{"rollout", "rehearse", "--model", model}, args...)...)
	p.t.Log(out)
	if h := p.must("rollout", "history", model); !strings.Contains(h, "champion better  (guard-rail) labels: error of the canary") || !strings.HasSuffix(out, h) {
		p.t.Errorf("history of %s:\n%s", model, h)
	}
	f := p.ask(query.Request{Kind: "rollouts", Model: model, From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)})[0]
	told := fmt.Sprint(textColumn(f, "action"), textColumn(f, "who"), textColumn(f, "champion"))
	if want := "[promoted canary began rolled back deployed] [guard-rail local guard-rail local] [better champion champion champion]"; told != want {
		p.t.Errorf("rollouts of %s: %s, want %s", model, told, want)
	}
}

func textColumn(f query.Frame, name string) []string {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]string); ok && c.Name == name {
			return v
		}
	}
	return nil
}
