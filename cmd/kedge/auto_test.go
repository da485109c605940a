package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/trainer"
)

// TestTrainAuto lets everything be chosen. The truth is an interaction that a
// linear model cannot see, and a weak trend that it can: trees are found, beat
// the stated baseline on the newest rows, and run in the live model's shadow.
func TestTrainAuto(t *testing.T) {
	t.Setenv("KEDGE_TRAINER_LIBRARY", needXGBoost(t))
	p := startKedge(t, t.TempDir())
	const rows = 1500
	p.send(crossed(rows))
	p.caughtUp(rows)
	// The live model is a linear one, deployed the same way.
	args := []string{"train", "--auto", "--deploy", "--name", "bought", "--label", "visit:bought", "--from", "2026-01-01T00:00:00Z"}
	live := p.runOf(p.must("train", "-f", jobOf(t, "bought", "{features: [\"visit:c\"], labels: {view: visit, column: bought}}", "  backend: linear\n  gate: {metric: auc, min: 0.51}\n  register: {deploy: champion}\n")))
	if live.Version != "1" {
		t.Fatalf("%+v", live)
	}
	out := p.must(append(args, "--why", "no idea")...)
	r := p.runOf(out)
	if r.State != trainer.Succeeded || r.Version != "2" || r.Backend == "linear" || !strings.Contains(out, "chosen: task binary") || !strings.Contains(out, "chosen: baseline: a linear model") {
		t.Fatalf("%s\n%+v", out, r)
	}
	if test, constant := r.Metrics["test"]["logloss"], r.Metrics["baseline"]["logloss"]; test > 0.8*constant {
		t.Errorf("logloss %v on the newest rows, always answering the average gives %v", test, constant)
	}
	if !slices.ContainsFunc(r.Choices, func(c string) bool { return strings.Contains(c, "trees reach") }) {
		t.Errorf("the choices do not say what the trees reach beside the baseline: %q", r.Choices)
	}
	if r.Cost.Trials < 10 {
		t.Errorf("the cost is that of %d trials", r.Cost.Trials)
	}
	f := p.ask(query.Request{Kind: "models", Model: "bought"})[0]
	if roles := wordsOf(t, f, "live"); !slices.Equal(roles, []string{"shadow", "champion"}) {
		t.Errorf("deployed as %v", roles)
	}
	if a := wordsOf(t, f, "aliases"); a[0] != "challenger" {
		t.Errorf("aliases %v", a)
	}
	// A truth that is noise passes no gate: nothing is registered or deployed.
	out, errs, status := p.kedge("train", "--auto", "--deploy", "--name", "noise", "--label", "visit:noise", "--features", "visit:c", "--from", "2026-01-01T00:00:00Z")
	if status != 3 || !strings.Contains(out, "refused by the gate") || p.ask(query.Request{Kind: "models", Model: "noise"})[0].Rows() != 0 {
		t.Errorf("noise: status %d\n%s%s", status, out, errs)
	}
	for _, bad := range [][]string{{"--label", "visit"}, {"--label", "nothing:x"}, {"--label", "visit:bought", "--predictions", "m"}, {"--label", "visit:bought", "--from", "yesterday"}} {
		if _, errs, status := p.kedge(append([]string{"train", "--auto", "--name", "x"}, bad...)...); status == 0 || errs == "" {
			t.Errorf("%v: status %d %s", bad, status, errs)
		}
	}
}

// jobOf writes a TrainingJob.
func jobOf(t *testing.T, name, data, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte("kind: TrainingJob\nname: "+name+"\nspec:\n  data: "+data+"\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// crossed are visits: bought when a and b lie on different sides, or when c is
// large.
func crossed(rows int) string {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b strings.Builder
	for i := range rows {
		x, y, c := r.NormFloat64(), r.NormFloat64(), r.NormFloat64()
		bought, noise := 0, r.IntN(2)
		if (x > 0) != (y > 0) || c > 1 {
			bought = 1
		}
		if r.IntN(20) == 0 {
			bought = 1 - bought
		}
		now := at.Add(time.Duration(i) * time.Minute).Format(time.RFC3339)
		fmt.Fprintf(&b, `{"view":"visit","key":{"id":%d},"event_time":%q,"known_at":%q,"values":{"a":%.4f,"b":%.4f,"c":%.4f,"bought":%d,"noise":%d}}`+"\n", i, now, now, x, y, c, bought, noise)
	}
	return b.String()
}

// trainEmployment does what the README shows, on a tenth of the rows that are
// there: a linear model of all of them takes a minute.
func (p *kedgeProcess) trainEmployment(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.Root(t), "examples", "employment_job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "data: {", "data: {sample: 0.1, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out := p.must("train", "-f", file)
	r := p.runOf(out)
	if r.Version != "1" || !r.Passed || r.Metrics["test"]["auc"] < 0.8 || r.Data.Rows["train"] < 4000 {
		t.Errorf("%s\n%+v", out, r.Data)
	}
}
