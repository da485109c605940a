package app

import (
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/kedge-ml/kedge/drift/peer"
	"github.com/kedge-ml/kedge/drift/perf"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// The test binary is its own training process, as kedge is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "train-worker" {
		os.Exit(trainer.WorkerMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// regression are rows of a model of numbers, in chunks.
type regression struct {
	in  perf.Inputs
	out perf.Regression
}

func (r regression) chunk(from, to int) regression {
	part := regression{in: perf.Inputs{Rows: to - from}}
	for _, c := range r.in.Columns {
		c.Values = c.Values[from:to]
		part.in.Columns = append(part.in.Columns, c)
	}
	part.out = perf.Regression{Truth: r.out.Truth[from:to], Predicted: r.out.Predicted[from:to]}
	return part
}

func lossLibrary(t *testing.T) perf.Learner {
	t.Helper()
	library, err := xgb.Find("", testenv.Root(t))
	if err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	return learnLosses(library)
}

// What Kedge's trees expect of a model's errors lies beside what NannyML's do,
// and beside what they turn out to be.
func TestLossesAsNannyML(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(testenv.Root(t), "drift/perf/testdata/dle.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Chunk    int
		Columns  []string
		Ref, Cur [][]any
		Chunks   []map[string]any
		Realised []map[string]float64
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	ref, cur := lossRows(g.Columns, g.Ref), lossRows(g.Columns, g.Cur)
	d, err := perf.FitDLE(t.Context(), ref.out, ref.in, lossLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range g.Chunks {
		part := cur.chunk(i*g.Chunk, (i+1)*g.Chunk)
		got, err := d.Estimate(part.in, part.out.Predicted)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []perf.Metric{perf.MAE, perf.MAPE, perf.MSE, perf.RMSE} {
			theirs, real := want[string(m)+"/value"].(float64), g.Realised[i][string(m)]
			if off(got[m].Value, theirs) > 0.05 {
				t.Errorf("chunk %d: %s expected %.4f, NannyML %.4f", i, m, got[m].Value, theirs)
			}
			if real < got[m].Lower || real > got[m].Upper {
				t.Errorf("chunk %d: %s was %.4f, expected %.4f to %.4f", i, m, real, got[m].Lower, got[m].Upper)
			}
		}
	}
}

func off(got, want float64) float64 { return math.Abs(got-want) / want }

// lossRows reads rows of f0, f1, c, h and y.
func lossRows(columns []string, rows [][]any) regression {
	var r regression
	for _, name := range []string{"f0", "f1"} {
		r.in.Columns = append(r.in.Columns, perf.InputColumn{Name: name, Values: lossColumn(columns, rows, name)})
	}
	codes := perf.InputColumn{Name: "c", Categories: 3}
	at := slices.Index(columns, "c")
	for _, row := range rows {
		code := float64(slices.Index([]string{"a", "b", "c"}, row[at].(string)))
		if code < 0 {
			code = math.NaN()
		}
		codes.Values = append(codes.Values, code)
	}
	r.in.Columns, r.in.Rows = append(r.in.Columns, codes), len(rows)
	r.out = perf.Regression{Truth: lossColumn(columns, rows, "y"), Predicted: lossColumn(columns, rows, "h")}
	return r
}

func lossColumn(columns []string, rows [][]any, name string) []float64 {
	at := slices.Index(columns, name)
	out := make([]float64, len(rows))
	for i, row := range rows {
		out[i] = math.NaN()
		if x, ok := row[at].(float64); ok {
			out[i] = x
		}
	}
	return out
}

// The reference case of the survey: the alerts are NannyML's, and what is
// expected lies within a fifth of what it was, as its convention asks.
func TestLossesOfTheReferenceCase(t *testing.T) {
	folder := testenv.Shared(t, "reference/drift/d28_dle")
	raw, err := os.ReadFile(filepath.Join(folder, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		ChunkSize int `json:"chunk_size"`
		Expect    []struct {
			Name   string
			Chunks []map[string]any
		}
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	ref, cur := lossCase(t, filepath.Join(folder, "data.csv"))
	d, err := perf.FitDLE(t.Context(), ref.out, ref.in, lossLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	realised := map[perf.Metric]func(perf.Regression) (perf.Value, error){perf.MAE: perf.Regression.MAE, perf.MAPE: perf.Regression.MAPE, perf.MSE: perf.Regression.MSE, perf.RMSE: perf.Regression.RMSE}
	seen := 0
	for _, c := range want.Expect[0].Chunks {
		if c["chunk/period"] != "analysis" {
			continue
		}
		from := int(c["chunk/start_index"].(float64))
		part := cur.chunk(from, int(c["chunk/end_index"].(float64))+1)
		got, err := d.Estimate(part.in, part.out.Predicted)
		if err != nil {
			t.Fatal(err)
		}
		for m, e := range got {
			key, v := string(m)+"/", e.Value
			was, err := realised[m](part.out)
			if err != nil {
				t.Fatal(err)
			}
			if off(v, was.Value) > 0.2 {
				t.Errorf("chunk from %d: %s expected %.4f, was %.4f", from, m, v, was.Value)
			}
			lower, upper := c[key+"lower_threshold"].(float64), c[key+"upper_threshold"].(float64)
			limits := peer.Limits{Lower: &lower, Upper: &upper}
			if limits.Crossed(v) != c[key+"alert"].(bool) {
				t.Errorf("chunk from %d: %s = %.4f alerts %v, NannyML's (%.4f) %v", from, m, v, limits.Crossed(v), c[key+"value"], c[key+"alert"])
			}
			seen++
		}
	}
	if seen < 16 {
		t.Errorf("%d estimates compared", seen)
	}
}

// lossCase reads f0, f1, y_pred, y_true and part.
func lossCase(t *testing.T, path string) (ref, cur regression) {
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
	sides := map[string]*regression{"ref": &ref, "cur": &cur}
	for _, r := range sides {
		r.in.Columns = []perf.InputColumn{{Name: "f0"}, {Name: "f1"}}
	}
	for _, row := range rows[1:] {
		r := sides[row[4]]
		var x [4]float64
		for i := range x {
			if x[i], err = strconv.ParseFloat(row[i], 64); err != nil {
				t.Fatal(err)
			}
		}
		for i := range r.in.Columns {
			r.in.Columns[i].Values = append(r.in.Columns[i].Values, x[i])
		}
		r.out.Predicted, r.out.Truth = append(r.out.Predicted, x[2]), append(r.out.Truth, x[3])
		r.in.Rows++
	}
	return ref, cur
}
