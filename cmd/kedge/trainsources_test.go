package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/trainer"
)

const sourceDefinitions = `kind: FeatureView
name: driver
spec:
  origin: declared
  online: true
  keys: [{name: id, type: Int64}]
  columns: [{name: rating, type: Float64}, {name: noise, type: Float64}]
---
kind: FeatureView
name: outcome
spec:
  origin: declared
  keys: [{name: id, type: Int64}]
  columns: [{name: good, type: Int64}, {name: trust, type: Float64}]
---
kind: FeatureService
name: both
spec: {features: ["driver:rating", "driver:noise"]}
`

// sourceRows says 600 times what was known of a driver and, a minute later, how
// it went: well where the rating is above 0. Half of the outcomes are lies, and
// carry a hundredth of the weight. A model saw the rating of every driver; two
// of three of its predictions have a label, which is true.
func sourceRows(start time.Time) string {
	var b strings.Builder
	rng := rand.New(rand.NewPCG(3, 3))
	at := func(minutes int) string { return start.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339) }
	for i := range 600 {
		rating := rng.NormFloat64()
		good, trust := 0, 1.0
		if rating > 0 {
			good = 1
		}
		truth := good
		if i%2 == 1 {
			good, trust = 1-good, 0.01
		}
		fmt.Fprintf(&b, `{"view":"driver","key":{"id":%d},"event_time":%q,"known_at":%[2]q,"values":{"rating":%g,"noise":%g}}`+"\n", i, at(2*i), rating, rng.NormFloat64())
		fmt.Fprintf(&b, `{"view":"outcome","key":{"id":%d},"event_time":%q,"known_at":%[2]q,"values":{"good":%d,"trust":%g}}`+"\n", i, at(2*i+1), good, trust)
		fmt.Fprintf(&b, `{"model":"served","version":"1","id":"p%d","event_time":%q,"key":{"id":%[1]d},"inputs":{"rating":%[3]g},"output":{"score":0.5}}`+"\n", i, at(2*i+1), rating)
		if i%3 != 0 {
			fmt.Fprintf(&b, `{"model":"served","prediction_id":"p%d","label":%d,"event_time":%q}`+"\n", i, truth, at(2*i+2))
		}
	}
	return b.String()
}

// TestTrainingSources trains on each source of rows that a job may name: a
// feature service, labels with weights, a sample, a model's labelled
// predictions. Then a search is killed, and resumed without trying a point twice.
func TestTrainingSources(t *testing.T) {
	t.Setenv("KEDGE_TRAINER_LIBRARY", needXGBoost(t))
	dir := t.TempDir()
	p := startKedge(t, dir)
	start := time.Now().UTC().Add(-48 * time.Hour).Truncate(time.Minute)
	file := filepath.Join(t.TempDir(), "job.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(sourceDefinitions)
	p.must("apply", "-f", file)
	p.send(sourceRows(start))
	p.caughtUp(600*3 + 400)
	train := func(data, more string) trainer.Run {
		t.Helper()
		write("kind: TrainingJob\nname: made\nspec:\n  data: {from: " + start.Format(time.RFC3339) + ", " + data + "}\n  gate: {allow_leaks: true}\n  register: {off: true}\n" + more)
		out, errs, status := p.kedge("train", "-f", file)
		if status != 0 && status != 3 { // 3: what learnt from lies does not pass the gate
			t.Fatalf("%s: status %d\n%s%s", data, status, out, errs)
		}
		r := p.runOf(out)
		if r.State != trainer.Succeeded {
			t.Fatalf("%s: %s %s", data, r.State, r.Error)
		}
		return r
	}
	const linear, labels = "  backend: linear\n", "labels: {view: outcome, column: good"
	rows := func(r trainer.Run) int { return r.Data.Rows["train"] + r.Data.Rows["valid"] + r.Data.Rows["test"] }
	auc := func(r trainer.Run) float64 { return r.Metrics["test"]["auc"] }

	weighed := train("service: both, "+labels+", weight: trust}", linear)
	if rows(weighed) != 600 || auc(weighed) < 0.95 || weighed.Data.Definitions["FeatureService/both"] == nil || !slices.Equal(inputsOf(t, dir, weighed), []string{"rating", "noise"}) {
		t.Errorf("a service with weights: %d rows, auc %v, %v", rows(weighed), auc(weighed), weighed.Data.Definitions)
	}
	if plain := train("features: ['driver:rating', 'driver:noise'], "+labels+"}", linear); auc(plain) > 0.7 || plain.Data.Digest == weighed.Data.Digest {
		t.Errorf("without weights half of the labels are lies, and yet: auc %v", auc(plain))
	}
	half := train("sample: 0.5, service: both, "+labels+"}", linear)
	if n := rows(half); n < 240 || n > 360 {
		t.Errorf("a half of 600 rows has %d", n)
	}
	if again := train("sample: 0.5, service: both, "+labels+"}", linear); again.Data.Digest != half.Data.Digest {
		t.Error("the same half is another one the second time")
	}
	if other := train("sample: 0.5, seed: 9, service: both, "+labels+"}", linear); other.Data.Digest == half.Data.Digest {
		t.Error("another seed has the same half")
	}
	recorded := train("predictions: served", linear)
	if rows(recorded) != 400 || auc(recorded) < 0.95 || !slices.Equal(inputsOf(t, dir, recorded), []string{"rating"}) {
		t.Errorf("from predictions: %d rows, auc %v, inputs %q", rows(recorded), auc(recorded), inputsOf(t, dir, recorded))
	}
	joined := train("predictions: served, service: both", linear)
	if rows(joined) != 400 || auc(joined) < 0.95 || !slices.Equal(inputsOf(t, dir, joined), []string{"rating", "noise"}) {
		t.Errorf("predictions with a service: %d rows, auc %v, inputs %q", rows(joined), auc(joined), inputsOf(t, dir, joined))
	}
	for _, r := range []trainer.Run{weighed, half, recorded} {
		if out := p.must("train", "verify", r.ID); !strings.Contains(out, "the same") {
			t.Errorf("verify: %s", out)
		}
	}
	searchKilled(t, p, dir, func(more string) string {
		write("kind: TrainingJob\nname: searched\nspec:\n  data: {from: " + start.Format(time.RFC3339) + ", predictions: served, service: both}\n  gate: {allow_leaks: true}\n" + more)
		return strings.TrimSpace(p.must("train", "-f", file, "--detach"))
	})
}

// inputsOf are the inputs of a run's artefact, in their order.
func inputsOf(t *testing.T, dir string, r trainer.Run) (names []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "artifacts", r.Artifact, "signature.json"))
	var s model.Signature
	if err := errors.Join(err, json.Unmarshal(b, &s)); err != nil {
		t.Fatal(err)
	}
	for _, in := range s.Inputs {
		names = append(names, in.Name)
	}
	return names
}

