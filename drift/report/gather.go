package report

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// About says what a page is about: a view, or a model, a range of time, and of a
// model also two versions to be held against one another.
type About struct {
	View    string    `json:"view,omitempty"`
	Model   string    `json:"model,omitempty"`
	From    time.Time `json:"from,omitzero"` // zero: as each question has it
	To      time.Time `json:"to,omitzero"`
	Version string    `json:"version,omitempty"` // of a model, …
	Against string    `json:"against,omitempty"` // … held against this one
}

// Validate joins what is wrong with it.
func (a About) Validate() error {
	switch {
	case (a.View == "") == (a.Model == ""):
		return fmt.Errorf("report: want a view or a model")
	case (a.Version == "") != (a.Against == ""):
		return fmt.Errorf("report: want both version and against, or neither")
	case a.Version != "" && a.View != "":
		return fmt.Errorf("report: only a model has versions")
	case !a.From.IsZero() && !a.To.IsZero() && !a.From.Before(a.To):
		return fmt.Errorf("report: want from before to")
	}
	return nil
}

// ErrUnwatched says that nothing watches what a page is to be about.
var ErrUnwatched = errors.New("report: no monitor watches")

// Gather asks for everything that a page shows.
func Gather(ctx context.Context, about About, ask func(context.Context, query.Request) ([]query.Frame, error)) (*Data, error) {
	if err := about.Validate(); err != nil {
		return nil, err
	}
	d := &Data{Title: about.View + about.Model, Made: time.Now()}
	answers := map[string][]query.Frame{}
	optional := []string{"distribution", "segment_drift", "root_cause", "segment_search"} // a monitor that is learning has none
	kinds := append([]string{"monitors", "incidents", "verdicts", "drift"}, optional...)
	if about.Model != "" {
		kinds = append(kinds, "performance")
	}
	if about.Version != "" {
		kinds = append(kinds, "version_compare")
		d.Title += fmt.Sprintf(": version %s against %s", about.Version, about.Against)
	}
	for _, kind := range kinds {
		frames, err := ask(ctx, about.request(kind))
		if err != nil && !slices.Contains(optional, kind) {
			return nil, err
		}
		answers[kind] = frames
	}
	if first(answers["monitors"]).Rows() == 0 {
		return nil, fmt.Errorf("%w %s: kedge monitor list has what is", ErrUnwatched, about.View+about.Model)
	}
	fillHead(d, about, answers)
	fillVersus(d, about, answers["version_compare"])
	fillColumns(d, answers)
	fillMetrics(d, answers["performance"])
	fillBlame(d, answers)
	return d, nil
}

func (a About) request(kind string) query.Request {
	r := query.Request{Kind: kind, View: a.View, Model: a.Model, From: a.From, To: a.To}
	switch kind {
	case "verdicts":
		r.Limit = 10_000
	case "monitors", "distribution":
		r.From, r.To = time.Time{}, time.Time{}
	case "version_compare":
		r.Version = a.Version
		r.Params, _ = json.Marshal(map[string]string{"against": a.Against}) // two texts
	}
	return r
}

// fillVersus takes what differs beyond chance, and every metric of both.
func fillVersus(d *Data, about About, frames []query.Frame) {
	if len(frames) < 2 {
		return
	}
	v := &Versus{Version: about.Version, Against: about.Against}
	f := &frames[0]
	for _, n := range f.Notices {
		v.Notes = append(v.Notes, n.Text)
	}
	for _, n := range frames[1].Notices {
		v.Notes = append(v.Notes, n.Text)
	}
	differs, _ := values(f, "differs").([]bool)
	for i, name := range texts(f, "column") {
		v.Columns = append(v.Columns, VersusColumn{Name: name, Differs: differs[i], Effect: numberAt(f, "effect", i), Sentence: texts(f, "sentence")[i]})
	}
	f = &frames[1]
	for i, name := range texts(f, "metric") {
		v.Metrics = append(v.Metrics, VersusMetric{Name: name, Value: numberAt(f, "value", i), Against: numberAt(f, "against", i), Difference: numberAt(f, "difference", i), Adjusted: numberAt(f, "adjusted", i)})
	}
	d.Versus = v
}

// stretch says what a page is about, and from when to when.
func (a About) stretch() string {
	what := "view · "
	if a.Model != "" {
		what = "model · "
	}
	to := "now"
	if !a.To.IsZero() {
		to = when(a.To)
	}
	if a.From.IsZero() {
		return what
	}
	return what + when(a.From) + " to " + to + " · "
}

// length is a window's length without the parts that are nothing: 24h, 15m.
func length(d time.Duration) string {
	s := strings.TrimSuffix(d.String(), "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	if strings.HasSuffix(s, "h") || strings.HasSuffix(s, "m") {
		return s
	}
	return d.String()
}

func fillHead(d *Data, about About, answers map[string][]query.Frame) {
	m, inc := first(answers["monitors"]), first(answers["incidents"])
	open := 0
	for i, state := range texts(inc, "state") {
		one := Incident{State: state, Severity: texts(inc, "severity")[i], Column: texts(inc, "column")[i], Sentence: texts(inc, "sentence")[i], Who: texts(inc, "who")[i], Why: texts(inc, "why")[i]}
		if t, ok := timeAt(inc, "opened", i); ok {
			one.Opened = t
		}
		if t, ok := timeAt(inc, "ended", i); ok {
			one.Ended = &t
		} else {
			open++
		}
		d.Incidents = append(d.Incidents, one)
	}
	d.Facts = append(d.Facts, Fact{Name: "open incidents", Value: fmt.Sprint(open), Bad: open > 0})
	for i, state := range texts(m, "state") {
		d.Subtitle = about.stretch() + "held against " + cmp.Or(texts(m, "reference")[i], "nothing yet")
		d.Facts = append(d.Facts, Fact{Name: "monitor", Value: state, Bad: state != "watching"},
			Fact{Name: "columns watched", Value: fmt.Sprintf("%.0f", numberAt(m, "columns", i))},
			Fact{Name: "window", Value: length(time.Duration(numberAt(m, "window", i) * float64(time.Second)))})
		break
	}
}

