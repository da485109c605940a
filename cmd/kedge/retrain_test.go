package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/kafkatest"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// torture skips what takes a minute of whole processes: make torture runs it.
func torture(t *testing.T) {
	t.Helper()
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "make torture runs it")
	}
}

// needXGBoost skips where the library was not fetched.
func needXGBoost(t *testing.T) string {
	t.Helper()
	path, err := xgb.Find("", testenv.Root(t))
	if err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	return path
}

// endedRun waits until a run is final.
func (p *kedgeProcess) endedRun(id string) (r trainer.Run) {
	p.t.Helper()
	testenv.Eventually(p.t, 3*time.Minute, func() error {
		if r = p.run(id); !r.State.Final() {
			return fmt.Errorf("run %s is %s, round %d", id, r.State, r.Round)
		}
		return nil
	})
	return r
}

// modelBytes is the model file of a run's artefact.
func modelBytes(t *testing.T, dir string, r trainer.Run) []byte {
	t.Helper()
	if r.State != trainer.Succeeded {
		t.Fatalf("run %s: %s %s", r.ID, r.State, r.Error)
	}
	b, err := os.ReadFile(filepath.Join(dir, "artifacts", r.Artifact, "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTortureKilledRunResumes kills the server in the middle of a fit. The next start
// goes on from the checkpoint and ends in the very bytes of a run that nobody
// killed; a run without checkpoints is marked, and its checkpoint is gone.
func TestTortureKilledRunResumes(t *testing.T) {
	torture(t)
	t.Setenv("KEDGE_TRAINER_LIBRARY", needXGBoost(t))
	t.Setenv("KEDGE_TRAINER_CPUS", "2")
	dir := t.TempDir()
	p := startKedge(t, dir)
	elecHead(t, p, 3000)
	spec := func(name, checkpoint string) string {
		file := elecJob(t, "  backend: xgboost\n  gate: {allow_leaks: true}\n  params: {rounds: 3000, seed: 7, "+checkpoint+"extra: {max_depth: 3, eta: 0.02, subsample: 0.7}}\n")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(b), "name: elec", "name: "+name, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	kept := strings.TrimSpace(p.must("train", "-f", spec("kept", "checkpoint: 100, "), "--detach"))
	lost := strings.TrimSpace(p.must("train", "-f", spec("lost", ""), "--detach"))
	testenv.Eventually(t, time.Minute, func() error {
		_, err := os.Stat(filepath.Join(dir, "checkpoints", kept+".checkpoint"))
		if err == nil && p.run(lost).State == trainer.Queued {
			err = errors.New("the run without checkpoints has not begun")
		}
		return err
	})
	p.kill()
	again := startKedge(t, dir)
	resumed := again.endedRun(kept)
	if resumed.Resumed != 1 {
		t.Fatalf("the run was not resumed: %+v", resumed)
	}
	whole := again.runOf(again.must("train", "-f", spec("whole", "checkpoint: 100, ")))
	if whole.Data.Digest != resumed.Data.Digest {
		t.Fatal("the two runs did not read the same rows")
	}
	if !bytes.Equal(modelBytes(t, dir, resumed), modelBytes(t, dir, whole)) {
		t.Error("the resumed run's model is not that of an undisturbed run")
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoints", kept+".checkpoint")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the checkpoint of a finished run is still there: %v", err)
	}
	if r := again.endedRun(lost); r.State != trainer.Failed || !strings.Contains(r.Error, "orphaned") {
		t.Errorf("the run without checkpoints: %s %q", r.State, r.Error)
	}
}

// TestCancelBetweenRounds ends a run that is under way, and takes another out
// of the queue, both by way of a second process. The run of before that process
// came goes on, whoever runs the queue now, though it keeps no checkpoint.
func TestCancelBetweenRounds(t *testing.T) {
	t.Setenv("KEDGE_TRAINER_LIBRARY", needXGBoost(t))
	t.Setenv("KEDGE_TRAINER_CPUS", "1")
	share := testenv.Address(t)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE", share)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE_PASSWORD", "for-the-test")
	p := startKedge(t, t.TempDir())
	elecHead(t, p, 3000)
	t.Setenv("KEDGE_CLICKHOUSE_SHARE", "")
	job := elecJob(t, "  backend: xgboost\n  params: {rounds: 100000, extra: {max_depth: 3}}\n")
	begun := func() string {
		t.Helper()
		id := strings.TrimSpace(p.must("train", "-f", job, "--detach"))
		testenv.Eventually(t, time.Minute, func() error {
			if r := p.run(id); r.Round == 0 {
				return fmt.Errorf("run %s is %s: %s", r.ID, r.State, r.Error)
			}
			return nil
		})
		return id
	}
	first := begun()
	q := launchKedge(t, "run", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--brokers", p.kafka, "--clickhouse", "http://kedge:for-the-test@"+share, "--roles", "features,trainer")
	kafkatest.AwaitMembers(t, p.kafka, "kedge.leases.trainer", 2)
	at := p.run(first).Round
	testenv.Eventually(t, time.Minute, func() error {
		if r := p.run(first); r.State != trainer.Running || r.Round <= at {
			return fmt.Errorf("a run of before: %s in round %d, %d when the other process had come: %s", r.State, r.Round, at, r.Error)
		}
		return nil
	})
	second := strings.TrimSpace(q.must("train", "-f", job, "--detach")) // begins where the other process runs the queue
	third := strings.TrimSpace(q.must("train", "-f", job, "--detach"))
	if r := p.run(third); r.State != trainer.Queued {
		t.Errorf("a run began beside one that takes the only CPU: %s", r.State)
	}
	for _, id := range []string{third, second, first} {
		q.must("train", "cancel", id)
	}
	for _, id := range []string{first, second, third} {
		if r := p.endedRun(id); r.State != trainer.Cancelled || r.Version != "" || !strings.Contains(r.Error, "local") {
			t.Errorf("run %s: %s %q", id, r.State, r.Error)
		}
	}
	if _, _, status := p.kedge("train", "cancel", first); status == 0 {
		t.Error("a run that has ended was cancelled")
	}
	if n := p.ask(query.Request{Kind: "run_metrics", Filter: map[string]string{"run": first}})[0].Rows(); n == 0 {
		t.Error("no round's metrics were stored")
	}
}

// TestTortureRetrainingRecovers trains on the first third of the electricity market,
// lets the rest stream in, and waits for the view's own monitor to trigger the
// job again: on the newest rows the live model has fallen behind what it was,
// and the retrained one, which passes a gate that demands more than the live
// one, is better.
func TestTortureRetrainingRecovers(t *testing.T) {
	torture(t)
	t.Setenv("KEDGE_TRAINER_LIBRARY", needXGBoost(t))
	p := startKedge(t, t.TempDir())
	const third = 15_000
	elecHead(t, p, third)
	common := "  backend: xgboost\n  params: {rounds: 100, early_stop: 20, extra: {max_depth: 4, eta: 0.1}}\n  gate: {metric: logloss, beat_live: 0}\n  register: {alias: champion, deploy: shadow}\n"
	first := p.runOf(p.must("train", "-f", elecJob(t, common)))
	if first.Version != "1" {
		t.Fatalf("%+v", first)
	}
	// From now on the job learns from the newest four months, when drift calls for it.
	file := elecJob(t, common+"  triggers: [{alert: drift, cooldown: 1s, budget: 100}]\n")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newest := strings.NewReplacer("from: 1996-05-07", "from: 1998-08-01", "to: 1997-05-07", "to: 1998-12-31").Replace(string(b))
	if err := os.WriteFile(file, []byte(newest), 0o600); err != nil {
		t.Fatal(err)
	}
	elecTail(t, p, third)
	p.must("apply", "-f", file)
	var again trainer.Run
	testenv.Eventually(t, 4*time.Minute, func() error {
		f := p.ask(query.Request{Kind: "runs", Model: "elec", Filter: map[string]string{"trigger": "alert"}})[0]
		if f.Rows() == 0 {
			return errors.New("drift has triggered nothing yet")
		}
		ids := wordsOf(t, f, "run")
		if again = p.run(ids[len(ids)-1]); !again.State.Final() {
			return fmt.Errorf("run %s is %s", again.ID, again.State)
		}
		return nil
	})
	was, fallen, now := first.Metrics["test"]["logloss"], again.Metrics["live"]["logloss"], again.Metrics["test"]["logloss"]
	if !(fallen > 1.2*was && now < 0.9*fallen) || again.Version != "2" || !strings.Contains(again.Why, "incident") {
		t.Errorf("logloss at first %.4f, of that model on the newest rows %.4f, retrained %.4f; %+v", was, fallen, now, again)
	}
	if live := wordsOf(t, p.ask(query.Request{Kind: "models", Model: "elec"})[0], "live"); !strings.Contains(strings.Join(live, " "), "shadow") {
		t.Errorf("the retrained model is deployed as %v", live)
	}
}

// elecTail replays the rows of the electricity file behind the first ones.
func elecTail(t *testing.T, p *kedgeProcess, skip int) {
	t.Helper()
	b, err := os.ReadFile(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	mapping, err := os.ReadFile(filepath.Join(testenv.Root(t), "examples", "elec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(1996, 5, 7, 0, 0, 0, 0, time.UTC).Add(time.Duration(skip) * 30 * time.Minute)
	dir := t.TempDir()
	file, maps := filepath.Join(dir, "rest.csv"), filepath.Join(dir, "rest.yaml")
	text := strings.Replace(string(mapping), "time: {start: 1996-05-07T00:00:00Z", "time: {start: "+from.Format(time.RFC3339), 1)
	err = errors.Join(os.WriteFile(file, []byte(lines[0]+strings.Join(lines[skip+1:], "")), 0o600), os.WriteFile(maps, []byte(text), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	p.must("replay", file, "--map", maps, "--speed", "max", "--known-at", "event_time", "--quiet")
}
