package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// servingSays is what the commands of docs/serving.md answer, by a part of the
// block that they stand in.
var servingSays = map[string][]string{
	"LINEAR=":                  nil,
	"bin/kedge status":         {"Deployment elec: version 1", "serving   ready"},
	"elec/stats":               {`"prediction_id":"p1"`, `"shape":[-1,6]`, `"success":{"count":1,`},
	"bin/kedge replay":         {"2000 events sent", "0 rejected"},
	"train -f market.yaml":     {"registered as version 1 of market"},
	`"key":{"market":"NSW"}`:   {`"from":"elec:nswprice"`, `"age":`, `"contributions":[{"input":"nsw`, `"model":"elec"`},
	"elec:predict":             {`{"predictions":[0.`},
	"trees on trial":           {"Deployment elec: version 2"},
	"Kedge-Variant: canary":    {`"model_version":"2","parameters":{`, `"model_version":"1","parameters":{`, `"variant":"pinned"`},
	"trees against linear":     {"Deployment elec: version 3"},
	"rollout status elec --lo": {"experiment trees", "a        1        50%", "b        2        50%", "too few labels"},
	"trees, guarded":           {"Deployment elec: version 4"},
	"rollout history elec": {"guard-rails: hold", "0 labels of the canary", "elec: champion 2", "elec: champion 1", "canary began      champion 1, canary 2 at 10%, shadows 2",
		"experiment began", "promoted          champion 2", "rolled back       champion 1  (local) complaints from Bern", "trees, guarded"},
	"query rows --model elec": {`{"accepted":1}`, "user12-1", "shadow"},
	"conformance oip":         {"ok    statistics count an inference"},
	"elec/unload":             {`{"name":"elec","version":"2","state":"READY"}`, "200\n200"},
	"grep kedge_serving":      {`kedge_serving_requests_total{`, `ml_model_name="market"`},
}

// TestServingDocument runs the commands of docs/serving.md as they are written,
// one after the other, in a fresh folder beside one kedge. What a block says is
// asked for until it comes where it can be asked again: rows land and deployments
// are read behind their answers.
func TestServingDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "serving.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := documentFolder(t)
	library, err := filepath.Glob(filepath.Join(testenv.Dep(t, "python/xgboost"), "lib/python3*/site-packages/xgboost/lib/libxgboost.so"))
	if err != nil || len(library) != 1 {
		t.Fatalf("XGBoost's library: %v %v", library, err)
	}
	t.Setenv("KEDGE_LIBXGBOOST", library[0]) // the folder has no .deps
	p := startKedge(t, filepath.Join(dir, "kedge-data"))
	seen := map[string]bool{}
	for _, f := range fences(string(text)) {
		if f[0] != "" {
			continue
		}
		wants := wantsOf(t, f[1], seen)
		if first, _, _ := strings.Cut(f[1], "\n"); strings.Contains(f[1], "rollout promote") { // which ends what the first line tells of
			testenv.Eventually(t, time.Minute, func() error {
				out, err := inDocument(t, p, dir, first)
				return errors.Join(err, missing(out, []string{"guard-rails: "}))
			})
		}
		if strings.Contains(f[1], "<<") && !strings.Contains(f[1], "train -f") || strings.Contains(f[1], "rollout promote") {
			if out, err := inDocument(t, p, dir, f[1]); err != nil || missing(out, wants) != nil {
				t.Fatalf("%s\n%v %v", f[1], err, missing(out, wants))
			}
			continue
		}
		testenv.Eventually(t, time.Minute, func() error {
			out, err := inDocument(t, p, dir, f[1])
			return errors.Join(err, missing(out, wants))
		})
	}
	for part := range servingSays {
		if !seen[part] {
			t.Errorf("the document has no block with %q", part)
		}
	}
	p.mustBalance("duplicates") // a block that is run again, since its answer was not there yet, sends its events again
}

func wantsOf(t *testing.T, block string, seen map[string]bool) (wants []string) {
	t.Helper()
	found := false
	for part, says := range servingSays {
		if strings.Contains(block, part) {
			found, seen[part] = true, true
			wants = append(wants, says...)
		}
	}
	if !found {
		t.Fatalf("what should this say?\n%s", block)
	}
	return wants
}

func missing(out string, wants []string) error {
	for _, w := range wants {
		if !strings.Contains(out, w) {
			return fmt.Errorf("no %q in\n%s", w, out)
		}
	}
	return nil
}

// inDocument runs a block in the folder's shell, whose variables outlast it.
func inDocument(t *testing.T, p *kedgeProcess, dir, block string) (string, error) {
	t.Helper()
	script := "set -ae\n[ ! -e .variables ] || . ./.variables\n" + strings.ReplaceAll(block, "http://127.0.0.1:7070", p.http) + "\nexport -p > .variables\n"
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KEDGE_SERVER="+p.http)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s\n%w\n%s\n%s", block, err, out, p.log.String())
	}
	return string(out), nil
}
