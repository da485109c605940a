package tree

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// randomModel writes the JSON of full trees with random splits, so that tests
// and benchmarks need no trained model.
func randomModel(trees, depth, features int, rng *rand.Rand) []byte {
	var all []string
	for range trees {
		all = append(all, randomTree(depth, features, rng))
	}
	info := strings.Repeat("0,", trees)
	return fmt.Appendf(nil, `{"version":[3,2,0],"learner":{"gradient_booster":{"name":"gbtree","model":{
		"gbtree_model_param":{"num_trees":"%d"},"tree_info":[%s],"trees":[%s]}},
		"learner_model_param":{"base_score":"[4.3E-1]","num_class":"0","num_feature":"%d","num_target":"1"},
		"objective":{"name":"binary:logistic"}}}`, trees, info[:len(info)-1], strings.Join(all, ","), features)
}

func randomTree(depth, features int, rng *rand.Rand) string {
	inner := 1<<depth - 1
	n := 2*inner + 1
	t := map[string]any{
		"tree_param": map[string]string{"size_leaf_vector": "1"},
		"categories": []int{}, "categories_nodes": []int{}, "categories_segments": []int{}, "categories_sizes": []int{},
	}
	left, right := make([]int, n), make([]int, n)
	index, def, kind := make([]int, n), make([]int, n), make([]int, n)
	cond, hess, gain := make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range n {
		left[i], right[i] = -1, -1
		cond[i] = float32(rng.NormFloat64())
		hess[i] = float32(int(1)<<depth) / float32(i+1)
		if i < inner {
			left[i], right[i] = 2*i+1, 2*i+2
			index[i], def[i] = rng.IntN(features), rng.IntN(2)
		} else {
			cond[i] *= 0.05
		}
	}
	t["left_children"], t["right_children"], t["split_indices"], t["default_left"] = left, right, index, def
	t["split_conditions"], t["sum_hessian"], t["loss_changes"], t["split_type"] = cond, hess, gain, kind
	text, _ := json.Marshal(t)
	return string(text)
}

func randomRows(n, features int, missing float64, rng *rand.Rand) []float32 {
	rows := make([]float32, n*features)
	for i := range rows {
		rows[i] = float32(rng.NormFloat64())
		if rng.Float64() < missing {
			rows[i] = float32(math.NaN())
		}
	}
	return rows
}

