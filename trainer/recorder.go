package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/store"
)

// recorder stores what happens in runs. Metrics and lines wait for the next
// flush, so that a fast fit is no insert per round.
type recorder struct {
	cfg   SchedulerConfig
	store *store.Store

	mu      sync.Mutex
	waiting map[string]*waiting // by namespace
	counts  map[string]int64

	saving sync.Mutex
	live   map[string]Run // under way here, as last recorded
}

// waiting is what was not stored yet of one namespace's runs.
type waiting struct {
	metrics outbox[store.RunMetric]
	lines   outbox[store.RunLine]
}

// outbox holds rows until they are stored. What was sent and failed may be stored
// all the same: it is sent again as it was, under the same number.
type outbox[T any] struct {
	waiting, sending []T
	seq              int64
}

func (o *outbox[T]) flush(send func(seq int64, rows []T) error) error {
	for len(o.sending)+len(o.waiting) > 0 {
		if len(o.sending) == 0 {
			o.sending, o.waiting = o.waiting, o.sending
		}
		if err := send(o.seq, o.sending); err != nil {
			return err
		}
		o.sending, o.seq = o.sending[:0], o.seq+1
	}
	return nil
}

// of returns what waits of a namespace; mu is held.
func (c *recorder) of(namespace string) *waiting {
	w := c.waiting[namespace]
	if w == nil {
		w = &waiting{}
		c.waiting[namespace] = w
	}
	return w
}

func newRecorder(cfg SchedulerConfig, st *store.Store) *recorder {
	return &recorder{cfg: cfg, store: st, counts: map[string]int64{}, waiting: map[string]*waiting{}, live: map[string]Run{}}
}

// recordTimeout bounds one insert of a run's record.
const recordTimeout = 30 * time.Second

// run stores a run's newest revision; it must outlive a cancelled run.
func (c *recorder) run(r Run) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	row, err := r.Row()
	if err != nil {
		return err
	}
	return c.store.SaveRun(ctx, row)
}

// begin stores that a run is under way here.
func (c *recorder) begin(r Run) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	return c.keep(r)
}

// keep stores a newer revision of a run that is under way here; saving is held.
func (c *recorder) keep(r Run) error {
	if was, ok := c.live[r.ID]; ok {
		r.Revision = max(r.Revision, was.Revision+1)
	}
	if err := c.run(r); err != nil {
		return err
	}
	if c.live[r.ID] = r; r.State.Final() {
		delete(c.live, r.ID)
	}
	return nil
}

// beat stores that the runs under way here go on.
func (c *recorder) beat() (err error) {
	c.saving.Lock()
	defer c.saving.Unlock()
	for _, r := range c.live {
		err = errors.Join(err, c.keep(r))
	}
	return err
}

// holds reports whether a run is under way here.
func (c *recorder) holds(id string) bool {
	c.saving.Lock()
	defer c.saving.Unlock()
	_, ok := c.live[id]
	return ok
}

// forget ends the beats of a run and of its trials.
func (c *recorder) forget(id string) {
	c.saving.Lock()
	defer c.saving.Unlock()
	maps.DeleteFunc(c.live, func(k string, r Run) bool { return k == id || r.Parent == id })
}

// Row is the run as the store keeps it.
func (r Run) Row() (store.TrainingRun, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return store.TrainingRun{}, fmt.Errorf("record run %s: %w", r.ID, err)
	}
	score := func(split string) float64 {
		if v, ok := r.Metrics[split][r.Metric]; ok {
			return v
		}
		return math.NaN()
	}
	rows, planned := 0, r.Params.Rounds
	for _, n := range r.Data.Rows {
		rows += n
	}
	wall := r.Cost.Wall
	if wall == 0 && !r.Started.IsZero() && !r.State.Final() {
		wall = time.Since(r.Started).Seconds()
	}
	return store.TrainingRun{
		Namespace: r.Namespace, ID: r.ID, Job: r.Job, Parent: r.Parent, Owner: r.Owner, Revision: r.Revision, State: string(r.State), Trigger: r.Trigger,
		Backend: r.Backend, Metric: r.Metric, Created: r.Created, Started: r.Started, Finished: r.Finished, Round: int64(r.Round), Rounds: int64(planned),
		Valid: score("valid"), Test: score("test"), Baseline: score("baseline"), Live: score("live"), Rows: int64(rows),
		Device: r.Device.Used, Requested: orText(r.Device.Requested, string(r.Params.Device)), Reason: r.Device.Reason,
		Wall: wall, CPU: r.Cost.CPU, GPU: r.Cost.GPU, Energy: r.Cost.EnergyKWh, Artifact: r.Artifact, Version: r.Version,
		Passed: r.Passed, Refused: strings.Join(r.Refused, "; "), Error: r.Error, Record: string(text),
	}, nil
}

