// Package expr evaluates alert rules as Grafana's server-side expressions do, so
// that a rule is tested before it is trusted. It is for tests: the product
// evaluates its rules in alerts/push.
package expr

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dataplane/sdata/numeric"
	"github.com/grafana/dataplane/sdata/timeseries"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/alerts"
)

// Instance is one label set of a rule and whether its condition holds.
type Instance struct {
	Labels data.Labels
	Value  float64
	Firing bool
	NoData bool // it was there, but without a value
}

// Outcome is one evaluation of a rule. Err and NoData exclude instances.
type Outcome struct {
	Instances []Instance
	NoData    bool
	Err       error
}

// value is one number, or the series that it is still to be made of.
type value struct {
	labels data.Labels
	number *float64
	series []float64
}

// Evaluate runs a rule's steps over the frames that its question was answered
// with, as Grafana's expressions do: numbers and series by the data plane's own
// readers, then reduce and threshold. An empty answer is no data; an answer
// that cannot be read, and two instances of the same labels, are errors.
func Evaluate(r alerts.FileRule, frames data.Frames, err error) Outcome {
	if err != nil {
		return Outcome{Err: err}
	}
	steps := map[string][]value{}
	for _, q := range r.Data {
		var out []value
		switch kind, _ := q.Model["type"].(string); {
		case q.DatasourceUID != alerts.Expression:
			out, err = read(frames)
		case kind == "reduce":
			out, err = reduce(q.Model, steps)
		case kind == "threshold":
			out, err = threshold(q.Model, steps)
		default:
			err = fmt.Errorf("step %s: %q is no expression that rules here use", q.RefID, kind)
		}
		if err != nil {
			return Outcome{Err: err}
		}
		steps[q.RefID] = out
	}
	return conclude(steps[r.Condition], steps["A"])
}

// read turns frames into values, by the type that they say they have.
func read(frames data.Frames) ([]value, error) {
	var series, numbers data.Frames
	for _, f := range frames {
		if len(f.Fields) == 0 {
			continue
		}
		if f.Meta == nil || f.Meta.TypeVersion.IsZero() {
			return nil, fmt.Errorf("frame %q says no type and version", f.Name)
		}
		switch f.Meta.Type {
		case data.FrameTypeTimeSeriesWide, data.FrameTypeTimeSeriesMulti:
			series = append(series, f)
		case data.FrameTypeNumericLong, data.FrameTypeNumericWide, data.FrameTypeNumericMulti:
			numbers = append(numbers, f)
		default:
			if f.Meta.DataTopic != data.DataTopicAnnotations {
				return nil, fmt.Errorf("frame %q is a %s: input data must be series or numbers", f.Name, f.Meta.Type)
			}
		}
	}
	if len(numbers) > 1 || len(numbers) > 0 && len(series) > 0 { // as Grafana 9.4 was seen to say it of two frames of numbers
		return nil, errors.New("input data must be a wide series but got type not")
	}
	if len(numbers) > 0 {
		return readNumbers(numbers)
	}
	return readSeries(series)
}

func readNumbers(frames data.Frames) ([]value, error) {
	r, err := numeric.CollectionReaderFromFrames(frames)
	if err != nil {
		return nil, err
	}
	c, err := r.GetCollection(false)
	if err != nil {
		return nil, err
	}
	var out []value
	for _, ref := range c.Refs {
		n, _, err := ref.NullableFloat64Value()
		if err != nil {
			return nil, err
		}
		out = append(out, value{labels: ref.GetLabels(), number: n})
	}
	return out, nil
}

