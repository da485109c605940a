package xgb

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model/tree"
)

// library opens the fetched library once per test; dlopen counts references.
func library(t testing.TB) *Library {
	t.Helper()
	path, err := Find("", testenv.Root(t))
	if err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// randomData has two numeric columns that matter, one that does not, missing
// values and a category.
func randomData(rows int, kind string, seed uint64) Data {
	rng := rand.New(rand.NewPCG(seed, 9))
	d := Data{Rows: rows, Columns: 5, Names: []string{"a", "b", "c", "d", "e"}, Types: []string{"q", "q", "q", "q", "c"}, Threads: 1}
	d.Values = make([]float32, 5*rows)
	for r := range rows {
		z := 0.0
		for c := range 4 {
			x := rng.NormFloat64()
			z += x * []float64{1, -0.7, 0, 0.3}[c]
			if rng.IntN(20) == 0 {
				x = math.NaN()
			}
			d.Values[c*rows+r] = float32(x)
		}
		category := rng.IntN(15)
		d.Values[4*rows+r] = float32(category)
		z += float64(category%3) - 1 + 0.5*rng.NormFloat64()
		d.Label = append(d.Label, label(kind, z))
		d.Weight = append(d.Weight, 0.5+rng.Float32())
	}
	return d
}

func label(kind string, z float64) float32 {
	switch kind {
	case "binary":
		if z > 0.5 {
			return 1
		}
		return 0
	case "classes":
		return float32(min(2, max(0, int(z+1))))
	}
	return float32(z)
}

type job struct {
	Name    string            `json:"name"`
	Rows    int               `json:"rows"`
	Valid   int               `json:"valid"`
	Columns int               `json:"columns"`
	Names   []string          `json:"names"`
	Types   []string          `json:"types"`
	Params  map[string]string `json:"params"`
	Rounds  int               `json:"rounds"`
	Stop    int               `json:"stop"`
	kind    string
}

// Training here gives the very bytes that Python's xgboost gives.
func TestTrainingEqualsPython(t *testing.T) {
	l := library(t)
	python := testenv.Dep(t, "python/truth/bin/python")
	dir := t.TempDir()
	seed := uint64(1 + os.Getpid()%1000)
	t.Logf("seed %d", seed)
	jobs := []job{
		{Name: "binary", kind: "binary", Params: map[string]string{"objective": "binary:logistic", "eval_metric": "logloss"}},
		{Name: "sampled", kind: "binary", Params: map[string]string{"objective": "binary:logistic", "subsample": "0.6", "colsample_bytree": "0.7", "seed": "11"}},
		{Name: "monotone", kind: "real", Params: map[string]string{"objective": "reg:squarederror", "monotone_constraints": "(1,-1,0,0,0)"}},
		{Name: "classes", kind: "classes", Params: map[string]string{"objective": "multi:softprob", "num_class": "3"}},
		{Name: "stopped", kind: "real", Params: map[string]string{"objective": "reg:squarederror", "eta": "0.5"}, Stop: 3, Rounds: 200},
	}
	for i := range jobs {
		j := &jobs[i]
		if j.Rounds == 0 {
			j.Rounds = 15
		}
		j.Params["nthread"], j.Params["max_depth"] = "1", "5"
		train, valid := randomData(3000, j.kind, seed), randomData(1000, j.kind, seed+1)
		j.Rows, j.Valid, j.Columns, j.Names, j.Types = 3000, 1000, 5, train.Names, train.Types
		writeData(t, filepath.Join(dir, j.Name), train)
		writeData(t, filepath.Join(dir, j.Name+".valid"), valid)
	}
	text, _ := json.Marshal(jobs)
	os.WriteFile(filepath.Join(dir, "jobs.json"), text, 0o644)
	if out, err := exec.Command(python, "testdata/train.py", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, j := range jobs {
		t.Run(j.Name, func(t *testing.T) { compareJob(t, l, dir, j, seed) })
	}
}

func compareJob(t *testing.T, l *Library, dir string, j job, seed uint64) {
	train, valid := newMatrix(t, l, randomData(3000, j.kind, seed)), newMatrix(t, l, randomData(1000, j.kind, seed+1))
	params := []Param{{"validate_parameters", "1"}}
	for k, v := range j.Params {
		params = append(params, Param{k, v})
	}
	b, err := l.NewBooster(params, train, valid)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	best, bestRound := math.Inf(1), 0
	for i := range j.Rounds {
		if err := b.Update(i, train); err != nil {
			t.Fatal(err)
		}
		e, err := b.Eval(i, []*Matrix{train, valid}, []string{"train", "valid"})
		if err != nil {
			t.Fatal(err)
		}
		if j.Stop == 0 {
			continue
		}
		if v := e["valid"]["rmse"]; v < best {
			best, bestRound = v, i
		} else if i-bestRound >= j.Stop {
			break
		}
	}
	if j.Stop > 0 {
		b, err = b.Slice(0, bestRound+1)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Free()
		t.Logf("stopped: best round %d", bestRound)
	}
	got, _, err := b.Predict(valid, Value)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "predictions", got, filepath.Join(dir, j.Name+".predict"))
	contribs, width, err := b.Predict(valid, Contributions)
	if err != nil {
		t.Fatal(err)
	}
	if j.kind != "classes" && width != 6 {
		t.Errorf("contributions of width %d", width)
	}
	same(t, "contributions", contribs, filepath.Join(dir, j.Name+".contribs"))
	if err := b.Describe(j.Names, j.Types); err != nil {
		t.Fatal(err)
	}
	sameModel(t, b, filepath.Join(dir, j.Name+".model"), j.Stop > 0)
}

func sameModel(t *testing.T, b *Booster, path string, stopped bool) {
	t.Helper()
	model, err := b.Save("json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if stopped { // Python notes the best round in the attributes
		return
	}
	if string(model) != string(want) {
		t.Errorf("the saved model differs: %d and %d bytes\n%.200s\n%.200s", len(model), len(want), model, want)
	}
}

func same(t *testing.T, what string, got []float32, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 4*len(got) {
		t.Fatalf("%s: %d values, Python has %d", what, len(got), len(raw)/4)
	}
	for i, v := range got {
		if math.Float32bits(v) != binary.LittleEndian.Uint32(raw[4*i:]) {
			t.Fatalf("%s: value %d is %v, Python has %v", what, i, v, math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	}
}

func writeData(t *testing.T, path string, d Data) {
	t.Helper()
	for part, v := range map[string][]float32{"values": d.Values, "label": d.Label, "weight": d.Weight} {
		var raw []byte
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		if err := os.WriteFile(path+"."+part, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func newMatrix(t testing.TB, l *Library, d Data) *Matrix {
	t.Helper()
	m, err := l.NewMatrix(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Free() })
	return m
}

func newBooster(t testing.TB, l *Library, train *Matrix, rounds int, params ...Param) *Booster {
	t.Helper()
	b, err := l.NewBooster(append([]Param{{"nthread", "1"}, {"max_depth", "6"}}, params...), train)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Free() })
	for i := range rounds {
		if err := b.Update(i, train); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// Prediction buffers belong to threads. With the lock, goroutines that share a
// booster never see each other's rows; the same calls without it do, which
// shows that this test can fail.
func TestPredictionsOfManyGoroutines(t *testing.T) {
	l := library(t)
	b := newBooster(t, l, newMatrix(t, l, randomData(2000, "real", 1)), 10)
	locked := func(rows []float32) []float32 {
		v, _, err := b.PredictRows(rows, 5)
		if err != nil {
			t.Error(err)
		}
		return v
	}
	if wrong := countWrong(t, locked, 20000); wrong != 0 {
		t.Errorf("%d of 20000 rows wrong with the thread locked", wrong)
	}
	for attempt := range 20 {
		if wrong := countWrong(t, func(rows []float32) []float32 { return b.predictUnlocked(rows, 5) }, 20000); wrong > 0 {
			t.Logf("without the lock, %d of 20000 rows are wrong (attempt %d)", wrong, attempt)
			return
		}
	}
	t.Error("without the lock nothing went wrong: this test proves nothing")
}

// countWrong predicts single rows from 8 goroutines and compares with what one
// goroutine gets.
func countWrong(t *testing.T, predict func([]float32) []float32, n int) int64 {
	const goroutines = 8
	rng := rand.New(rand.NewPCG(2, 3))
	rows := make([][]float32, 64)
	want := make([]float32, len(rows))
	for i := range rows {
		rows[i] = []float32{rng.Float32()*4 - 2, rng.Float32()*4 - 2, rng.Float32(), rng.Float32(), float32(i % 15)}
		want[i] = predict(rows[i])[0]
	}
	var wrong atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for k := range n / goroutines {
				i := (g + k*7) % len(rows)
				if v := predict(rows[i]); v[0] != want[i] {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return wrong.Load()
}

// predictUnlocked is PredictRows without the lock: the positive control.
func (b *Booster) predictUnlocked(rows []float32, columns int) []float32 {
	var pin runtime.Pinner
	defer pin.Unpin()
	array := arrayInterface(&pin, rows, fmt.Sprintf(`[1, %d]`, columns), "null")
	const config = `{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, "strict_shape": false, "missing": NaN, "cache_id": 0}`
	var shape *uint64
	var dim uint64
	var out *float32
	b.l.boosterPredictRow(b.h, array, config, 0, &shape, &dim, &out)
	runtime.Gosched()
	v, _ := copyResult(shape, dim, out)
	return v
}

// Stopping after any round, restoring and going on gives the very model.
func TestResumeIsBitIdentical(t *testing.T) {
	l := library(t)
	train := newMatrix(t, l, randomData(3000, "binary", 5))
	params := []Param{{"objective", "binary:logistic"}, {"subsample", "0.7"}, {"colsample_bytree", "0.6"}, {"seed_per_iteration", "1"}}
	whole := newBooster(t, l, train, 0, params...)
	for i := range 12 {
		whole = roundAndReload(t, l, whole, train, i, i%4 == 3)
	}
	part := newBooster(t, l, train, 0, params...)
	for i := range 8 {
		part = roundAndReload(t, l, part, train, i, i%4 == 3)
	}
	state, err := part.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	resumed := newBooster(t, l, train, 0)
	if err := resumed.Restore(state); err != nil {
		t.Fatal(err)
	}
	for i := 8; i < 12; i++ {
		resumed = roundAndReload(t, l, resumed, train, i, i%4 == 3)
	}
	a, err1 := whole.Save("json")
	b, err2 := resumed.Save("json")
	if err := errors.Join(err1, err2); err != nil || string(a) != string(b) {
		t.Fatalf("models of %d and %d bytes differ: %v", len(a), len(b), err)
	}
}

func roundAndReload(t *testing.T, l *Library, b *Booster, train *Matrix, round int, reload bool) *Booster {
	t.Helper()
	if err := b.Update(round, train); err != nil {
		t.Fatal(err)
	}
	if !reload {
		return b
	}
	state, err := b.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	fresh := newBooster(t, l, train, 0)
	if err := fresh.Restore(state); err != nil {
		t.Fatal(err)
	}
	return fresh
}

func TestErrorsAreSentences(t *testing.T) {
	l := library(t)
	train := newMatrix(t, l, randomData(100, "binary", 1))
	b := newBooster(t, l, train, 0, Param{"objective", "no:such"})
	err := b.Update(0, train)
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Error(), "no:such") || strings.Contains(e.Error(), "Stack trace") {
		t.Fatalf("got %v", err)
	}
	if err := b.Load([]byte("{")); err == nil {
		t.Error("loaded half a model")
	}
	if _, err := l.NewMatrix(Data{Rows: 2, Columns: 2, Values: make([]float32, 3)}); err == nil {
		t.Error("accepted a matrix of 3 values for 2×2")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.so")); !errors.Is(err, ErrNoLibrary) {
		t.Errorf("got %v, want ErrNoLibrary", err)
	}
}

func TestLibraryTellsItsBuildAndDevice(t *testing.T) {
	l := library(t)
	info, err := l.BuildInfo()
	if err != nil || !info.OpenMP {
		t.Fatalf("%+v, %v", info, err)
	}
	major, _, _ := l.Version()
	if major < 3 {
		t.Errorf("version %d", major)
	}
	runtime.LockOSThread() // the library logs to the thread that asked
	defer runtime.UnlockOSThread()
	var lines atomic.Int64
	if err := l.OnLog(func(line string) { lines.Add(1); t.Log(line) }); err != nil {
		t.Fatal(err)
	}
	train := newMatrix(t, l, randomData(200, "binary", 1))
	b := newBooster(t, l, train, 1, Param{"device", "cuda"})
	device, err := b.Device()
	if err != nil {
		t.Fatal(err)
	}
	if !info.CUDA && (device != "cpu" || lines.Load() == 0) {
		t.Errorf("a CPU library trained on %q after %d log lines", device, lines.Load())
	}
	l.OnLog(func(string) {}) // t must not be used any more
}

// The same trained model, 100 trees of depth 6 over 30 features, by XGBoost's C
// library and by the Go predictor that serves.
func BenchmarkPredict(b *testing.B) {
	l := library(b)
	const columns = 30
	rng := rand.New(rand.NewPCG(1, 2))
	d := Data{Rows: 20000, Columns: columns, Values: make([]float32, 20000*columns), Label: make([]float32, 20000)}
	for i := range d.Values {
		d.Values[i] = float32(rng.NormFloat64())
	}
	for r := range d.Label {
		d.Label[r] = label("binary", float64(d.Values[r])+float64(d.Values[20000+r]*d.Values[40000+r])+0.5*rng.NormFloat64())
	}
	booster := newBooster(b, l, newMatrix(b, l, d), 100, Param{"objective", "binary:logistic"})
	text, err := booster.Save("json")
	if err != nil {
		b.Fatal(err)
	}
	trees, err := tree.Read(text, tree.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	pool := make([]float32, 4096*columns)
	for i := range pool {
		pool[i] = float32(rng.NormFloat64())
	}
	out := make([]float32, 1024)
	for _, n := range []int{1, 64, 1024} {
		measure(b, fmt.Sprintf("xgboost/rows=%d", n), n, columns, pool, func(rows []float32) {
			if _, _, err := booster.PredictRows(rows, columns); err != nil {
				b.Fatal(err)
			}
		})
		measure(b, fmt.Sprintf("go/rows=%d", n), n, columns, pool, func(rows []float32) { trees.Predict(out[:n], rows) })
	}
}

// measure walks through a pool of rows, so that no branch is learnt by heart.
func measure(b *testing.B, name string, n, columns int, pool []float32, predict func([]float32)) {
	b.Run(name, func(b *testing.B) {
		at, began := 0, processorTime(b)
		for b.Loop() {
			if at+n*columns > len(pool) {
				at = 0
			}
			predict(pool[at : at+n*columns])
			at += n * columns
		}
		b.ReportMetric(float64((processorTime(b)-began).Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/row")
	})
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