// record is what a run under way reports to.
func (c *recorder) record(ctx context.Context, of Run) Record {
	return Record{
		Run: func(r Run) error {
			if r.State.Final() && r.State != Succeeded && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errByHand) {
				return nil // the process stops; the run did not end
			}
			if r.Trigger == "" {
				r.Trigger, r.Who = of.Trigger, of.Who
			}
			return c.begin(r)
		},
		Metrics: func(ms []Metric) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			w := c.of(of.Namespace)
			for _, m := range ms {
				set, name, _ := strings.Cut(m.Key, "-")
				w.metrics.waiting = append(w.metrics.waiting, store.RunMetric{Run: m.Run, Job: of.Job, Set: set, Metric: name, Step: int64(m.Step), Value: m.Value, Time: m.Time})
			}
			return nil
		},
		Log: func(run, line string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			w := c.of(of.Namespace)
			w.lines.waiting = append(w.lines.waiting, store.RunLine{Run: run, N: c.counts[run], Time: time.Now(), Text: strings.TrimRight(line, "\n")})
			c.counts[run]++
		},
		Checkpoint: func(run string, k Checkpoint) error { return saveCheckpoint(c.cfg.Checkpoints, run, k) },
	}
}

// flush stores what waits. What cannot be stored waits on.
func (c *recorder) flush(ctx context.Context) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for namespace, w := range c.waiting {
		token := func(seq int64) string { return fmt.Sprintf("%s/%s/%d", c.cfg.Owner, namespace, seq) }
		err = errors.Join(err,
			w.metrics.flush(func(seq int64, ms []store.RunMetric) error {
				return c.store.SaveRunMetrics(ctx, namespace, token(seq), ms)
			}),
			w.lines.flush(func(seq int64, ls []store.RunLine) error {
				return c.store.SaveRunLog(ctx, namespace, token(seq), ls)
			}))
	}
	return err
}

func checkpointFile(run string) string { return run + ".checkpoint" }

// saveCheckpoint replaces a run's checkpoint: it is there whole or not at all.
func saveCheckpoint(root *os.Root, run string, k Checkpoint) error {
	head, err := json.Marshal(workerResume{Rounds: k.Rounds, Best: k.Best})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	part := checkpointFile(run) + ".part"
	f, err := root.Create(part)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err1 := f.Write(append(head, '\n'))
	_, err2 := f.Write(k.State)
	if err := errors.Join(err1, err2, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("checkpoint: %w", errors.Join(err, root.Remove(part)))
	}
	if err := root.Rename(part, checkpointFile(run)); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// loadCheckpoint reads a run's checkpoint; nil: there is none.
func loadCheckpoint(root *os.Root, run string) (*Checkpoint, error) {
	text, err := root.ReadFile(checkpointFile(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	head, state, ok := bytes.Cut(text, []byte{'\n'})
	var at workerResume
	if err := json.Unmarshal(head, &at); err != nil || !ok {
		return nil, fmt.Errorf("checkpoint of run %s is damaged: %w", run, err)
	}
	return &Checkpoint{Rounds: at.Rounds, Best: at.Best, State: slices.Clone(state)}, nil
}

// dropCheckpoint forgets a checkpoint that nobody needs any more.
func dropCheckpoint(root *os.Root, run string) { _ = root.Remove(checkpointFile(run)) }

// trialsOf are the finished trials of a search's run among all runs, in the
// order in which they began. Those that were lost with their process are tried
// again.
func trialsOf(all []Run, parent Run) []Trial {
	var out []Trial
	for _, r := range slices.Backward(all) { // oldest first
		if r.Parent != parent.ID || !r.State.Final() || r.orphaned() {
			continue
		}
		t := Trial{Number: len(out), Params: map[string]string{}, Loss: math.NaN(), State: r.State}
		for name := range parent.Spec.Search.Space {
			t.Params[name] = r.Params.Extra[name]
		}
		if v, ok := r.Metrics["valid"][r.Metric]; ok && r.Metric != "" {
			t.Loss = v
			if HigherIsBetter(r.Metric) {
				t.Loss = -v
			}
		}
		out = append(out, t)
	}
	return out
}
