package trainer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
)

// numbers is a training set of independent normal columns, some of which decide
// a binary label.
func numbers(rows, columns int) *Matrix {
	rng := rand.New(rand.NewPCG(4, 4))
	m := &Matrix{Label: make([]float32, rows), Classes: []string{"0", "1"}}
	for j := range columns {
		c := Column{Field: Field{Name: fmt.Sprint("x", j), Type: "Float64"}, Values: make([]float32, rows)}
		for r := range c.Values {
			c.Values[r] = float32(rng.NormFloat64())
		}
		m.Columns = append(m.Columns, c)
	}
	x := func(j, r int) float64 { return float64(m.Columns[j].Values[r]) }
	for r := range rows {
		if x(0, r)+x(1, r)*x(2, r)+math.Sin(3*x(3, r))+rng.NormFloat64()/2 > 0 {
			m.Label[r] = 1
		}
	}
	return m
}

func writeFloats32(b *testing.B, path string, parts ...[]float32) {
	b.Helper()
	var out bytes.Buffer
	for _, v := range parts {
		if err := binary.Write(&out, binary.LittleEndian, v); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkXGBoostBesidePython trains 200,000 × 30, 100 rounds of depth 6, in
// Kedge's training process and in Python's xgboost in turn, with the same
// threads. It reports the medians of six runs' CPU seconds and their ratio;
// Kedge's count its whole process, with what comes through the pipe. The golden
// answers have to be Python's, bit by bit.
func BenchmarkXGBoostBesidePython(b *testing.B) {
	x, python, dir := xgboost(b), testenv.Dep(b, "python/truth/bin/python"), b.TempDir()
	m := numbers(200_000, 30)
	data := Data{Train: m, Golden: goldenRows(m)}
	p := Params{Task: model.Binary, Rounds: 100, Device: CPU, Threads: 2, Extra: map[string]string{"max_depth": "6"}}
	params, err := xgboostParams(m, p)
	if err != nil {
		b.Fatal(err)
	}
	params["nthread"], params["device"] = "2", "cpu"
	job, err := json.Marshal(map[string]any{"columns": 30, "threads": 2, "rounds": 100, "params": params})
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "job.json"), job, 0o600); err != nil {
		b.Fatal(err)
	}
	var values [][]float32
	for i := range m.Columns {
		values = append(values, m.Columns[i].Values)
	}
	writeFloats32(b, filepath.Join(dir, "values.bin"), values...)
	writeFloats32(b, filepath.Join(dir, "label.bin"), m.Label)
	writeFloats32(b, filepath.Join(dir, "golden.bin"), data.Golden)
	var ours, theirs []float64
	for b.Loop() {
		for range 6 {
			f, err := x.Fit(b.Context(), data, p, Watch{})
			if err != nil {
				b.Fatal(err)
			}
			ours = append(ours, f.Cost.CPU)
			cmd := exec.Command(python, "testdata/xgboost_bench.py", dir)
			cmd.Env = append(os.Environ(), "OMP_WAIT_POLICY=passive", "OMP_NUM_THREADS=2")
			text, err := cmd.Output()
			if err != nil {
				b.Fatal(err)
			}
			spent, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
			if err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, spent)
			raw, err := os.ReadFile(filepath.Join(dir, "predict.bin"))
			if err != nil {
				b.Fatal(err)
			}
			for i, v := range f.Golden {
				if bits := binary.LittleEndian.Uint32(raw[4*i:]); bits != math.Float32bits(v) {
					b.Fatalf("answer %d is %v, Python's is %v", i, v, math.Float32frombits(bits))
				}
			}
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	mid := func(v []float64) float64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }
	b.ReportMetric(mid(ours), "kedge-cpu-s")
	b.ReportMetric(mid(theirs), "python-cpu-s")
	b.ReportMetric(mid(ours)/mid(theirs), "ratio")
}