func readSeries(frames data.Frames) ([]value, error) {
	if len(frames) == 0 {
		return nil, nil
	}
	r, err := timeseries.CollectionReaderFromFrames(frames)
	if err != nil {
		return nil, err
	}
	c, err := r.GetCollection(false)
	if err != nil {
		return nil, err
	}
	var out []value
	for _, ref := range c.Refs {
		v := value{labels: ref.GetLabels(), series: []float64{}}
		n, err := ref.Len()
		if err != nil {
			return nil, err
		}
		for i := range n {
			_, f, err := ref.NullableFloat64Point(i)
			if err != nil {
				return nil, err
			}
			if f != nil && !math.IsNaN(*f) && !math.IsInf(*f, 0) { // mode dropNN
				v.series = append(v.series, *f)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// reduce makes one number of each series; of an empty one there is none.
func reduce(model map[string]any, steps map[string][]value) ([]value, error) {
	if settings, _ := model["settings"].(map[string]any); settings["mode"] != "dropNN" {
		return nil, errors.New("reduce: rules here drop what is no number")
	}
	var out []value
	for _, v := range steps[fmt.Sprint(model["expression"])] {
		if v.series == nil {
			return nil, errors.New("reduce: can only reduce series, got a number")
		}
		r := value{labels: v.labels}
		if len(v.series) > 0 {
			n, err := reduced(fmt.Sprint(model["reducer"]), v.series)
			if err != nil {
				return nil, err
			}
			r.number = &n
		}
		out = append(out, r)
	}
	return out, nil
}

func reduced(how string, v []float64) (float64, error) {
	switch how {
	case "last":
		return v[len(v)-1], nil
	case "max":
		return slices.Max(v), nil
	case "min":
		return slices.Min(v), nil
	case "mean":
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		return sum / float64(len(v)), nil
	}
	return 0, fmt.Errorf("reduce: no reducer %q", how)
}

// threshold makes 1 or 0 of each number.
func threshold(model map[string]any, steps map[string][]value) ([]value, error) {
	conditions, _ := model["conditions"].([]any)
	if len(conditions) != 1 {
		return nil, errors.New("threshold: want one condition")
	}
	condition, _ := conditions[0].(map[string]any)
	evaluator, _ := condition["evaluator"].(map[string]any)
	params, _ := evaluator["params"].([]any)
	asked, _ := condition["query"].(map[string]any)
	if evaluator["type"] != "gt" || len(params) != 1 || asked["params"] == nil {
		return nil, errors.New("threshold: want gt with one parameter, and query.params, without which older rule editors crash")
	}
	var limit float64
	if _, err := fmt.Sscan(fmt.Sprint(params[0]), &limit); err != nil {
		return nil, fmt.Errorf("threshold: %w", err)
	}
	var out []value
	for _, v := range steps[fmt.Sprint(model["expression"])] {
		if v.series != nil {
			return nil, errors.New("threshold: a series must be reduced first")
		}
		t := value{labels: v.labels}
		if v.number != nil {
			n := 0.0
			if *v.number > limit {
				n = 1
			}
			t.number = &n
		}
		out = append(out, t)
	}
	return out, nil
}

func conclude(condition, asked []value) Outcome {
	if len(condition) == 0 {
		return Outcome{NoData: true}
	}
	var o Outcome
	seen := map[string]bool{}
	for i, v := range condition {
		if key := v.labels.String(); seen[key] {
			return Outcome{Err: fmt.Errorf("duplicate results with labels {%s}", key)}
		} else {
			seen[key] = true
		}
		inst := Instance{Labels: v.labels, NoData: v.number == nil, Firing: v.number != nil && *v.number != 0}
		if i < len(asked) && asked[i].number != nil {
			inst.Value = *asked[i].number
		}
		o.Instances = append(o.Instances, inst)
	}
	return o
}

// Watch is the state of one rule between evaluations.
type Watch struct {
	rule  alerts.FileRule
	known map[string]*held // by labels
	hold  time.Duration
}

// held is a label set whose condition held at the last evaluation that named it.
type held struct {
	labels  data.Labels
	since   time.Time // the condition holds
	missing int       // evaluations in a row that did not name it
}

// NewWatch begins to watch a rule.
func NewWatch(r alerts.FileRule) (*Watch, error) {
	hold, err := time.ParseDuration(r.For)
	if err != nil {
		return nil, fmt.Errorf("rule %s: for: %w", r.UID, err)
	}
	return &Watch{rule: r, known: map[string]*held{}, hold: hold}, nil
}

// Step takes an evaluation and answers which label sets alert now, with the
// rule's own labels. testdata holds what a Grafana was recorded to do: having no
// data and failing are label sets of their own, DatasourceNoData and
// DatasourceError, at once and whatever the rule's patience, or the rule's own
// where it is told to alert then; a label set that is not named any more is
// forgotten at the second evaluation without it.
func (w *Watch) Step(o Outcome, now time.Time) []data.Labels {
	named := map[string]bool{}
	w.special(o, now, named)
	for _, i := range o.Instances {
		l := w.labels(i.Labels)
		named[l.String()] = true
		switch {
		case i.Firing:
			w.put(l, now)
		case !i.NoData:
			delete(w.known, l.String())
		}
	}
	var out []data.Labels
	for key, h := range w.known {
		if h.missing++; named[key] {
			h.missing = 0
		}
		if h.missing >= 2 {
			delete(w.known, key)
		} else if now.Sub(h.since) >= w.hold {
			out = append(out, h.labels)
		}
	}
	slices.SortFunc(out, func(a, b data.Labels) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (w *Watch) put(l data.Labels, since time.Time) {
	if w.known[l.String()] == nil {
		w.known[l.String()] = &held{labels: l, since: since}
	}
}

// special is what having no data and failing come to.
func (w *Watch) special(o Outcome, now time.Time, named map[string]bool) {
	name, state := "DatasourceNoData", w.rule.NoDataState
	switch {
	case o.Err != nil:
		name, state = "DatasourceError", w.rule.ExecErrState
	case !o.NoData:
		return
	}
	switch state {
	case alerts.StateOK:
	case alerts.StateAlerting:
		l := w.labels(nil)
		named[l.String()] = true
		w.put(l, now)
	default:
		l := data.Labels{"alertname": name, "rulename": w.rule.Title}
		named[l.String()] = true
		w.put(l, now.Add(-w.hold)) // nobody is patient with it
	}
}

// labels are an instance's and the rule's own.
func (w *Watch) labels(of data.Labels) data.Labels {
	l := data.Labels{"alertname": w.rule.Title}
	for _, from := range []map[string]string{of, w.rule.Labels} {
		for k, v := range from {
			l[k] = v
		}
	}
	return l
}
