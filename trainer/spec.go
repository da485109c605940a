package trainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
)

// JobKind is the registry's kind of [JobSpec].
const JobKind = "TrainingJob"

// JobSpec says how a model comes out of stored rows: which, how to learn from
// them, how to judge, and what becomes of a model that passes. Whoever runs it
// again gets the newest rows.
type JobSpec struct {
	Model     string        `json:"model,omitempty"` // default: the definition's name
	Data      DataSpec      `json:"data"`
	Split     SplitSpec     `json:"split,omitzero"`
	Backend   string        `json:"backend,omitempty"` // auto (default), xgboost, linear, command
	Command   string        `json:"command,omitempty"` // of backend command: its name in the server's configuration
	Params    Params        `json:"params,omitzero"`
	Search    *Search       `json:"search,omitempty"`
	Segments  []string      `json:"segments,omitempty"`
	Gate      Gate          `json:"gate,omitzero"`
	Register  *RegisterSpec `json:"register,omitempty"` // absent: a model that passes becomes a version
	Priority  int           `json:"priority,omitempty"` // larger first
	Resources Resources     `json:"resources,omitzero"`
	Triggers  []Trigger     `json:"triggers,omitempty"`
}

// DataSpec says which rows. Labels, or the labels of stored predictions, are
// joined with the features that were known then.
type DataSpec struct {
	Service     string         `json:"service,omitempty"`     // feature service; or
	Features    []string       `json:"features,omitempty"`    // view:feature
	Predictions string         `json:"predictions,omitempty"` // model whose labelled predictions are the rows; without features their recorded inputs are
	Labels      *LabelSpec     `json:"labels,omitempty"`      // or the rows of a view
	From        time.Time      `json:"from,omitzero"`
	To          time.Time      `json:"to,omitzero"`   // default: now
	Last        event.Duration `json:"last,omitzero"` // instead of from: this long before to
	Sample      float64        `json:"sample,omitempty"`
	Seed        uint64         `json:"seed,omitempty"` // of the sample
	Drop        []string       `json:"drop,omitempty"`
	Categories  []string       `json:"categories,omitempty"` // numeric inputs that are categories
	Monotone    map[string]int `json:"monotone,omitempty"`   // input → +1 or -1
	FullNames   bool           `json:"full_names,omitempty"` // inputs are named view__feature
}

// LabelSpec names a view's column as the truth about its key and time.
type LabelSpec struct {
	View   string         `json:"view"`
	Column string         `json:"column"`
	Weight string         `json:"weight,omitempty"`
	Lead   event.Duration `json:"lead,omitzero"` // features are those known this long before
}

// SplitSpec cuts by time: at shares of the rows, or at times.
type SplitSpec struct {
	Train        float64   `json:"train,omitempty"`      // default 0.7
	Validation   float64   `json:"validation,omitempty"` // default 0.15
	TrainTo      time.Time `json:"train_to,omitzero"`
	ValidationTo time.Time `json:"validation_to,omitzero"`
}

// Resources are what a run occupies while it trains.
type Resources struct {
	CPUs int `json:"cpus,omitempty"` // default 1; the back-end's threads
	GPUs int `json:"gpus,omitempty"` // default: 1 for trees that may use one where the namespace may take one
}

// RegisterSpec says what becomes of a model that passes its gate.
type RegisterSpec struct {
	Off    bool   `json:"off,omitempty"`    // only the artefact is kept
	Alias  string `json:"alias,omitempty"`  // moved to the new version, e.g. challenger
	Deploy string `json:"deploy,omitempty"` // shadow, canary or champion: changes the model's deployment
}

// Trigger starts a job without a person.
type Trigger struct {
	Every    event.Duration `json:"every,omitzero"`     // by schedule
	Alert    string         `json:"alert,omitempty"`    // by an open incident of this monitor's subject: drift, performance or any
	Severity string         `json:"severity,omitempty"` // least: notice, warning (default) or critical
	Cooldown event.Duration `json:"cooldown,omitzero"`  // default 1h: since the job's newest run
	Budget   int            `json:"budget,omitempty"`   // runs that triggers may start within 24h; default 24
}

// ParseJob reads a spec strictly and joins its faults.
func ParseJob(spec json.RawMessage) (*JobSpec, error) {
	j := &JobSpec{}
	if err := event.DecodeStrict(spec, j); err != nil {
		return nil, fmt.Errorf("training job: %w", err)
	}
	if err := errors.Join(j.faults()...); err != nil {
		return nil, fmt.Errorf("training job: %w", err)
	}
	return j, nil
}

