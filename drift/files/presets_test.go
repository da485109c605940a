package files_test

import (
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kedge-ml/kedge/drift/files"
	"github.com/kedge-ml/kedge/internal/testenv"
)

func openFile(t *testing.T, path string) *files.Table {
	t.Helper()
	f, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(b)+1e-12 }

// A case of Evidently's own dataset preset, as two files: the tests that it
// chose, their scores, and half of the columns drifted.
func TestPresetDecidesAsEvidently(t *testing.T) {
	folder, dir := testenv.Shared(t, "reference/drift/d37_dataset_rule"), t.TempDir()
	in, err := os.Open(filepath.Join(folder, "data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // only read
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	part := slices.Index(rows[0], "part")
	for _, side := range []string{"ref", "cur"} {
		out, err := os.Create(filepath.Join(dir, side+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		w := csv.NewWriter(out)
		for i, r := range rows {
			if i == 0 || r[part] == side {
				_ = w.Write(slices.Delete(slices.Clone(r), part, part+1))
			}
		}
		w.Flush()
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var want struct {
		Expect []struct {
			Columns map[string]struct {
				Method           string
				Score, Threshold float64
			}
			Drifted struct{ Count float64 }
		}
	}
	readJSON(t, filepath.Join(folder, "expected.json"), &want)
	r, err := files.Compare(openFile(t, filepath.Join(dir, "ref.csv")), openFile(t, filepath.Join(dir, "cur.csv")), files.Options{Preset: files.Evidently})
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]string{"chi-square p_value": "chisquare", "Z-test p_value": "z", "K-S p_value": "ks"}
	if len(r.Columns) != len(want.Expect[0].Columns) || float64(r.Drifted) != want.Expect[0].Drifted.Count {
		t.Fatalf("%d of %d columns drifted, want %v of %d", r.Drifted, len(r.Columns), want.Expect[0].Drifted.Count, len(want.Expect[0].Columns))
	}
	for _, c := range r.Columns {
		e := want.Expect[0].Columns[c.Column]
		if c.Detector != methods[e.Method] || !near(c.Effect, e.Score) || !near(c.Floor, e.Threshold) || c.Drifted != (e.Score < e.Threshold) || c.P != c.Effect {
			t.Errorf("%+v, Evidently has %+v", c, e)
		}
	}
}

// The census files in chunks of 5,000 rows: the worst chunk, the limit and the
// verdict are those of NannyML's own run.
func TestPresetDecidesAsNannyML(t *testing.T) {
	var want struct {
		Drift map[string][]json.RawMessage
	}
	readJSON(t, filepath.Join(testenv.Root(t), "clients/nannyml/employment.json"), &want)
	a, b := openFile(t, testenv.Shared(t, "data/employment_MA_reference.pq")), openFile(t, testenv.Shared(t, "data/employment_MA_analysis.pq"))
	columns := []string{"AGEP", "predicted_probability", "SCHL", "SEX"}
	r, err := files.Compare(a, b, files.Options{Preset: files.NannyML, Chunk: 5000, Columns: columns})
	if err != nil || len(r.Columns) != len(columns) {
		t.Fatal(r, err)
	}
	number := func(raw json.RawMessage) (v float64) {
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range r.Columns {
		key, first := c.Column+"/jensen_shannon/", int(a.Rows()+4999)/5000
		worst, told := 0.0, false
		for i, raw := range want.Drift[key+"value"][first:] {
			worst = max(worst, number(raw))
			told = told || string(want.Drift[key+"alert"][first+i]) == "true"
		}
		if limit := number(want.Drift[key+"upper_threshold"][0]); !near(c.Effect, worst) || !near(c.Floor, limit) || c.Drifted != told {
			t.Errorf("%+v, NannyML has %v, limit %v, alert %v", c, worst, limit, told)
		}
	}
}

// Every detector speaks of rows as SciPy does, or says why not.
func TestEveryDetectorOfTwoFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) *files.Table {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return openFile(t, path)
	}
	a := write("a.csv", "x,c\n1,a\n2,a\n3,b\n4,b\n5,a\n6,a\n7,b\n8,a\n")
	b := write("b.csv", "x,c\n3,a\n4,b\n5,b\n6,b\n7,z\n8,b\n9,b\n10,z\n")
	o := files.DefaultOptions()
	o.Detectors = true
	r, err := files.Compare(a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]files.Detected{}
	for _, c := range r.Columns {
		for _, d := range c.Detectors {
			found[c.Column+" "+d.Detector] = d
		}
	}
	// scipy 1.17.1: ks_2samp, mannwhitneyu(method="asymptotic"), wasserstein_distance, chi2_contingency
	for name, want := range map[string]float64{"x ks": 0.25, "x mann_whitney": 18, "x wasserstein": 2, "c chi2": 5.166666666666667, "c tvd": 0.5} {
		if d := found[name]; d.Reason != "" || !near(d.Statistic, want) {
			t.Errorf("%s: %+v, want %v", name, d, want)
		}
	}
	if d := found["c fisher"]; d.Reason == "" {
		t.Errorf("Fisher's test of three categories: %+v", d)
	}
	if len(found) < 20 {
		t.Errorf("%d answers: %v", len(found), found)
	}
}