func newRandom(t testing.TB, trees, depth int) *Ensemble {
	t.Helper()
	e, err := Read(randomModel(trees, depth, 30, rand.New(rand.NewPCG(1, 2))), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A batch of any size and any share of missing values gives the very bits of
// a plain walk, row by row and tree by tree.
func TestBatchesEqualPlainWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, depth := range []int{1, 3, 6, 14} {
		e := newRandom(t, 7, depth)
		for _, n := range []int{0, 1, 2, 3, 4, 5, 63, 64, 65, 200} {
			for _, missing := range []float64{0, 0.2, 1} {
				rows := randomRows(n, 30, missing, rng)
				got := make([]float32, n)
				e.Margins(got, rows)
				wide := make([]float32, 60)
				for i := range n {
					want := e.base[0]
					widen(wide, rows[i*30:(i+1)*30], 30)
					for _, r := range e.roots {
						want += e.nodes[e.leafOf(r, wide)].value
					}
					if got[i] != want {
						t.Fatalf("depth %d, %d rows, row %d: %v, want %v", depth, n, i, got[i], want)
					}
				}
			}
		}
	}
}

// prune turns some splits of every tree of a model into leaves.
func prune(t *testing.T, text []byte, share float64, rng *rand.Rand) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	booster := m["learner"].(map[string]any)["gradient_booster"].(map[string]any)["model"].(map[string]any)
	for _, one := range booster["trees"].([]any) {
		tree := one.(map[string]any)
		left, right := tree["left_children"].([]any), tree["right_children"].([]any)
		for i := range left {
			if i > 0 && rng.Float64() < share {
				left[i], right[i] = -1, -1
			}
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Trees with leaves on every level give the same bits whether they are filled up or
// walked, in blocks of any size and for rows alone; those too uneven are walked.
func TestFilledTreesEqualWalkedOnes(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	filled := 0
	for _, depth := range []int{1, 2, 5, 8} {
		for _, share := range []float64{0, 0.1, 0.3, 0.9} {
			text := prune(t, randomModel(70, depth, 30, rng), share, rng) // more trees than walk abreast
			e, err := Read(text, DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			if e.full == nil {
				if share < 0.3 {
					t.Errorf("depth %d, %v pruned: not filled", depth, share)
				}
				continue
			}
			filled++
			walked := walking(e)
			for _, n := range []int{1, 2, 63, 64, 65, 130} {
				rows := randomRows(n, 30, 0.1, rng)
				got, want := make([]float32, n), make([]float32, n)
				e.Predict(got, rows)
				walked.Predict(want, rows)
				for i := range got {
					if got[i] != want[i] {
						t.Fatalf("depth %d, %v pruned, %d rows: row %d is %v filled and %v walked", depth, share, n, i, got[i], want[i])
					}
				}
			}
		}
	}
	if filled < 8 {
		t.Errorf("%d models were filled", filled)
	}
	if deep := newRandom(t, 3, fullDepth+1); deep.full != nil {
		t.Error("a deep tree was filled")
	}
}

func TestPredictDoesNotAllocate(t *testing.T) {
	e := newRandom(t, 20, 6)
	rows := randomRows(100, 30, 0.1, rand.New(rand.NewPCG(5, 6)))
	out := make([]float32, 100)
	for name, f := range map[string]func(){
		"batch": func() { e.Predict(out, rows) },
		"row":   func() { e.Predict(out[:1], rows[:30]) },
	} {
		if n := testing.AllocsPerRun(20, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Every way to damage a small valid model ends in a named error.
func TestDamagedModels(t *testing.T) {
	good := string(randomModel(1, 1, 3, rand.New(rand.NewPCG(1, 1))))
	if _, err := Read([]byte(good), DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"cycle":          {`"left_children":[1,`, `"left_children":[0,`, ErrFormat},
		"shared child":   {`"right_children":[2,`, `"right_children":[1,`, ErrFormat},
		"child outside":  {`"right_children":[2,`, `"right_children":[9,`, ErrFormat},
		"half a leaf":    {`"right_children":[2,`, `"right_children":[-1,`, ErrFormat},
		"short array":    {`"split_type":[0,`, `"split_type":[`, ErrFormat},
		"no categories":  {`"split_type":[0,`, `"split_type":[1,`, ErrFormat},
		"feature":        {`"num_feature":"3"`, `"num_feature":"0"`, ErrFormat},
		"negative":       {`"num_feature":"3"`, `"num_feature":"-3"`, ErrFormat},
		"huge feature":   {`"num_feature":"3"`, `"num_feature":"2000000000"`, ErrTooLarge},
		"huge classes":   {`"num_class":"0"`, `"num_class":"2000000000"`, ErrTooLarge},
		"group":          {`"tree_info":[0]`, `"tree_info":[1]`, ErrFormat},
		"tree_info":      {`"tree_info":[0]`, `"tree_info":[]`, ErrFormat},
		"base_score":     {`"[4.3E-1]"`, `"[]"`, ErrFormat},
		"base of 1":      {`"[4.3E-1]"`, `"[1]"`, ErrFormat},
		"two bases":      {`"[4.3E-1]"`, `"[0.1,0.2]"`, ErrFormat},
		"objective":      {`binary:logistic`, `my:own`, ErrUnsupported},
		"vector leaf":    {`"size_leaf_vector":"1"`, `"size_leaf_vector":"3"`, ErrUnsupported},
		"targets":        {`"num_target":"1"`, `"num_target":"4"`, ErrUnsupported},
		"not json":       {`{"version"`, `{{"version"`, ErrFormat},
		"no learner":     {`"learner"`, `"lerner"`, ErrFormat},
		"set of no node": {`"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"categories_nodes":[7],"categories_segments":[0],"categories_sizes":[0]`, ErrFormat},
		"set outside":    {`"categories_nodes":[],"categories_segments":[],"categories_sizes":[]`, `"categories_nodes":[0],"categories_segments":[0],"categories_sizes":[5]`, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("%s is not in the model", c.old)
			}
			if _, err := Read([]byte(bad), DefaultLimits()); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A booster of a matrix without names has an empty list of them: that is none.
func TestNoFeatureNames(t *testing.T) {
	text := randomModel(1, 1, 3, rand.New(rand.NewPCG(1, 1)))
	for list, want := range map[string]bool{`[]`: true, `["a","b","c"]`: false} {
		named := strings.Replace(string(text), `"learner":{`, `"learner":{"feature_names":`+list+`,`, 1)
		e, err := Read([]byte(named), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if got := e.FeatureNames() == nil; got != want {
			t.Errorf("%s: names %v", list, e.FeatureNames())
		}
	}
}

func TestLimits(t *testing.T) {
	good := randomModel(3, 4, 30, rand.New(rand.NewPCG(1, 1)))
	for name, lim := range map[string]Limits{
		"bytes":    {Bytes: 100},
		"trees":    {Bytes: 1 << 20, Trees: 2, Nodes: 1 << 20, Features: 99, Groups: 9},
		"nodes":    {Bytes: 1 << 20, Trees: 9, Nodes: 50, Features: 99, Groups: 9},
		"features": {Bytes: 1 << 20, Trees: 9, Nodes: 1 << 20, Features: 29, Groups: 9},
	} {
		if _, err := Read(good, lim); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
}

// Whatever is read without an error predicts without a panic.
func FuzzRead(f *testing.F) {
	f.Add(randomModel(2, 2, 3, rand.New(rand.NewPCG(1, 1))))
	seeds, _ := filepath.Glob("testdata/seeds/*.json")
	for _, path := range seeds {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	lim := Limits{Bytes: 1 << 20, Trees: 64, Nodes: 4096, Features: 64, Groups: 16, SetWords: 4096}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Read(text, lim)
		if err != nil {
			return
		}
		rows := make([]float32, 5*e.Features())
		for i := range rows {
			rows[i] = []float32{-1, 0, 3, float32(math.NaN()), float32(math.Inf(1)), 1e9, 2.5}[i%7]
		}
		e.Predict(make([]float32, 5*e.Outputs()), rows)
		e.Contributions(make([]float64, 5*e.Groups()*(e.Features()+1)), rows)
		e.Importance()
	})
}

func BenchmarkPredict(b *testing.B) {
	e := newRandom(b, 100, 6)
	for _, missing := range []float64{0, 0.02} {
		for _, n := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("missing=%v/rows=%d", missing, n), func(b *testing.B) {
				rows := randomRows(max(n, 4096), 30, missing, rand.New(rand.NewPCG(7, 8)))
				out := make([]float32, n)
				at, began := 0, processorTime()
				for b.Loop() {
					if at+n*30 > len(rows) {
						at = 0
					}
					e.Predict(out, rows[at:at+n*30])
					at += n * 30
				}
				b.ReportMetric(float64((processorTime()-began).Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/row")
				b.ReportMetric(walkedRatio(e, out, rows[:n*30]), "walked/full")
			})
		}
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// walking is an ensemble that walks its nodes.
func walking(e *Ensemble) *Ensemble {
	w := &Ensemble{features: e.features, groups: e.groups, link: e.link, base: e.base, roots: e.roots, nodes: e.nodes}
	w.scratch.New = e.scratch.New
	return w
}

// walkedRatio is how many times more of the processor walking the nodes takes than
// the full trees, in turns.
func walkedRatio(e *Ensemble, out, rows []float32) float64 {
	walked := walking(e)
	var took [2]time.Duration
	for turn := range 40 {
		one := []*Ensemble{e, walked}[turn%2]
		began := processorTime()
		for range 1 + 4096/len(out) {
			one.Predict(out, rows)
		}
		took[turn%2] += processorTime() - began
	}
	return float64(took[1]) / float64(took[0])
}

func BenchmarkContributions(b *testing.B) {
	e := newRandom(b, 100, 6)
	rows := randomRows(1, 30, 0, rand.New(rand.NewPCG(7, 8)))
	out := make([]float64, 31)
	b.ReportAllocs()
	for b.Loop() {
		e.Contributions(out, rows)
	}
}

func BenchmarkRead(b *testing.B) {
	text := randomModel(100, 6, 30, rand.New(rand.NewPCG(1, 2)))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Read(text, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