func (j *JobSpec) faults() (faults []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	d := &j.Data
	check((d.Predictions == "") != (d.Labels == nil), "data: name predictions (a model) or labels (a view's column), one of them")
	check(d.Service == "" || len(d.Features) == 0, "data: name a service or features, not both")
	check(d.Labels == nil || d.Service != "" || len(d.Features) > 0, "data: labels need a service or features to be joined with")
	check(d.Labels == nil || d.Labels.View != "" && d.Labels.Column != "", "data: labels: want a view and a column")
	check(d.Labels == nil || d.Labels.Lead >= 0, "data: labels: lead: want no less than 0s")
	check(d.From.IsZero() || d.Last == 0, "data: from and last: choose one")
	check(d.To.IsZero() || d.From.IsZero() || d.From.Before(d.To), "data: from does not lie before to")
	check(d.Sample >= 0 && d.Sample <= 1, "data: sample %v: want a share from 0 to 1", d.Sample)
	s := &j.Split
	check(s.TrainTo.IsZero() == s.ValidationTo.IsZero(), "split: train_to and validation_to go together")
	check(s.TrainTo.IsZero() || !s.ValidationTo.Before(s.TrainTo), "split: validation_to lies before train_to")
	check(s.TrainTo.IsZero() || s.Train == 0 && s.Validation == 0, "split: shares or times, not both")
	check(s.Train >= 0 && s.Validation >= 0 && s.Train+s.Validation <= 1, "split: shares %v and %v: want no more than 1 together", s.Train, s.Validation)
	check(slices.Contains([]string{"", "auto", "xgboost", "linear", "command"}, j.Backend), "backend %q: want auto, xgboost, linear or command", j.Backend)
	check((j.Backend == "command") == (j.Command != ""), "command goes with backend command")
	check(slices.Contains([]model.Task{"", model.Binary, model.MultiClass, model.Regression, model.Quantiles}, j.Params.Task), "params: task %q: want binary, multiclass, regression or quantiles", j.Params.Task)
	check(slices.Contains([]Device{"", Auto, CPU, CUDA}, j.Params.Device), "params: device %q: want auto, cpu or cuda", j.Params.Device)
	check(j.Search == nil || j.Backend != "" && j.Backend != "auto", "search: choose a backend, or leave both to auto")
	if j.Search != nil {
		if err := j.Search.Space.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	check(j.Resources.CPUs >= 0 && j.Resources.GPUs >= 0, "resources: less than none")
	check(j.Resources.GPUs <= 1 || j.Backend == "command", "resources: %d GPUs: only a program (backend command) can use several", j.Resources.GPUs)
	if r := j.Register; r != nil {
		check(slices.Contains([]string{"", "shadow", "canary", "champion"}, r.Deploy), "register: deploy %q: want shadow, canary or champion", r.Deploy)
		check(!r.Off || r.Alias == "" && r.Deploy == "", "register: off beside an alias or a deployment")
	}
	for i, t := range j.Triggers {
		check((t.Every > 0) != (t.Alert != ""), "triggers: %d: want every (a schedule) or alert", i)
		check(t.Alert == "" || slices.Contains([]string{"drift", "performance", "any"}, t.Alert), "triggers: %d: alert %q: want drift, performance or any", i, t.Alert)
		check(slices.Contains([]string{"", "notice", "warning", "critical"}, t.Severity), "triggers: %d: severity %q: want notice, warning or critical", i, t.Severity)
		check(t.Cooldown >= 0 && t.Budget >= 0, "triggers: %d: a negative cool-down or budget", i)
	}
	return faults
}

// frozen is the job with its defaults, and with times that no clock moves any
// more: the same rows are meant whenever it is read.
func (j JobSpec) frozen(name string, now time.Time) JobSpec {
	if j.Model == "" {
		j.Model = name
	}
	if j.Backend == "" {
		j.Backend = "auto"
	}
	j.Resources.CPUs = max(j.Resources.CPUs, 1)
	d := &j.Data
	if d.To.IsZero() {
		d.To = now
	}
	if d.Last > 0 {
		d.From, d.Last = d.To.Add(-time.Duration(d.Last)), 0
	}
	d.From, d.To = d.From.UTC().Truncate(time.Microsecond), d.To.UTC().Truncate(time.Microsecond)
	if d.Seed == 0 {
		d.Seed = 1
	}
	j.Triggers = nil
	return j
}

// wantsGPUs is how many GPUs a run is to be given where its namespace may take
// so many: what it asks for, or the one that trees can use. A program gets what
// it asks for.
func (j *JobSpec) wantsGPUs(limit int) int {
	if j.Resources.GPUs > 0 || j.Params.Device == CPU || j.Backend == "linear" || j.Backend == "command" && j.Params.Device != CUDA {
		return j.Resources.GPUs
	}
	return min(1, limit)
}

// cut is the job's split of a matrix.
func (s SplitSpec) cut(m *Matrix) (Split, error) {
	if !s.TrainTo.IsZero() {
		return Split{TrainTo: s.TrainTo, ValidTo: s.ValidationTo}, nil
	}
	if s.Train == 0 && s.Validation == 0 {
		s.Train, s.Validation = 0.7, 0.15
	}
	return SplitByShare(m, s.Train, s.Validation)
}

// about says what a job reads, in a few words.
func (d *DataSpec) about() string {
	what := "predictions of " + d.Predictions
	if d.Labels != nil {
		what = d.Labels.View + "." + d.Labels.Column
	}
	if d.Service != "" {
		what += " with service " + d.Service
	} else if len(d.Features) > 0 {
		what += " with " + strings.Join(d.Features, ", ")
	}
	return what
}
