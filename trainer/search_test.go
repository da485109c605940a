package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/kedge-ml/kedge/model"
)

func testSpace() Space {
	return Space{
		"eta":       {Low: 0.01, High: 0.5, Log: true},
		"max_depth": {Low: 2, High: 9, Int: true},
		"kind":      {Choices: []string{"a", "b", "c"}},
	}
}

func TestSpace(t *testing.T) {
	s := testSpace()
	if n := len(s.grid()); n != 27 {
		t.Errorf("a grid of %d points", n)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	small := 0
	for range 1000 {
		v := s.values(s.random(rng))
		eta, err1 := strconv.ParseFloat(v["eta"], 64)
		depth, err2 := strconv.Atoi(v["max_depth"])
		if err := errors.Join(err1, err2); err != nil || eta < 0.01 || eta > 0.5 || depth < 2 || depth > 9 {
			t.Fatalf("%v: %v", v, err)
		}
		if eta < 0.0707 { // the middle of the logarithms
			small++
		}
		if again := s.values(s.locate(v)); fmt.Sprint(again) != fmt.Sprint(v) {
			t.Fatalf("%v is located at %v", v, again)
		}
	}
	if small < 430 || small > 570 {
		t.Errorf("%d of 1000 draws in the lower half of a logarithmic range", small)
	}
	for name, bad := range map[string]Space{
		"empty": {}, "reversed": {"x": {Low: 2, High: 1}}, "log of 0": {"x": {High: 1, Log: true}}, "NaN": {"x": {Low: math.NaN(), High: 1}},
	} {
		if err := bad.Validate(); !errors.Is(err, ErrParam) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On a bowl, TPE gets closer than random draws do, with the same number of
// trials, for most seeds.
func TestTPEBeatsRandom(t *testing.T) {
	s := testSpace()
	loss := func(p point) float64 {
		v := s.values(p)
		eta, _ := strconv.ParseFloat(v["eta"], 64)
		depth, _ := strconv.ParseFloat(v["max_depth"], 64)
		l := math.Pow(math.Log(eta/0.1), 2) + math.Pow((depth-6)/3, 2)
		if v["kind"] != "b" {
			l += 0.5
		}
		return l
	}
	wins, sumTPE, sumRandom := 0, 0.0, 0.0
	for seed := range uint64(30) {
		best := func(propose func([]scored) point) float64 {
			var done []scored
			for range 120 {
				p := propose(done)
				done = append(done, scored{p, loss(p)})
			}
			return slices.MinFunc(done, func(a, b scored) int { return int(math.Copysign(1, a.loss-b.loss)) }).loss
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		a := best(newTPE(s, rand.New(rand.NewPCG(seed, 3))).propose)
		b := best(func([]scored) point { return s.random(rng) })
		sumTPE, sumRandom = sumTPE+a, sumRandom+b
		if a < b {
			wins++
		}
	}
	t.Logf("TPE is better for %d of 30 seeds; mean loss %.4f against %.4f", wins, sumTPE/30, sumRandom/30)
	if wins < 22 || sumTPE > sumRandom/2 {
		t.Error("TPE does not learn")
	}
}

// The density integrates to 1, whatever it was made of.
func TestParzenIsADensity(t *testing.T) {
	r := Range{Low: 0.001, High: 10, Log: true}
	for n := range 6 {
		var trials []scored
		for i := range n {
			trials = append(trials, scored{at: point{"x": math.Log(0.001) + 1.7*float64(i)}})
		}
		e := newParzen(r, "x", trials)
		sum, steps := 0.0, 20000
		for i := range steps {
			x := e.low + (e.high-e.low)*(float64(i)+0.5)/float64(steps)
			sum += math.Exp(e.logDensity(x)) / math.Sqrt(2*math.Pi) * (e.high - e.low) / float64(steps)
		}
		if math.Abs(sum-1) > 1e-3 {
			t.Errorf("%d trials: integral %v", n, sum)
		}
	}
}

func TestASHAByHand(t *testing.T) {
	p := newPruner(ASHA) // rungs after 10, 30, 90 rounds
	for i, c := range []struct {
		loss float64
		stop bool
	}{{5, false}, {4, false}, {6, true}, {3, false}, {3.5, true}, {2, false}, {2.5, false}, {2.2, false}, {9, true}, {1.9, false}} {
		if p.stop(i, 8, c.loss) {
			t.Errorf("trial %d stopped between rungs", i)
		}
		if got := p.stop(i, 9, c.loss); got != c.stop {
			t.Errorf("trial %d with loss %v: stop is %v", i, c.loss, got)
		}
	}
	// At the next rung those that came there are compared with one another.
	for i, stop := range []bool{false, false, true} {
		if got := p.stop(20+i, 29, float64(i)); got != stop {
			t.Errorf("second rung, trial %d: %v", i, got)
		}
	}
}

func TestMedianByHand(t *testing.T) {
	p := newPruner(Median)
	for trial, loss := range []float64{1, 2, 3} {
		for round := range 6 {
			if p.stop(trial, round, loss) {
				t.Errorf("trial %d stopped in round %d", trial, round)
			}
		}
	}
	if p.stop(3, 3, 9) {
		t.Error("stopped before the first judged round")
	}
	if !p.stop(3, 4, 9) {
		t.Error("9 is worse than the median 2 and goes on")
	}
	if p.stop(4, 4, 1.5) {
		t.Error("1.5 is better than the median and is stopped")
	}
	if p.stop(4, 5, 7) {
		t.Error("the best so far counts, not the latest")
	}
}

// searchJob fits linear models; their penalty is what a search looks for.
func searchJob(t *testing.T) Job {
	return jobOn(sample(t, 1500, "binary", 6), Linear{}, Params{})
}

func TestSearchFindsTheBestTrialAndRecordsAll(t *testing.T) {
	for _, sampler := range []Sampler{Random, Grid, TPE} {
		var b book
		s := &Search{Space: Space{"l2": {Low: 1e-4, High: 100, Log: true, Steps: 8}}, Sampler: sampler, Trials: 8, Parallel: 2, Seed: 5}
		out, err := s.Run(t.Context(), "me", searchJob(t), b.record(), nil)
		if err != nil {
			t.Fatal(err)
		}
		best := slices.MinFunc(out.Trials, func(a, b Trial) int { return int(math.Copysign(1, a.Loss-b.Loss)) })
		if len(out.Trials) != 8 || out.Best.Run.Metrics["valid"]["logloss"] != best.Loss || out.Best.Run.Params.Extra["l2"] != best.Params["l2"] {
			t.Errorf("%s: %d trials, best %v of %v", sampler, len(out.Trials), best, out.Best.Run.Params.Extra)
		}
		children := make(map[string]bool)
		for _, r := range b.runs {
			if r.Parent == out.Parent.ID {
				children[r.ID] = true
			}
		}
		if len(children) != 8 || out.Parent.State != Succeeded || out.Parent.Cost.Trials != 8 {
			t.Errorf("%s: %d children, parent %+v", sampler, len(children), out.Parent)
		}
	}
}

// An interrupted search goes on: what was tried is neither lost nor repeated.
func TestSearchResumes(t *testing.T) {
	s := &Search{Space: Space{"l2": {Low: 1e-4, High: 1, Log: true}}, Sampler: Random, Trials: 6, Seed: 5}
	whole, err := s.Run(t.Context(), "me", searchJob(t), Record{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := s.Run(t.Context(), "me", searchJob(t), Record{}, whole.Trials[:4])
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(rest.Trials) != fmt.Sprint(whole.Trials) {
		t.Errorf("%v\n%v", rest.Trials, whole.Trials)
	}
}

func TestSearchEndsWell(t *testing.T) {
	space := Space{"l2": {Low: 1e-4, High: 1, Log: true}}
	s := &Search{Space: space, Sampler: Random, Trials: 5}
	j := searchJob(t)
	j.Params.Extra = map[string]string{"nonsense": "1"}
	out, err := s.Run(t.Context(), "me", j, Record{}, nil)
	if !errors.Is(err, ErrParam) || len(out.Trials) != 5 || out.Parent.State != Failed {
		t.Errorf("every trial fails: %v, %+v", err, out.Parent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	rec := Record{Run: func(r Run) error {
		if n++; n == 4 {
			cancel()
		}
		return nil
	}}
	if out, err := s.Run(ctx, "me", searchJob(t), rec, nil); !errors.Is(err, ErrCancelled) || out.Parent.State != Cancelled {
		t.Errorf("cancelled: %v, %+v", err, out)
	}
	if _, err := (&Search{Space: space}).Run(t.Context(), "me", searchJob(t), Record{}, nil); !errors.Is(err, ErrParam) {
		t.Errorf("no trials: %v", err)
	}
}

// With pruning, most trials of XGBoost end early, and the winner is no worse
// than a first guess.
func TestSearchPrunesXGBoost(t *testing.T) {
	x := xgboost(t)
	j := jobOn(sample(t, 2000, "binary", 6), x, Params{Task: model.Binary, Rounds: 100, Threads: 1})
	s := &Search{Space: Space{
		"eta": {Low: 0.01, High: 0.3, Log: true}, "max_depth": {Low: 2, High: 8, Int: true}, "subsample": {Low: 0.5, High: 1},
	}, Sampler: TPE, Pruning: ASHA, Trials: 14, Seed: 2}
	out, err := s.Run(t.Context(), "me", j, Record{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pruned := 0
	for _, tr := range out.Trials {
		if tr.State == Pruned {
			pruned++
		}
	}
	guess, err := Train(t.Context(), "me", j, Record{})
	if err != nil {
		t.Fatal(err)
	}
	found, first := out.Best.Run.Metrics["valid"]["logloss"], guess.Run.Metrics["valid"]["logloss"]
	t.Logf("%d of %d trials pruned, validation logloss %.4f, first guess %.4f", pruned, len(out.Trials), found, first)
	if pruned < 4 || found > first {
		t.Error("the search was of no use")
	}
}

// TestGridGoesOn: what is left of a grid are the points that no trial had,
// whichever those are.
func TestGridGoesOn(t *testing.T) {
	s := Space{"depth": {Choices: []string{"1", "2", "3"}}, "eta": {Low: 0.1, High: 0.3}}
	grid := s.grid()
	before := []Trial{{Params: s.values(grid[4])}, {Params: s.values(grid[1])}}
	left := s.remaining(grid, before)
	if len(left) != len(grid) {
		t.Fatalf("%d points of %d", len(left), len(grid))
	}
	seen := map[string]bool{}
	for _, p := range left[len(before):] {
		seen[fmt.Sprint(s.values(p))] = true
	}
	for i, p := range grid {
		if want := i != 4 && i != 1; seen[fmt.Sprint(s.values(p))] != want {
			t.Errorf("point %d, %v: left over %v", i, s.values(p), !want)
		}
	}
}