// searchKilled kills the server after two trials of a grid of five, and resumes
// the search: the trial that was under way is marked and its point tried again,
// no point is finished twice, and the run ends with a model.
func searchKilled(t *testing.T, p *kedgeProcess, dir string, begin func(more string) string) {
	t.Helper()
	id := begin("  backend: xgboost\n  params: {rounds: 1500, device: cpu}\n  search: {sampler: grid, trials: 5, space: {max_depth: {choices: ['1', '2', '3', '4', '5']}}}\n")
	trials := func(p *kedgeProcess) (finished, lost []string) {
		t.Helper()
		f := p.ask(query.Request{Kind: "runs", Filter: map[string]string{"parent": id}})[0]
		state, failed := wordsOf(t, f, "state"), wordsOf(t, f, "error")
		for i, trial := range wordsOf(t, f, "run") {
			switch {
			case state[i] == string(trainer.Succeeded):
				finished = append(finished, p.run(trial).Params.Extra["max_depth"])
			case strings.Contains(failed[i], "orphaned"):
				lost = append(lost, p.run(trial).Params.Extra["max_depth"])
			}
		}
		slices.Sort(finished)
		return finished, lost
	}
	testenv.Eventually(t, time.Minute, func() error {
		if done, _ := trials(p); len(done) < 2 {
			return fmt.Errorf("finished trials: %q", done)
		}
		return nil
	})
	before, _ := trials(p)
	p.kill()
	p = startKedge(t, dir)
	if r := p.endedRun(id); r.State != trainer.Failed || !strings.Contains(r.Error, "orphaned") {
		t.Fatalf("the killed search: %s %q", r.State, r.Error)
	}
	p.must("train", "resume", id)
	r := p.endedRun(id)
	after, lost := trials(p)
	if r.State != trainer.Succeeded || r.Version != "1" || r.Resumed != 1 || !slices.Equal(slices.Compact(slices.Clone(after)), []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("the resumed search: %s %q, version %q, tried %q, lost %q", r.State, r.Error, r.Version, after, lost)
	}
	// The best of before is fitted once more where it won: its model was not kept.
	if len(before) >= 5 || len(after) > 6 || r.Cost.Trials < 5-len(before) {
		t.Errorf("%d trials before, then %q; cost %+v", len(before), after, r.Cost)
	}
	t.Logf("before the kill %q, lost %q, afterwards %q", before, lost, after)
}
