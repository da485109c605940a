package trainer

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// book keeps what a run recorded.
type book struct {
	mu      sync.Mutex
	runs    []Run
	metrics []Metric
}

func (b *book) record() Record {
	return Record{
		Run: func(r Run) error { b.mu.Lock(); defer b.mu.Unlock(); b.runs = append(b.runs, r); return nil },
		Metrics: func(m []Metric) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.metrics = append(b.metrics, m...)
			return nil
		},
	}
}

// From rows to an artefact on disk that answers, with everything recorded.
func TestTrain(t *testing.T) {
	x := xgboost(t)
	for _, backend := range []Backend{x, Linear{}} {
		t.Run(backend.Name(), func(t *testing.T) {
			var b book
			p := Params{Rounds: 40, EarlyStop: 10, Seed: 3, Device: Auto}
			j := jobOn(sample(t, 4000, "binary", 1), backend, p)
			j.Segments = []string{"country"}
			res, err := Train(t.Context(), "me", j, b.record())
			if err != nil {
				t.Fatal(err)
			}
			checkRun(t, &b, res)
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			digest, err := model.Write(root, res.Artifact)
			if err != nil {
				t.Fatal(err)
			}
			a, err := model.Load(root, digest, model.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			in := a.Signature.Inputs
			if in[0].View != "user" || in[0].ViewVersion != 2 || len(in[3].Categories) != 5 || in[0].Reference.Summary.Missing == 0 || in[3].Reference.Summary.Count == 0 {
				t.Errorf("inputs %+v", in)
			}
			if a.Signature.Outputs[0].Reference.Summary.Rows() != 2800 || a.Export == nil {
				t.Errorf("output %+v, export of %d bytes", a.Signature.Outputs[0], len(a.Export))
			}
			if a.Card.Run != res.Run.ID || a.Card.Importance[0].Input != "age" || len(a.Card.Segments) != 5 || a.Card.Device.Used != "cpu" {
				t.Errorf("card %+v", a.Card)
			}
		})
	}
}

func checkRun(t *testing.T, b *book, res *Result) {
	t.Helper()
	r := res.Run
	if r.State != Succeeded || !r.Passed || r.Params.Task != model.Binary || r.Data.Digest == "" || r.Data.Rows["train"] != 2800 {
		t.Errorf("run %+v", r)
	}
	if auc := r.Metrics["test"]["auc"]; auc < 0.9 || r.Metrics["test"]["logloss"] >= r.Metrics["baseline"]["logloss"] {
		t.Errorf("metrics %v", r.Metrics)
	}
	if first, last := b.runs[0], b.runs[len(b.runs)-1]; first.State != Running || last.State != Succeeded || last.Revision <= first.Revision {
		t.Errorf("recorded %d states", len(b.runs))
	}
	if len(b.metrics) == 0 || b.metrics[0].Run != r.ID {
		t.Errorf("%d metrics recorded", len(b.metrics))
	}
	total := 0
	for _, bin := range res.Report.Calibration.Bins {
		total += int(bin.Weight)
	}
	if total != res.Report.Rows {
		t.Errorf("%d rows in calibration bins of %d", total, res.Report.Rows)
	}
}

// Whatever is wrong with the input, the run fails with a name for it and
// leaves no artefact.
func TestBadInput(t *testing.T) {
	relabel := func(m *Matrix, f func(i int) float32) *Matrix {
		for i := range m.Label {
			m.Label[i] = f(i)
		}
		return m
	}
	good := func() *Matrix { return sample(t, 600, "binary", 1) }
	timeless := good()
	timeless.Time = nil
	weightless := good()
	weightless.Weight = make([]float32, weightless.Rows())
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		m    *Matrix
		p    Params
		want error
	}{
		"no rows":            {good().Select(nil), Params{}, ErrNoRows},
		"every row weighs 0": {weightless, Params{}, ErrNoRows},
		"one class":          {relabel(good(), func(int) float32 { return 1 }), Params{Task: model.Binary}, ErrOneClass},
		"one class of texts": {sampleOfOneText(t), Params{}, ErrOneClass},
		"one class trains":   {relabel(good(), func(i int) float32 { return float32(i / 500) }), Params{Task: model.Binary}, ErrOneClass},
		"NaN label":          {relabel(good(), func(i int) float32 { return []float32{0, 1, nan}[i%3] }), Params{}, ErrLabel},
		"three classes":      {relabel(good(), func(i int) float32 { return float32(i % 3) }), Params{Task: model.Binary}, ErrLabel},
		"texts to regress":   {sample(t, 100, "texts", 1), Params{Task: model.Regression}, ErrLabel},
		"numbers as classes": {sample(t, 5000, "real", 1), Params{Task: model.MultiClass}, ErrLabel},
		"no time":            {timeless, Params{}, ErrParam},
		"unknown task":       {good(), Params{Task: "ranking"}, ErrParam},
	} {
		t.Run(name, func(t *testing.T) {
			var b book
			res, err := Train(t.Context(), "me", jobOn(c.m, Linear{}, c.p), b.record())
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			t.Log(err)
			if last := b.runs[len(b.runs)-1]; res.Artifact != nil || last.State != Failed || last.Error == "" {
				t.Errorf("recorded %+v", last)
			}
		})
	}
}

