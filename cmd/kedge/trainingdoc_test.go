package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// trainingSays is what the commands of docs/training.md answer, by a part of the
// block that they stand in, in their order.
var trainingSays = []struct {
	part string
	says []string
}{
	{"bin/kedge replay", []string{"2000 events sent", "0 rejected"}},
	{"train -f job.yaml", []string{"2000 rows (train 1400, valid 300, test 300)", "xgboost", "logloss", "registered as version 1 of elec"}},
	{"train verify", []string{"2000 rows, digest", "the same"}},
	{"model stage", []string{"seen by the desk", "challenger", "production", "FeatureView/elec@", "offset/kedge.default.features/"}},
	{"v1/predict/elec", []string{`"from":"elec:nswprice"`, `"model":"elec"`, "TrainingJob elec: version 1"}},
}

// TestTrainingDocument walks docs/training.md from features to a registered
// model, its commands as they are written, in a fresh folder beside one kedge.
// What only reads is asked until its answer is there.
func TestTrainingDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "training.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := documentFolder(t)
	t.Setenv("KEDGE_LIBXGBOOST", needXGBoost(t)) // the folder has no .deps
	p := startKedge(t, filepath.Join(dir, "kedge-data"))
	walked := 0
	for _, f := range fences(string(text)) {
		if walked == len(trainingSays) || f[0] != "" {
			continue
		}
		step := trainingSays[walked]
		if !strings.Contains(f[1], step.part) {
			t.Fatalf("want the block with %q here:\n%s", step.part, f[1])
		}
		walked++
		once := func() error {
			out, err := inDocument(t, p, dir, f[1])
			return errors.Join(err, missing(out, step.says))
		}
		if walked > 2 {
			testenv.Eventually(t, time.Minute, once)
		} else if err := once(); err != nil {
			t.Fatal(err)
		}
		if walked == 1 {
			p.caughtUp(2000)
		}
	}
	if walked < len(trainingSays) {
		t.Errorf("the document has no block with %q", trainingSays[walked].part)
	}
}
