package script

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// day is when scenarios happen.
func day() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }

// clock reads "0930" or "093015".
func clock(s string) (time.Time, error) {
	layout := "1504"
	if len(s) == 6 {
		layout = "150405"
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return t, fmt.Errorf("time %q: want HHMM or HHMMSS", s)
	}
	return day().Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second), nil
}

// args are a command's arguments by name.
type args map[string]string

func argsOf(d *datadriven.TestData) args {
	out := args{}
	for _, a := range d.CmdArgs {
		out[a.Key] = strings.Join(a.Vals, ",")
	}
	return out
}

// take removes an argument, so that what is left over can be told.
func (a args) take(name, fallback string) string {
	v, ok := a[name]
	if !ok {
		return fallback
	}
	delete(a, name)
	return v
}

// batch is what one produce command asks for.
type batch struct {
	kind    event.Kind
	subject string
	rows    int
	at      time.Time
	over    time.Duration
	keys    int
	columns []column
}

type column struct {
	name string
	next func(r *rand.Rand, i int) event.Value
}

func parseBatch(d *datadriven.TestData) (b batch, err error) {
	if len(d.CmdArgs) == 0 {
		return b, fmt.Errorf("produce what?")
	}
	if b.kind, err = event.ParseKind(d.CmdArgs[0].Key); err != nil {
		return b, err
	}
	a := argsOf(d)
	delete(a, d.CmdArgs[0].Key)
	b.subject = a.take("view", a.take("model", ""))
	if b.rows, err = strconv.Atoi(a.take("rows", "1")); err != nil {
		return b, err
	}
	if b.keys, err = strconv.Atoi(a.take("keys", "10")); err != nil {
		return b, err
	}
	if b.over, err = time.ParseDuration(a.take("over", "1h")); err != nil {
		return b, err
	}
	if b.at, err = clock(a.take("at", "0900")); err != nil {
		return b, err
	}
	for _, c := range d.CmdArgs[1:] { // in the order written
		if text, ok := a[c.Key]; ok {
			next, err := generator(text)
			if err != nil {
				return b, fmt.Errorf("column %s: %w", c.Key, err)
			}
			b.columns = append(b.columns, column{c.Key, next})
		}
	}
	return b, nil
}

func generator(text string) (func(*rand.Rand, int) event.Value, error) {
	parts := strings.Split(text, ",")
	var nums []float64
	for _, p := range parts[1:] {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil {
			return nil, fmt.Errorf("generator %q: %w", text, err)
		}
		nums = append(nums, v)
	}
	switch {
	case parts[0] == "normal" && len(nums) == 2:
		return func(r *rand.Rand, _ int) event.Value { return event.Float(nums[0] + nums[1]*r.NormFloat64()) }, nil
	case parts[0] == "const" && len(nums) == 1:
		return func(*rand.Rand, int) event.Value { return event.Float(nums[0]) }, nil
	case parts[0] == "seq" && len(nums) == 0:
		return func(_ *rand.Rand, i int) event.Value { return event.Int(int64(i)) }, nil
	case parts[0] == "null" && len(nums) == 0:
		return func(*rand.Rand, int) event.Value { return event.Value{} }, nil
	}
	return nil, fmt.Errorf("generator %q: want normal,MEAN,DEVIATION or const,VALUE or seq or null", text)
}

// envelopes are the batch's events.
func (b batch) envelopes() [][]byte {
	r := rand.New(rand.NewPCG(uint64(b.at.Unix()), uint64(len(b.subject))))
	out := make([][]byte, b.rows)
	for i := range out {
		at := b.at.Add(b.over * time.Duration(i) / time.Duration(b.rows)).UnixMicro()
		id := fmt.Sprintf("%s-%d-%d", b.subject, b.at.Unix(), i)
		var values []event.NamedValue
		for _, c := range b.columns {
			values = append(values, event.NamedValue{Name: c.name, Value: c.next(r, i)})
		}
		out[i] = b.envelope(i, at, id, values)
	}
	return out
}

func (b batch) envelope(i int, at int64, id string, values []event.NamedValue) []byte {
	switch b.kind {
	case event.Predictions:
		score := 0.5
		return event.AppendPredictionJSON(nil, event.Prediction{Model: b.subject, Version: "1", ID: id, EventTime: at, Inputs: values, Output: event.Output{Score: &score}, Weight: 1})
	case event.Labels:
		number := float64(i % 2)
		return event.AppendLabelJSON(nil, event.Label{Model: b.subject, PredictionID: id, EventTime: at, Number: &number, Weight: 1})
	}
	key := []event.NamedValue{{Name: "id", Value: event.Int(int64(i % b.keys))}}
	return event.AppendFeatureJSON(nil, event.FeatureRow{View: b.subject, Key: key, EventTime: at, Values: values})
}

// parseQuery reads a request, which columns of the answer to show, and the name
// of the one frame to show; all when empty.
func parseQuery(d *datadriven.TestData) (r query.Request, show []string, frame string, err error) {
	if len(d.CmdArgs) == 0 {
		return r, nil, "", fmt.Errorf("query what?")
	}
	a := argsOf(d)
	r.Kind = d.CmdArgs[0].Key
	delete(a, r.Kind)
	r.View, r.Model, r.Version = a.take("view", ""), a.take("model", ""), a.take("version", "")
	r.Columns, show = list(a.take("columns", "")), list(a.take("show", ""))
	frame = strings.ReplaceAll(a.take("frame", ""), "_", " ")
	r.GroupBy = list(a.take("group-by", ""))
	for name, at := range map[string]*time.Time{"from": &r.From, "to": &r.To} {
		if text := a.take(name, ""); text != "" { // dead letters are of the day of the run
			if *at, err = clock(text); err != nil {
				return r, nil, "", err
			}
		}
	}
	if r.Limit, err = strconv.Atoi(a.take("limit", "0")); err != nil {
		return r, nil, "", err
	}
	step, err := time.ParseDuration(a.take("step", "0s"))
	r.Step = query.Duration(step)
	for left := range a {
		return r, nil, "", fmt.Errorf("query does not know %q", left)
	}
	return r, show, frame, err
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