// fillColumns takes the newest verdict of every column, its series and its
// bins.
func fillColumns(d *Data, answers map[string][]query.Frame) {
	v := first(answers["verdicts"])
	index := map[string]int{}
	for i, column := range texts(v, "column") {
		detector := texts(v, "detector")[i]
		if detector != "ks" && detector != "chi2" {
			continue
		}
		if _, seen := index[column]; seen {
			continue
		}
		index[column] = len(d.Columns)
		drifted := false
		if b, ok := values(v, "drifted").([]bool); ok {
			drifted = b[i]
		}
		d.Columns = append(d.Columns, Column{Name: column, Detector: detector, Severity: texts(v, "severity")[i], Sentence: texts(v, "sentence")[i], Drifted: drifted,
			Effect: numberAt(v, "effect", i), Floor: numberAt(v, "floor", i)})
	}
	for i := range answers["drift"] {
		f := &answers["drift"][i]
		at, ok := index[f.Name]
		if !ok || len(f.Columns) < 3 || f.Columns[1].Labels["detector"] != d.Columns[at].Detector {
			continue
		}
		for row := range f.Rows() {
			if t, ok := timeAt(f, "time", row); ok {
				d.Columns[at].Series = append(d.Columns[at].Series, Point{At: t, Value: numberAt(f, "effect", row), Low: numberAt(f, "floor", row)})
			}
		}
	}
	for i := range answers["distribution"] {
		f := &answers["distribution"][i]
		at, ok := index[f.Name]
		if !ok || len(d.Columns[at].Bins) > 0 {
			continue
		}
		for row, label := range texts(f, "bin") {
			d.Columns[at].Bins = append(d.Columns[at].Bins, Bin{Label: label, Ref: numberAt(f, "reference", row), Cur: numberAt(f, "window", row)})
		}
	}
}

// fillMetrics draws what people look at first; counts are left to the tables.
func fillMetrics(d *Data, frames []query.Frame) {
	for _, name := range []string{"roc_auc", "accuracy", "mae", "rmse", "r2", "average_precision", "f1", "precision", "recall", "kappa", "log_loss", "brier", "calibration_error", "selection_rate"} {
		for i := range frames {
			if frames[i].Name == name {
				fillMetric(d, &frames[i])
			}
		}
	}
}

func fillMetric(d *Data, f *query.Frame) {
	m := Metric{Name: f.Name, Reference: math.NaN()}
	for row := range f.Rows() {
		t, ok := timeAt(f, "time", row)
		if !ok {
			continue
		}
		mature, _ := values(f, "mature").([]bool)
		m.Points = append(m.Points, Point{At: t, Value: numberAt(f, "value", row), Expected: numberAt(f, "expected", row), Low: numberAt(f, "lower", row), High: numberAt(f, "upper", row),
			Immature: row < len(mature) && !mature[row]})
		m.Reference = numberAt(f, "reference", row)
	}
	d.Metrics = append(d.Metrics, m)
}

func first(frames []query.Frame) *query.Frame {
	if len(frames) == 0 {
		return &query.Frame{}
	}
	return &frames[0]
}

// values are a column's, or nil.
func values(f *query.Frame, name string) any {
	for _, c := range f.Columns {
		if c.Name == name {
			return c.Values
		}
	}
	return nil
}

func texts(f *query.Frame, name string) []string {
	v, _ := values(f, name).([]string)
	return v
}

func timeAt(f *query.Frame, name string, row int) (time.Time, bool) {
	switch v := values(f, name).(type) {
	case []time.Time:
		return v[row], true
	case []*time.Time:
		if v[row] != nil {
			return *v[row], true
		}
	}
	return time.Time{}, false
}

// numberAt is NaN where there is none.
func numberAt(f *query.Frame, name string, row int) float64 {
	switch v := values(f, name).(type) {
	case []float64:
		return v[row]
	case []*float64:
		if v[row] != nil {
			return *v[row]
		}
	case []int64:
		return float64(v[row])
	case []uint64:
		return float64(v[row])
	}
	return math.NaN()
}

// blamed is how many of each sort a page names.
const blamed = 5

// fillBlame names what is to blame, where something is.
func fillBlame(d *Data, answers map[string][]query.Frame) {
	name := func(what, sentence string) { d.Blame = append(d.Blame, Blame{What: what, Sentence: sentence}) }
	f := first(answers["segment_drift"])
	drifted, _ := values(f, "drifted").([]bool)
	seen := map[string]bool{}
	for i, segment := range texts(f, "segment") {
		key := segment + "/" + texts(f, "column")[i]
		if drifted[i] && !seen[key] && len(seen) < blamed { // the newest window of each
			seen[key] = true
			name("segment", texts(f, "sentence")[i])
		}
	}
	f = first(answers["segment_search"])
	shown, _ := values(f, "shown").([]bool)
	for i, is := range shown[:min(len(shown), blamed)] {
		if is {
			name("slice", texts(f, "sentence")[i])
		}
	}
	f = first(answers["root_cause"])
	sentences := texts(f, "sentence")
	for i, sentence := range sentences[:min(len(sentences), blamed)] {
		if numberAt(f, "times", i) > 1 || numberAt(f, "correlation", i) > 0.5 {
			name("cause", sentence)
		}
	}
}
