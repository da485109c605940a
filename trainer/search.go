package trainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Sampler says how a search chooses its points.
type Sampler string

// Samplers.
const (
	Random Sampler = "random"
	Grid   Sampler = "grid"
	TPE    Sampler = "tpe"
)

// Search tries parameters on the validation rows; the test stays unseen until
// the best trial is judged on it.
type Search struct {
	Space    Space   `json:"space"`
	Sampler  Sampler `json:"sampler"`
	Pruning  Pruning `json:"pruning,omitempty"`
	Trials   int     `json:"trials"`             // of a grid: at most
	Parallel int     `json:"parallel,omitempty"` // default 1
	Seed     uint64  `json:"seed,omitempty"`
}

// Trial is one point that was tried before, for a search that goes on.
type Trial struct {
	Number int
	Params map[string]string // of the space
	Loss   float64           // smaller is better; NaN: failed or pruned without a value
	State  State
}

// SearchResult is what a search found.
type SearchResult struct {
	Best   *Result // judged on the test, with its artefact; nil when no trial succeeded
	Parent Run
	Trials []Trial
}

// Run searches. Every trial is a run with the search's run as its parent.
// before holds the trials of an interrupted search, which count and are not
// tried again. A failed trial does not end the search; cancelling does.
func (s *Search) Run(ctx context.Context, owner string, j Job, rec Record, before []Trial) (*SearchResult, error) {
	return s.run(ctx, owner, j, nil, rec, before)
}

// run searches on rows, or on those that it loads itself.
func (s *Search) run(ctx context.Context, owner string, j Job, rows *Prepared, rec Record, before []Trial) (*SearchResult, error) {
	if err := s.Space.Validate(); err != nil {
		return nil, err
	}
	if s.Trials <= 0 || s.Parallel < 0 {
		return nil, fmt.Errorf("%w: a search of %d trials", ErrParam, s.Trials)
	}
	parent := newRunning(owner, &j, rec)
	if err := parent.save(); err != nil {
		return nil, err
	}
	h, err := s.hunt(ctx, owner, j, rows, rec, parent.run.ID, before)
	out := &SearchResult{}
	if h != nil {
		out.Trials, out.Best = h.trials, h.best
	}
	if err == nil && out.Best == nil {
		err = fmt.Errorf("no trial of %d succeeded: %w", len(out.Trials), h.lastErr)
	}
	if out.Best != nil {
		parent.run.Metrics, parent.run.Artifact, parent.run.Params = out.Best.Run.Metrics, out.Best.Run.Artifact, out.Best.Run.Params
		parent.run.Data, parent.run.Device = out.Best.Run.Data, out.Best.Run.Device
		parent.run.Passed, parent.run.Refused = out.Best.Run.Passed, out.Best.Run.Refused
	}
	parent.run.Cost.Trials = len(out.Trials)
	res, err := parent.finish(&Result{}, err)
	out.Parent = res.Run
	return out, err
}

// hunt is a search under way.
type hunt struct {
	s      *Search
	owner  string
	job    Job
	rec    Record
	rows   *Prepared
	metric string
	sign   float64 // turns the metric into a loss
	prune  *pruner
	tpe    *tpe
	grid   []point

	mu      sync.Mutex
	rng     *rand.Rand
	next    int
	done    []scored
	trials  []Trial
	best    *Result
	loss    float64
	lastErr error
}

func (s *Search) hunt(ctx context.Context, owner string, j Job, rows *Prepared, rec Record, parent string, before []Trial) (*hunt, error) {
	if rows == nil {
		var err error
		if rows, err = j.Load(ctx); err != nil {
			return nil, err
		}
	}
	if rows.Valid.Rows() == 0 {
		return nil, fmt.Errorf("%w: a search needs validation rows", ErrNoRows)
	}
	j.Parent = parent
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	h := &hunt{s: s, owner: owner, job: j, rec: rec, rows: rows, rng: rng, sign: 1, loss: math.Inf(1), prune: newPruner(s.Pruning), tpe: newTPE(s.Space, rng)}
	h.metric = j.Params.Metric
	if h.metric == "" {
		h.metric = metricOf(rows.Task)
	}
	if HigherIsBetter(h.metric) {
		h.sign = -1
	}
	if s.Sampler == Grid {
		h.grid = s.Space.grid()
	}
	h.remember(before)
	group, ctx := errgroup.WithContext(ctx)
	for range max(1, s.Parallel) {
		group.Go(func() error { return h.work(ctx) })
	}
	return h, group.Wait()
}

// remember takes the trials of an interrupted search for done.
func (h *hunt) remember(before []Trial) {
	for _, t := range before {
		h.next = max(h.next, t.Number+1)
		h.trials = append(h.trials, t)
		if !math.IsNaN(t.Loss) {
			h.done = append(h.done, scored{h.s.Space.locate(t.Params), t.Loss})
		}
	}
	if h.grid != nil {
		h.grid = h.s.Space.remaining(h.grid, before)
	}
	for range h.next { // the generator goes on where it stopped
		h.s.Space.random(h.rng)
	}
}

// propose returns the next trial's number and point; ok is false at the end.
func (h *hunt) propose() (number int, at point, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next >= h.s.Trials || h.grid != nil && h.next >= len(h.grid) {
		return 0, nil, false
	}
	number = h.next
	h.next++
	switch {
	case h.grid != nil:
		return number, h.grid[number], true
	case h.s.Sampler == TPE:
		return number, h.tpe.propose(h.done), true
	}
	return number, h.s.Space.random(h.rng), true
}

func (h *hunt) work(ctx context.Context) error {
	for {
		number, at, ok := h.propose()
		if !ok {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
		}
		h.try(ctx, number, at)
	}
}

func (h *hunt) try(ctx context.Context, number int, at point) {
	j := h.job
	values := h.s.Space.values(at)
	j.Params.Extra = make(map[string]string)
	for k, v := range h.job.Params.Extra {
		j.Params.Extra[k] = v
	}
	for k, v := range values {
		j.Params.Extra[k] = v
	}
	last := math.NaN()
	res, err := TrainPrepared(ctx, h.owner, j, h.rows, h.rec, func(round int, value float64) bool {
		last = h.sign * value
		return h.prune.stop(number, round, last)
	})
	t := Trial{Number: number, Params: values, Loss: last, State: stateOf(err)}
	if err == nil {
		if v, ok := res.Run.Metrics["valid"][h.metric]; ok { // else: a metric of the library's own, as of the last round
			t.Loss = h.sign * v
		}
	}
	h.note(t, at, res, err)
}

func (h *hunt) note(t Trial, at point, res *Result, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trials = append(h.trials, t)
	if !math.IsNaN(t.Loss) && (err == nil || errors.Is(err, ErrPruned)) {
		h.done = append(h.done, scored{at, t.Loss})
	}
	if err != nil {
		h.lastErr = err
		return
	}
	if t.Loss < h.loss {
		h.loss, h.best = t.Loss, res
	}
}

// remaining puts the points of a grid that were tried before in front, as many
// as there are trials, so that the next one is a new one.
func (s Space) remaining(grid []point, before []Trial) []point {
	tried := slices.Repeat([]point{nil}, len(before))
	for _, p := range grid {
		values := s.values(p)
		if !slices.ContainsFunc(before, func(t Trial) bool { return maps.Equal(t.Params, values) }) {
			tried = append(tried, p)
		}
	}
	return tried
}

// locate is the inverse of values, up to rounding.
func (s Space) locate(params map[string]string) point {
	p := make(point, len(s))
	for name, r := range s {
		p[name] = r.locate(params[name])
	}
	return p
}
