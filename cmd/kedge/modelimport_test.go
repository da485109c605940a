package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// makeForeign trains with scikit-learn and XGBoost's own Python package, and
// writes what each of them answers beside a sample of rows.
const makeForeign = `
import sys, numpy as np, xgboost as xgb
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder = sys.argv[1]
rng = np.random.default_rng(3)
x = rng.normal(size=(600, 3)).astype(np.float32)
y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
p = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
open(folder + "/churn.onnx", "wb").write(to_onnx(p, x[:1], options={"zipmap": False}, target_opset=17).SerializeToString())
b = xgb.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, xgb.DMatrix(x, y, feature_names=["age", "spend", "visits"]), 20)
b.save_model(folder + "/churn.json")
for name, answer in ("onnx", p.predict_proba(x)[:, 1]), ("json", b.inplace_predict(x)):
    with open(f"{folder}/{name}.csv", "w") as f:
        f.write("age,spend,visits,answer\n")
        for r, a in zip(x, answer):
            f.write(",".join(repr(float(v)) for v in [*r, a]) + "\n")
`

func csvRows(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// answered reports whether a prediction's score is the number that a text says.
func answered(body, want string) bool {
	var a struct {
		Predictions []struct{ Outputs map[string]float64 }
	}
	w, err := strconv.ParseFloat(want, 64)
	return err == nil && json.Unmarshal([]byte(body), &a) == nil && len(a.Predictions) == 1 && math.Abs(a.Predictions[0].Outputs["score"]-w) < 1e-5
}

// TestModelImport serves two models that Kedge did not train, from their bare
// files: they answer what their makers' runtimes answered, and what does not is
// refused.
func TestModelImport(t *testing.T) {
	libraries, err := filepath.Glob(filepath.Join(testenv.Dep(t, "python/onnx"), "lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so*"))
	if err != nil || len(libraries) == 0 {
		testenv.Skip(t, testenv.NoLibrary, "no libonnxruntime under .deps/python/onnx: run make deps (%v)", err)
	}
	t.Setenv("KEDGE_LIBONNXRUNTIME", libraries[0])
	made, dir := t.TempDir(), t.TempDir()
	if out, err := exec.Command(testenv.Dep(t, "python/truth/bin/python"), "-c", makeForeign, made).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := startKedge(t, dir)
	artifacts := filepath.Join(dir, "artifacts")
	for kind, flags := range map[string][]string{
		"onnx": {"--task", "binary", "--output", "probabilities", "--column", "1"},
		"json": nil,
	} {
		args := append([]string{"model", "import", filepath.Join(made, "churn."+kind), "--name", kind, "--rows", filepath.Join(made, kind+".csv"), "--answers", "answer", "--artifacts", artifacts}, flags...)
		out := p.must(args...)
		digest := regexp.MustCompile(`artefact ([0-9a-f]{64})`).FindStringSubmatch(out)
		if digest == nil || !strings.Contains(out, "binary, 3 inputs, 256 golden rows") || strings.Contains(out, "warning") {
			t.Fatalf("%s:\n%s", kind, out)
		}
		file := filepath.Join(made, kind+".yaml")
		spec := fmt.Sprintf("kind: Deployment\nname: %s\nspec:\n  versions: [{version: '1', artifact: %s}]\n  champion: '1'\n", kind, digest[1])
		if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		p.must("apply", "-f", file)
		rows := csvRows(t, filepath.Join(made, kind+".csv"))
		testenv.Eventually(t, time.Minute, func() error {
			for _, r := range rows[1:4] {
				status, body := post(t, p.http+"/v1/predict/"+kind, fmt.Sprintf(`{"data":{"age":%s,"spend":%s,"visits":%s}}`, r[0], r[1], r[2]))
				if status != 200 || !answered(body, r[3]) {
					return fmt.Errorf("%d %s, its maker says %s", status, body, r[3])
				}
			}
			return nil
		})
	}
	for name, c := range map[string]struct {
		file, rows string
		flags      []string
		says       string
	}{
		"another model's answers": {"churn.json", "onnx.csv", []string{"--answers", "answer"}, "as its maker did"},
		"a column too many":       {"churn.json", "json.csv", nil, "in this order"},
		"wrong tensor":            {"churn.onnx", "onnx.csv", []string{"--answers", "answer", "--output", "nothing"}, "nothing"},
		"no model":                {"json.csv", "json.csv", nil, "want .onnx"},
	} {
		args := append([]string{"model", "import", filepath.Join(made, c.file), "--name", "x", "--rows", filepath.Join(made, c.rows), "--artifacts", artifacts}, c.flags...)
		if out, errs, status := p.kedge(args...); status == 0 || !strings.Contains(errs, c.says) {
			t.Errorf("%s: status %d %s%s, want …%s…", name, status, out, errs, c.says)
		}
	}
}