func sampleOfOneText(t *testing.T) *Matrix {
	c := sampleChunk(50, "texts", 1)
	for i := range c.Label.Texts {
		c.Label.Texts[i] = "top"
	}
	b, err := NewBuilder(sampleFields(), "String", DefaultBuilderConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Append(c); err != nil {
		t.Fatal(err)
	}
	m, err := b.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A feature that is the label, or all but it, is flagged, and the gate refuses.
func TestLeakageIsFlagged(t *testing.T) {
	for kind, task := range map[string]model.Task{"binary": model.Binary, "real": model.Regression, "texts": model.MultiClass} {
		m := sample(t, 2000, kind, 4)
		if err := Prepare(m, task); err != nil {
			t.Fatal(err)
		}
		if leaks := Leaks(m, task); len(leaks) != 0 {
			t.Errorf("%s: honest features flagged: %v", kind, leaks)
		}
		monotone := make([]float32, m.Rows())
		for i, y := range m.Label {
			monotone[i] = 3*y*y*y + 1
		}
		m.Columns = append(m.Columns,
			Column{Field: Field{Name: "copy", Type: "Float64"}, Values: m.Label},
			Column{Field: Field{Name: "cube", Type: "Float64"}, Values: monotone})
		leaks := Leaks(m, task)
		if len(leaks) != 2 || !leaks[0].Equal || leaks[1].Column != "cube" || leaks[1].Equal {
			t.Errorf("%s: %v", kind, leaks)
		}
		res, err := Train(t.Context(), "me", jobOn(m, Linear{}, Params{Task: task}), Record{})
		if err != nil {
			t.Fatal(err)
		}
		if res.Run.Passed || len(res.Run.Warnings) != 2 || !strings.Contains(res.Run.Refused[0], "equals the label") {
			t.Errorf("%s: passed %v, %v, %v", kind, res.Run.Passed, res.Run.Warnings, res.Run.Refused)
		}
	}
}

func TestGate(t *testing.T) {
	num := func(v float64) *float64 { return &v }
	report := func() *Report {
		return &Report{
			Rows: 100, Metrics: map[string]float64{"auc": 0.8, "logloss": 0.4, "ece": 0.05},
			Baseline: map[string]float64{"auc": 0.5, "logloss": 0.6}, Live: map[string]float64{"auc": 0.79, "logloss": 0.41},
			Segments: []model.SegmentMetrics{{Column: "country", Value: "MT", Metrics: map[string]float64{"auc": 0.6, "logloss": 0.5}}},
		}
	}
	for name, c := range map[string]struct {
		gate    Gate
		leaks   []Leak
		reasons int
	}{
		"default":          {Gate{}, nil, 0},
		"minimum":          {Gate{Metric: "auc", Min: num(0.81)}, nil, 1},
		"minimum met":      {Gate{Metric: "auc", Min: num(0.8)}, nil, 0},
		"maximum":          {Gate{Max: num(0.3)}, nil, 1},
		"live, 0 %":        {Gate{BeatLive: num(0)}, nil, 0},
		"live, 5 %":        {Gate{BeatLive: num(0.05)}, nil, 1},
		"calibration":      {Gate{MaxECE: num(0.01)}, nil, 1},
		"segment":          {Gate{Metric: "auc", MaxSegmentGap: num(0.1)}, nil, 1},
		"rows":             {Gate{MinRows: 101}, nil, 1},
		"leak":             {Gate{}, []Leak{{Column: "x", Equal: true}}, 1},
		"leak allowed":     {Gate{AllowLeaks: true}, []Leak{{Column: "x"}}, 0},
		"no such metric":   {Gate{Metric: "rmse"}, nil, 1},
		"several at once":  {Gate{Max: num(0.1), MinRows: 1000, MaxECE: num(0)}, nil, 3},
		"baseline is hard": {Gate{Metric: "ece"}, nil, 0},
	} {
		if got := c.gate.Check(report(), c.leaks, "logloss"); len(got) != c.reasons {
			t.Errorf("%s: %v", name, got)
		}
	}
	bad := report()
	bad.Metrics["logloss"] = 0.61
	if got := (&Gate{}).Check(bad, nil, "logloss"); len(got) != 1 {
		t.Errorf("no better than the average: %v", got)
	}
}

func TestRunsThatDoNotFinish(t *testing.T) {
	now := time.Now()
	if out := orphan(Run{ID: "d", State: Running, Owner: "old", Revision: 4}, now); out.ID != "d" || out.Revision != 5 || out.State != Failed || out.Finished != now {
		t.Errorf("%+v", out)
	}
	for err, want := range map[error]State{nil: Succeeded, ErrPruned: Pruned, ErrCancelled: Cancelled, ErrWorker: Failed} {
		if got := stateOf(err); got != want {
			t.Errorf("%v: %s", err, got)
		}
	}
	var b book
	j := jobOn(sample(t, 300, "real", 1), Linear{}, Params{})
	j.Source = func(ctx context.Context) (*Matrix, model.Data, error) {
		return nil, model.Data{}, errors.New("store is down")
	}
	if _, err := Train(t.Context(), "me", j, b.record()); err == nil || b.runs[1].State != Failed || !strings.Contains(b.runs[1].Error, "store is down") {
		t.Errorf("%v, %+v", err, b.runs)
	}
	j = jobOn(sample(t, 300, "real", 1), &XGBoost{Library: "/nonexistent"}, Params{Rounds: 3})
	if _, err := Train(t.Context(), "me", j, Record{}); !errors.Is(err, xgb.ErrNoLibrary) {
		t.Errorf("missing library: %v", err)
	}
}

// A run that is cancelled while its rows are read is cancelled, whatever the
// reader says of being cut off; one whose reader fails by itself has failed.
func TestCancelWhileRowsAreRead(t *testing.T) {
	cut := errors.New("could not read message body")
	for want, stop := range map[State]bool{Cancelled: true, Failed: false} {
		ctx, cancel := context.WithCancelCause(t.Context())
		j := Job{Name: "m", Backend: Linear{}, Source: func(context.Context) (*Matrix, model.Data, error) {
			if stop {
				cancel(errors.New("somebody pressed stop"))
			}
			return nil, model.Data{}, cut
		}}
		res, err := Train(ctx, "test", j, Record{})
		if res.Run.State != want || err == nil || strings.Contains(err.Error(), "pressed stop") != stop || errors.Is(err, cut) == stop {
			t.Errorf("want %s: %s, %v", want, res.Run.State, err)
		}
		cancel(nil)
	}
}
