package main

import (
	"encoding/json"

	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/trainer"
)

// elecHead writes the first rows of the electricity file and replays them.
func elecHead(t *testing.T, p *kedgeProcess, rows int) {
	t.Helper()
	b, err := os.ReadFile(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfterN(string(b), "\n", rows+2)
	file := filepath.Join(t.TempDir(), "elec.csv")
	if err := os.WriteFile(file, []byte(strings.Join(lines[:rows+1], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("replay", file, "--map", filepath.Join(testenv.Root(t), "examples", "elec.yaml"), "--speed", "max", "--known-at", "event_time", "--quiet")
	p.caughtUp(int64(rows))
}

// elecJob is a TrainingJob over the view elec; more is appended to its spec.
func elecJob(t *testing.T, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "job.yaml")
	text := "kind: TrainingJob\nname: elec\nspec:\n  data:\n    features: [elec:nswprice, elec:nswdemand, elec:vicprice, elec:vicdemand, elec:transfer]\n" +
		"    labels: {view: elec, column: class}\n    from: 1996-05-07T00:00:00Z\n    to: 1997-05-07T00:00:00Z\n" + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var runLine = regexp.MustCompile(`run ([0-9a-f]{32})`)

func (p *kedgeProcess) runOf(out string) trainer.Run {
	p.t.Helper()
	id := runLine.FindStringSubmatch(out)
	if id == nil {
		p.t.Fatalf("no run is named in:\n%s", out)
	}
	return p.run(id[1])
}

func (p *kedgeProcess) run(id string) (r trainer.Run) {
	p.t.Helper()
	status, body := get(p.t, p.http+"/v1/runs/"+id)
	var answer struct{ Run json.RawMessage }
	if status != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil || json.Unmarshal(answer.Run, &r) != nil {
		p.t.Fatalf("run %s: %d %s", id, status, body)
	}
	return r
}

func wordsOf(t *testing.T, f query.Frame, name string) []string {
	t.Helper()
	i := slices.IndexFunc(f.Columns, func(c query.Column) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("frame %s has no column %s", f.Name, name)
	}
	return f.Columns[i].Values.([]string)
}

// TestTrainingJob goes from stored rows to a registered model: the run says
// what it read, the rows can be verified after more have landed, the version
// has a history, its lineage reaches the offsets, and what the gate refuses is
// not registered.
func TestTrainingJob(t *testing.T) {
	p := startKedge(t, t.TempDir())
	elecHead(t, p, 4000)
	job := elecJob(t, "  backend: linear\n  gate: {metric: auc, min: 0.6}\n  register: {alias: champion, deploy: shadow}\n")
	r := p.runOf(p.must("train", "-f", job, "--why", "first"))
	if r.State != trainer.Succeeded || r.Version != "1" || r.Data.Rows["train"] != 2800 || len(r.Data.Offsets) == 0 || r.Data.Definitions["FeatureView/elec"] == nil || r.Who != "local" {
		t.Fatalf("%+v", r)
	}
	if out := p.must("train", "verify", r.ID); !strings.Contains(out, "4000 rows") {
		t.Errorf("verify: %s", out)
	}
	// A late correction of a label: a newer row of a time that the run read.
	p.send(`{"view":"elec","key":{"market":"NSW"},"event_time":"1996-05-07T00:00:00Z","known_at":"1996-05-07T00:00:00Z","created":"2026-01-01T00:00:00Z","values":{"nswprice":9,"nswdemand":0.1,"vicprice":0.1,"vicdemand":0.1,"transfer":0.1,"class":0}}`)
	p.caughtUp(4001)
	if out := p.must("train", "verify", r.ID); !strings.Contains(out, "the same") {
		t.Errorf("verify after more rows landed: %s", out)
	}
	again := p.runOf(p.must("train", "-f", job))
	if again.Data.Digest == r.Data.Digest || again.Version != "2" || again.Metrics["live"] == nil {
		t.Errorf("the second run read the same rows, or was not held against the live model: %+v", again)
	}
	checkModels(t, p, r)
	checkLineage(t, p, r)
	if status, body := get(t, p.http+"/api/2.0/mlflow/registered-models/alias?name=elec&alias=champion"); status != http.StatusOK || !strings.Contains(body, `"source":"mlflow-artifacts:/kedge/`+again.Artifact) {
		t.Errorf("the champion as MLflow's clients see it: %d %s", status, body)
	}
	refused := elecJob(t, "  backend: linear\n  gate: {metric: auc, min: 0.999}\n")
	if out, _, status := p.kedge("train", "-f", refused); status != 3 || !strings.Contains(out, "refused by the gate") || p.runOf(out).Version != "" {
		t.Errorf("the gate: status %d\n%s", status, out)
	}
	if n := len(wordsOf(t, p.ask(query.Request{Kind: "models"})[0], "version")); n != 2 {
		t.Errorf("%d versions after a refused run", n)
	}
}

// checkModels asks what was registered, and what it was before.
func checkModels(t *testing.T, p *kedgeProcess, first trainer.Run) {
	t.Helper()
	p.must("model", "stage", "elec", "1", "production", "--why", "approved by a test")
	f := p.ask(query.Request{Kind: "models", Model: "elec"})[0]
	if v := wordsOf(t, f, "version"); !slices.Equal(v, []string{"2", "1"}) {
		t.Fatalf("versions %v", v)
	}
	if a, s, why := wordsOf(t, f, "aliases"), wordsOf(t, f, "stage"), wordsOf(t, f, "why"); a[0] != "champion" || s[1] != "production" || why[1] != "approved by a test" {
		t.Errorf("aliases %v, stages %v, why %v", a, s, why)
	}
	if live := wordsOf(t, f, "live"); live[1] != "champion" || live[0] != "shadow" {
		t.Errorf("deployed as %v", live)
	}
	then := p.ask(query.Request{Kind: "models", Model: "elec", From: first.Created.Add(-time.Hour), To: first.Finished.Add(100 * time.Millisecond)})[0]
	if v := wordsOf(t, then, "version"); !slices.Equal(v, []string{"1"}) || wordsOf(t, then, "aliases")[0] != "champion" || wordsOf(t, then, "stage")[0] != "candidate" {
		t.Errorf("what was there then: %+v", then)
	}
}

// checkLineage walks back from the deployed version to offsets.
func checkLineage(t *testing.T, p *kedgeProcess, r trainer.Run) {
	t.Helper()
	edges := p.ask(query.Request{Kind: "lineage", Model: "elec"})[1]
	source, target := wordsOf(t, edges, "source"), wordsOf(t, edges, "target")
	at := []string{"version/elec/1"}
	for _, prefix := range []string{"registered/elec/1", "run/" + r.ID, "set/" + r.Data.Digest, "FeatureView/elec@", "offset/kedge.default.features/"} {
		var next []string
		for i := range target {
			if slices.Contains(at, target[i]) && strings.HasPrefix(source[i], prefix) {
				next = append(next, source[i])
			}
		}
		if len(next) == 0 {
			t.Fatalf("no edge from %s… to %v among\n%v\n%v", prefix, at, source, target)
		}
		at = next
	}
}

// TestBadJobs are refused before they wait, or fail with a sentence, on a machine
// without XGBoost's library and with room for 500 rows of five inputs.
func TestBadJobs(t *testing.T) {
	t.Setenv("KEDGE_LIBXGBOOST", "")
	t.Setenv("KEDGE_TRAINER_MEMORY", "80KB")
	p := startKedge(t, t.TempDir())
	elecHead(t, p, 500)
	for more, want := range map[string]string{
		"  backend: magic\n":                           "want auto, xgboost, linear or command",
		"  backend: command\n  command: x\n":           "trainer.commands",
		"  backend: xgboost\n":                         "train with back-end linear",
		"  resources: {cpus: 1000}\n":                  "1000 CPUs",
		"  colour: red\n":                              "unknown field",
		"  backend: linear\n  params: {device: tpu}\n": "want auto, cpu or cuda",
		"  backend: linear\n  split: {train_to: 1990-01-01T00:00:00Z, validation_to: 1990-01-01T00:00:00Z}\n": "train part is empty",
		"  backend: linear\n  params: {extra: {magic: 1}}\n":                                                  "magic",
	} {
		if out, errs, status := p.kedge("train", "-f", elecJob(t, more)); status == 0 || !strings.Contains(errs+out, want) {
			t.Errorf("%q: status %d, want %q in\n%s%s", more, status, want, out, errs)
		}
	}
	file := elecJob(t, "  backend: linear\n")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for old, other := range map[string][2]string{
		"1996-05-07T00:00:00Z\n    to: 1997-05-07T00:00:00Z": {"1990-01-01T00:00:00Z\n    to: 1991-01-01T00:00:00Z", "no rows to train on"},
		"elec:nswprice, ":               {"elec:nothing, ", "nothing"},
		"[elec:nswprice, ":              {"[elec:nswprice, elec:period, ", "trainer.memory"},
		"column: class":                 {"column: nothing", "nothing"},
		"elec:nswprice, elec:nswdemand": {"elec:nswprice, elec:class", "equals the label"},
	} {
		if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, other[0], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, errs, status := p.kedge("train", "-f", file); status == 0 || !strings.Contains(errs+out, other[1]) {
			t.Errorf("%q: status %d, want %q in\n%s%s", other[0], status, other[1], out, errs)
		}
	}
	if n := p.ask(query.Request{Kind: "models"})[0].Rows(); n != 0 {
		t.Errorf("%d versions were registered", n)
	}
}
