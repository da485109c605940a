package mlflow

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/trainer"
)

// What runs log waits in memory, and is safe in the journal, until ClickHouse
// has it. Two lines of the journal bracket each insert: "storing" says that
// all that waited is on its way, "stored" that it arrived. What a restart finds
// on its way is sent again: MLflow knows no two equal values of one metric,
// step and time, so reading drops what came twice.
const (
	storing = "storing"
	stored  = "stored"
)

// Trigger is the trigger and the back-end that runs of MLflow's clients have
// among Kedge's own.
const Trigger = trainer.ByMLflow

// point is a metric on its way to ClickHouse.
type point struct {
	run *run
	metric
}

// parcel is what waits, or is on its way.
type parcel struct {
	points []point
	runs   []*run // whose records changed, each once
}

func (p *parcel) touch(x *run) {
	if !x.waits {
		x.waits = true
		p.runs = append(p.runs, x)
	}
}

// touched notes that a run's record is newer than what ClickHouse has.
func (s *Store) touched(x *run) {
	if s.cfg.Store == nil {
		return
	}
	x.revision++
	s.waiting.touch(x)
}

// record keeps metrics that were logged, until they are stored.
func (s *Store) record(x *run, metrics []metric) {
	if s.cfg.Store == nil {
		return
	}
	for _, m := range metrics {
		s.waiting.points = append(s.waiting.points, point{x, m})
	}
}

func beginStoring(s *Store, _ *change) (any, error) {
	s.sent.points = append(s.sent.points, s.waiting.points...)
	for _, x := range s.waiting.runs {
		x.waits = false
		if !slices.Contains(s.sent.runs, x) {
			s.sent.runs = append(s.sent.runs, x)
		}
	}
	s.waiting = parcel{}
	return nil, nil
}

func endStoring(s *Store, _ *change) (any, error) {
	for _, p := range s.sent.points {
		left := p.run.history[p.Key][1:]
		if p.run.history[p.Key] = left; len(left) == 0 {
			delete(p.run.history, p.Key)
		}
	}
	s.sent = parcel{}
	return nil, nil
}

// storeEvery is how long what runs log may wait before it is sent to
// ClickHouse. Reads see it at once.
const storeEvery = time.Second

// flush sends what waits. What cannot be sent waits on.
func (s *Store) flush(ctx context.Context) error {
	s.mu.RLock()
	idle := len(s.waiting.points)+len(s.waiting.runs)+len(s.sent.points)+len(s.sent.runs) == 0
	s.mu.RUnlock()
	if idle {
		return nil
	}
	if _, err := s.do(change{Op: storing}, ""); err != nil {
		return err
	}
	points, runs, err := s.parcels()
	if err != nil {
		return err
	}
	token := rand.Text()
	for i, part := range byMonths(points) {
		if err := s.cfg.Store.SaveRunMetrics(ctx, s.cfg.Namespace, fmt.Sprint(token, "/", i), part); err != nil {
			return err
		}
	}
	if err := s.cfg.Store.SaveRun(ctx, runs...); err != nil {
		return err
	}
	_, err = s.do(change{Op: stored}, "")
	return err
}

// parcels are the rows of what is on its way, as of now.
func (s *Store) parcels() ([]store.RunMetric, []store.TrainingRun, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	points := make([]store.RunMetric, len(s.sent.points))
	for i, p := range s.sent.points {
		points[i] = store.RunMetric{Run: p.run.info.ID, Job: s.jobOf(p.run), Metric: p.Key, Step: int64(p.Step), Value: float64(p.Value), Time: time.UnixMilli(int64(p.Timestamp))}
	}
	runs := make([]store.TrainingRun, len(s.sent.runs))
	for i, x := range s.sent.runs {
		var err error
		if runs[i], err = s.trainerRun(x).Row(); err != nil {
			return nil, nil, err
		}
	}
	return points, runs, nil
}

func (s *Store) jobOf(x *run) string {
	if e := s.experiments[x.info.Experiment]; e != nil {
		return e.Name
	}
	return x.info.Experiment
}

// trainerRun is a run as Kedge's own kinds and its lineage show it.
func (s *Store) trainerRun(x *run) trainer.Run {
	r := trainer.Run{
		ID: x.info.ID, Namespace: s.cfg.Namespace, Job: s.jobOf(x), Owner: "mlflow", Who: x.info.User, Trigger: Trigger, Backend: Trigger,
		Revision: x.revision, Created: time.UnixMilli(int64(x.info.Start)).UTC(), Tags: x.tags, Params: trainer.Params{Extra: x.params},
		Metrics: map[string]map[string]float64{"mlflow": {}},
	}
	r.Started = r.Created
	if x.info.End != 0 {
		r.Finished = time.UnixMilli(int64(x.info.End)).UTC()
		r.Cost.Wall = max(r.Finished.Sub(r.Started).Seconds(), 0)
	}
	for key, m := range x.latest {
		if v := float64(m.Value); !math.IsNaN(v) && !math.IsInf(v, 0) { // JSON has no such numbers
			r.Metrics["mlflow"][key] = v
		}
	}
	switch x.info.Status {
	case "FINISHED":
		r.State, r.Passed = trainer.Succeeded, true
	case "FAILED":
		r.State = trainer.Failed
	case "KILLED":
		r.State = trainer.Cancelled
	case "SCHEDULED":
		r.State = trainer.Queued
	default:
		r.State = trainer.Running
	}
	return r
}

// months bounds the partitions of one insert; the engine refuses more than 100.
const months = 50

// byMonths cuts metrics so that none of the parts spans too many months.
func byMonths(list []store.RunMetric) [][]store.RunMetric {
	var out [][]store.RunMetric
	seen := map[[2]int]bool{}
	begin := 0
	for i := range list {
		t := list[i].Time.UTC()
		month := [2]int{t.Year(), int(t.Month())}
		if !seen[month] && len(seen) == months {
			out = append(out, list[begin:i])
			begin = i
			clear(seen)
		}
		seen[month] = true
	}
	if begin < len(list) {
		out = append(out, list[begin:])
	}
	return out
}

// historyOf is a run's values of one metric in the order of time, step, value:
// those that ClickHouse has, and those that wait.
func (s *Store) historyOf(ctx context.Context, body json.RawMessage) (any, error) {
	var r runRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, invalid("request: %v", err)
	}
	s.mu.RLock()
	x, err := s.run(&r)
	var all []metric
	if err == nil {
		all = slices.Clone(x.history[r.MetricKey])
	}
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if s.cfg.Store != nil {
		rows, err := s.cfg.Store.RunHistory(ctx, s.cfg.Namespace, r.id(), r.MetricKey)
		if err != nil {
			return nil, err
		}
		for _, m := range rows {
			all = append(all, metric{r.MetricKey, number(m.Value), integer(m.Time.UnixMilli()), integer(m.Step)})
		}
	}
	slices.SortFunc(all, func(a, b metric) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Step, b.Step), cmp.Compare(a.Value, b.Value))
	})
	all = slices.CompactFunc(all, func(a, b metric) bool {
		return a.Timestamp == b.Timestamp && a.Step == b.Step && cmp.Compare(a.Value, b.Value) == 0
	})
	page, next, err := paged(all, r.Page, int(r.Max), 25_000)
	return object{"metrics": page, "next_page_token": next}, err
}
