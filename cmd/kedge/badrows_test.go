package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/trainer"
)

// oddRows are rows of a view each of whose columns spoils a training: a label of
// one class, labels that are not numbers, a copy of the label, texts.
func oddRows(n int) string {
	var b strings.Builder
	for i := range n {
		label, nan := i%2, fmt.Sprint(i%2)
		if i%3 == 0 {
			nan = `"NaN"`
		}
		fmt.Fprintf(&b, `{"view":"odd","key":{"id":"k%d"},"event_time":"1996-06-%02dT00:%02d:00Z","known_at":"1996-06-%02dT00:%02d:00Z","values":{"x":%g,"label":%d,"copy":%d,"one":1,"nan":%s,"text":"t%d","unique":"u%d"}}`+"\n",
			i, 1+i/60, i%60, 1+i/60, i%60, float64(i*7919%1000)/1000+float64(label)/3, label, label, nan, i%2, i)
	}
	return b.String()
}

// oddJob trains on them.
func oddJob(t *testing.T, features, label, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "job.yaml")
	text := fmt.Sprintf("kind: TrainingJob\nname: odd\nspec:\n  data:\n    features: [%s]\n    labels: {view: odd, column: %s}\n    from: 1996-06-01T00:00:00Z\n    to: 1996-07-01T00:00:00Z\n%s", features, label, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestBadRows asks for trainings that cannot be: each names what is wrong and
// what to do, and leaves registry and artefacts as they were. The last one is
// good, so that the table can fail.
func TestBadRows(t *testing.T) {
	data := t.TempDir()
	t.Setenv("KEDGE_TRAINER_LIBRARY", "/nonexistent/libxgboost.so")
	p := startKedge(t, data)
	p.send(oddRows(600))
	p.caughtUp(600)
	before := p.kept(data)
	linear := "  backend: linear\n"
	for name, c := range map[string]struct{ features, label, more, says string }{
		"one class":          {"odd:x", "one", linear + "  params: {task: binary}\n", "only one class in the label"},
		"NaN labels":         {"odd:x", "nan", linear + "  params: {task: binary}\n", "leave rows without a label out"},
		"a text to regress":  {"odd:x", "text", linear + "  params: {task: regression}\n", "train a classifier, or label with numbers"},
		"too many classes":   {"odd:x", "unique", linear + "  params: {task: binary}\n", "for a binary model: train a multi-class one"},
		"no GPU":             {"odd:x", "label", linear + "  params: {task: binary, device: cuda}\n", "runs on the CPU only"},
		"a missing library":  {"odd:x", "label", "  backend: xgboost\n", "/nonexistent/libxgboost.so"},
		"no rows":            {"odd:x", "label", linear + "  split: {train_to: 1996-06-01T00:00:00Z, validation_to: 1996-06-02T00:00:00Z}\n", "the train part is empty"},
		"an unknown feature": {"odd:nothing", "label", linear, "nothing"},
	} {
		out, errs, status := p.kedge("train", "-f", oddJob(t, c.features, c.label, c.more))
		if status == 0 || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: status %d, want …%s… in\n%s%s", name, status, c.says, out, errs)
		}
		if after := p.kept(data); after != before {
			t.Errorf("%s left something behind:\n%s\nbefore:\n%s", name, after, before)
		}
	}
	if out, errs, status := p.kedge("train", "-f", oddJob(t, "odd:x, odd:copy", "label", linear+"  params: {task: binary}\n")); status != 3 || !strings.Contains(out+errs, "equals the label") || p.runOf(out).Version != "" {
		t.Errorf("a feature that is the label: status %d\n%s%s", status, out, errs)
	}
	if r := p.runOf(p.must("train", "-f", oddJob(t, "odd:x", "label", linear+"  params: {task: binary}\n"))); r.State != trainer.Succeeded || r.Version != "1" { // the control
		t.Errorf("%+v", r)
	}
}

// TestFullDisk trains where there is no room for the artefact: the run says so,
// nothing is registered, and no half of an artefact stays.
func TestFullDisk(t *testing.T) {
	data := t.TempDir()
	fullDisk(t, filepath.Join(data, "artifacts"))
	p := startKedge(t, data)
	p.send(oddRows(600))
	p.caughtUp(600)
	before := p.kept(data)
	out, errs, status := p.kedge("train", "-f", oddJob(t, "odd:x", "label", "  backend: linear\n  params: {task: binary}\n"))
	if status == 0 || !strings.Contains(errs, "no space left on device") || !strings.Contains(errs, "keep the artefact") || p.runOf(out).Version != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if after := p.kept(data); after != before {
		t.Errorf("something stays behind:\n%s\nbefore:\n%s", after, before)
	}
	p.kill() // the disk is in use until then
}

// fullDisk mounts a disk of two pages over a folder.
func fullDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
		testenv.Skip(t, testenv.NoRight, "no disk can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}
