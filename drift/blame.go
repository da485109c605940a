package drift

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// causeWindows are how many of the newest windows a ranking of causes looks at
// where the request has no range.
const causeWindows = 200

// RootCause answers the kind "root_cause": the columns of a view or model in the
// order of suspicion, by how their drift moves with the model's loss and by how
// much they matter to it.
func (s *Scheduler) RootCause(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, w := range ws {
		f, err := s.rootCause(ctx, w, r)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (s *Scheduler) rootCause(ctx context.Context, w *watcher, r query.Request) (query.Frame, error) {
	m := w.monitor
	m.mu.Lock()
	ready, state, next, window, fitted := m.baselines != nil, m.state(), m.Next, m.cfg.Window, (*fit)(nil)
	if w.perf != nil {
		fitted = w.perf.fitted
	}
	m.mu.Unlock()
	if !ready {
		return query.Frame{}, fmt.Errorf("%w: %s: %s", store.ErrInvalid, m.cfg.Subject, state)
	}
	if fitted != nil {
		window = fitted.window
	}
	if r.From.IsZero() {
		r.From, r.To = next.Add(-causeWindows*window), next
	}
	ask := query.Request{Namespace: s.cfg.Namespace, View: r.View, Model: r.Model, From: r.From, To: r.To}
	frames, err := s.store.Drift(ctx, ask)
	if err != nil {
		return query.Frame{}, err
	}
	series := newCauseTable(window)
	for i := range frames {
		series.take(&frames[i], m.cfg.Name)
	}
	metric := ""
	if fitted != nil {
		metric = fitted.metric
		ask.Columns = []string{metric}
		if frames, err = s.store.Performance(ctx, ask); err != nil {
			return query.Frame{}, err
		}
		for i := range frames {
			series.takeLoss(&frames[i])
		}
	}
	causes := RankCauses(series.columns(m.importance), series.losses())
	if r.Limit <= 0 {
		r.Limit = 20
	}
	return causesFrame(m.cfg.Name, metric, causes[:min(r.Limit, len(causes))]), nil
}

// causeTable collects distances and losses by window.
type causeTable struct {
	window    time.Duration
	distances map[string]map[int64][]float64
	loss      map[int64]float64
	starts    map[int64]bool
}

func newCauseTable(window time.Duration) *causeTable {
	return &causeTable{window: window, distances: map[string]map[int64][]float64{}, loss: map[int64]float64{}, starts: map[int64]bool{}}
}

func frameColumn[T any](f *query.Frame, name string) []T {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]T); ok && c.Name == name {
			return v
		}
	}
	return nil
}

// take adds the distances of one column, in units of its floor.
func (t *causeTable) take(f *query.Frame, monitor string) {
	labels := f.Columns[len(f.Columns)-1].Labels
	if detector := labels["detector"]; labels["monitor"] != monitor || detector != "ks" && detector != "chi2" && detector != "missing_rate" {
		return
	}
	name, effects, floors := labels["column"], frameColumn[float64](f, "effect"), frameColumn[float64](f, "floor")
	if t.distances[name] == nil {
		t.distances[name] = map[int64][]float64{}
	}
	for i, at := range frameColumn[time.Time](f, "time") {
		k := at.Truncate(t.window).UnixMicro()
		t.starts[k] = true
		if floors[i] > 0 {
			t.distances[name][k] = append(t.distances[name][k], effects[i]/floors[i])
		}
	}
}

// takeLoss adds how far a model's metric is from the reference: what labels say
// once they are mature, else what is expected without them.
func (t *causeTable) takeLoss(f *query.Frame) {
	value, expected, reference := frameColumn[*float64](f, "value"), frameColumn[*float64](f, "expected"), frameColumn[*float64](f, "reference")
	mature := frameColumn[bool](f, "mature")
	for i, at := range frameColumn[time.Time](f, "time") {
		v := expected[i]
		if mature[i] && value[i] != nil {
			v = value[i]
		}
		if v != nil && reference[i] != nil {
			t.loss[at.UnixMicro()] = *v - *reference[i]
		}
	}
}

func (t *causeTable) order() []int64 {
	var out []int64
	for k := range t.starts {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// columns are the series of each column, the larger of its questions in every
// window.
func (t *causeTable) columns(importance func(string) float64) []CauseSeries {
	var out []CauseSeries
	for _, name := range sortedNames(t.distances) {
		c := CauseSeries{Column: name, Importance: importance(name)}
		for _, k := range t.order() {
			x := math.NaN()
			if v := t.distances[name][k]; len(v) > 0 {
				x = slices.Max(v)
			}
			c.Times = append(c.Times, x)
		}
		out = append(out, c)
	}
	return out
}

func (t *causeTable) losses() []float64 {
	var out []float64
	for _, k := range t.order() {
		x, ok := t.loss[k]
		if !ok {
			x = math.NaN()
		}
		out = append(out, x)
	}
	return out
}

func causesFrame(name, metric string, causes []Cause) query.Frame {
	var columns, sentences []string
	var score, times, p, importance []float64
	var correlation []*float64
	var windows []int64
	for _, c := range causes {
		columns, sentences = append(columns, c.Column), append(sentences, c.sentence(metric))
		score, times, p, importance = append(score, c.Score), append(times, c.Times), append(p, c.P), append(importance, c.Importance)
		var r *float64
		if present(c.Correlation) {
			r = &c.Correlation
		}
		correlation, windows = append(correlation, r), append(windows, int64(c.Windows))
	}
	number := func(name string, v []float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Values: some(v)}
	}
	return query.Frame{Name: name, Type: query.Table, Columns: []query.Column{
		{Name: "column", Type: query.Text, Values: some(columns)}, number("score", score), number("times", times),
		{Name: "correlation", Type: query.Float, Nullable: true, Values: some(correlation)}, number("p", p), number("importance", importance),
		{Name: "windows", Type: query.Int, Values: some(windows)}, {Name: "sentence", Type: query.Text, Values: some(sentences)}}}
}

func (c Cause) sentence(metric string) string {
	away := fmt.Sprintf("%s is %s its floor away", c.Column, timesText(c.Times))
	switch {
	case metric == "": // of a view, which nothing is measured of
		return away
	case !present(c.Correlation):
		return away + "; there are too few windows to say what it does to the model"
	}
	return fmt.Sprintf("%s; its drift moves with the change of %s (correlation %.2f over %d windows, p %.2g)", away, metric, c.Correlation, c.Windows, c.P)
}

// timesText is a multiple in plain digits: a column that never varied is
// hundreds of floors away as soon as it moves.
func timesText(x float64) string {
	if x >= 100 {
		return "more than 100 times"
	}
	return fmt.Sprintf("%.2g times", x)
}

// searchRows bounds the rows of either side of a search.
const searchRows = 20_000

// SegmentSearch answers the kind "segment_search": the slices of raw rows, told
// by one condition or two, in which a model's error rose most from reference to
// window, or in which a named numeric column moved most. Which ones are shown
// beyond chance is said by their adjusted p-value.
func (s *Scheduler) SegmentSearch(ctx context.Context, r query.Request) ([]query.Frame, error) {
	ws, err := s.mustAbout(r)
	if err != nil {
		return nil, err
	}
	var out []query.Frame
	for _, w := range ws {
		f, err := w.search(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (w *watcher) search(ctx context.Context, r query.Request) (query.Frame, error) {
	m := w.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.baselines == nil || m.cfg.File != "" {
		return query.Frame{}, fmt.Errorf("%w: %s: a search needs the rows of a reference (%s)", store.ErrInvalid, m.cfg.Subject, m.state())
	}
	if r.To.IsZero() {
		r.To = m.Next
	}
	if r.From.IsZero() {
		r.From = m.Next.Add(-m.cfg.Window * learnWindows)
	}
	if r.From.Before(m.cfg.To) {
		r.From = m.cfg.To
	}
	numbers, textual, err := w.searched(ctx)
	if err != nil {
		return query.Frame{}, err
	}
	o, what := DefaultSliceOptions(), ""
	var rows SliceRows
	switch {
	case len(r.Columns) == 1 && slices.Contains(numbers, r.Columns[0]):
		what = r.Columns[0]
		rows, err = w.movedRows(ctx, what, numbers, textual, r)
	case len(r.Columns) > 0:
		err = fmt.Errorf("%w: want one numeric column of %v", store.ErrInvalid, numbers)
	case w.perf == nil || w.perf.fitted == nil:
		err = fmt.Errorf("%w: %s has no labelled reference: name a numeric column to search by", store.ErrInvalid, m.cfg.Subject)
	default:
		what, o.Rising = "error", true
		rows, err = w.errorRows(ctx, numbers, textual, r)
	}
	if err != nil {
		return query.Frame{}, err
	}
	f := query.Frame{Name: m.cfg.Name, Type: query.Table}
	found, err := SearchSlices(rows, o)
	if err != nil { // too few rows are an answer
		f.Notices = append(f.Notices, query.Notice{Severity: "warning", Text: err.Error()})
	}
	if r.Limit > 0 {
		found = found[:min(r.Limit, len(found))]
	}
	f.Columns = slicesColumns(what, found)
	return f, nil
}

// searched are the columns that slices are told by.
func (w *watcher) searched(ctx context.Context) (numbers, textual []string, err error) {
	m := w.monitor
	for _, c := range m.cfg.Columns {
		_, described := event.ParseDescriptor(c.Name)
		switch {
		case m.refused[c.Name] != "" || c.Optional || described:
		case c.Categorical:
			textual = append(textual, c.Name)
		default:
			numbers = append(numbers, c.Name)
		}
	}
	dimensions, err := m.dimensions(ctx)
	if err != nil {
		return nil, nil, err
	}
	if m.cfg.Table.Kind == event.Predictions {
		dimensions = append([]string{"version"}, dimensions...)
	}
	for _, d := range dimensions {
		if !slices.Contains(textual, d) && !slices.Contains(numbers, d) {
			textual = append(textual, d)
		}
	}
	return numbers, textual, nil
}

// movedRows are rows of both sides with the value of a column, told by the
// others.
func (w *watcher) movedRows(ctx context.Context, column string, numbers, textual []string, r query.Request) (SliceRows, error) {
	m := w.monitor
	ref, err := m.store.SampleColumns(ctx, m.cfg.Table, numbers, textual, m.cfg.From, m.cfg.To, searchRows)
	if err != nil {
		return SliceRows{}, err
	}
	cur, err := m.store.SampleColumns(ctx, m.cfg.Table, numbers, textual, r.From, r.To, searchRows)
	if err != nil {
		return SliceRows{}, err
	}
	rows := sliceRows(ref, ref.Numbers[column], cur, cur.Numbers[column])
	delete(rows.Numbers, column) // a value always tells itself
	return rows, nil
}

// errorRows are labelled predictions of both sides with how wrong they were.
func (w *watcher) errorRows(ctx context.Context, numbers, textual []string, r query.Request) (SliceRows, error) {
	m, p := w.monitor, w.perf
	side := func(from, to time.Time) (*store.RowSample, []float64, error) {
		o, sample, err := m.store.OutcomesWith(ctx, p.table, p.join(), nil, numbers, textual, from, to, searchRows)
		if err != nil {
			return nil, nil, err
		}
		return sample, p.fitted.errors(o), nil
	}
	ref, before, err := side(m.cfg.From, m.cfg.To)
	if err != nil {
		return SliceRows{}, err
	}
	cur, now, err := side(r.From, r.To)
	if err != nil {
		return SliceRows{}, err
	}
	return sliceRows(ref, before, cur, now), nil
}

// errors are how wrong each prediction was: the distance of score or value from
// the label, 1 for a wrong class; NaN without a label.
func (f *fit) errors(o *store.Outcomes) []float64 {
	out := make([]float64, len(o.Time))
	for i := range out {
		out[i] = math.NaN()
		switch {
		case !o.There[i]:
		case f.task == "binary":
			out[i] = math.Abs(o.Score[i] - numberSaid(o, i))
		case f.task == "multiclass" && o.Class[i] != "" && classSaid(o, i) != "":
			out[i] = map[bool]float64{true: 1}[o.Class[i] != classSaid(o, i)]
		case f.task == "regression":
			out[i] = math.Abs(o.Value[i] - numberSaid(o, i))
		}
	}
	return out
}

// sliceRows puts both sides together, each in an order that says nothing.
func sliceRows(ref *store.RowSample, before []float64, cur *store.RowSample, now []float64) SliceRows {
	rng := rand.New(rand.NewPCG(uint64(ref.Rows), uint64(cur.Rows)))
	order := append(rng.Perm(ref.Rows), rng.Perm(cur.Rows)...)
	rows := SliceRows{Numbers: map[string][]float64{}, Texts: map[string][]string{}}
	for i, at := range order {
		side, worth := ref, before
		if i >= ref.Rows {
			side, worth = cur, now
		}
		rows.Worth, rows.Current = append(rows.Worth, worth[at]), append(rows.Current, i >= ref.Rows)
		for name, xs := range side.Numbers {
			rows.Numbers[name] = append(rows.Numbers[name], xs[at])
		}
		for name, words := range side.Texts {
			rows.Texts[name] = append(rows.Texts[name], words[at])
		}
	}
	return rows
}

func slicesColumns(what string, found []Slice) []query.Column {
	var names, sentences []string
	var rows []int64
	var shown []bool
	numbers := [7][]float64{}
	for _, s := range found {
		names, rows, shown = append(names, s.Name()), append(rows, int64(s.Rows)), append(shown, s.Adjusted <= 0.05)
		for i, x := range []float64{s.Support, s.Inside, s.Before, s.Effect, s.StdErr, s.Contribution, s.Adjusted} {
			if !present(x) {
				x = 0
			}
			numbers[i] = append(numbers[i], x)
		}
		sentences = append(sentences, fmt.Sprintf("%s: mean %s %.4g, was %.4g: it changed by %.4g more than in other rows; %.1f %% of rows", s.Name(), what, s.Inside, s.Before, s.Effect, 100*s.Support))
	}
	out := []query.Column{{Name: "slice", Type: query.Text, Values: some(names)}, {Name: "shown", Type: query.Bool, Values: some(shown)}, {Name: "rows", Type: query.Int, Values: some(rows)}}
	for i, name := range strings.Fields("support inside before effect stderr contribution adjusted") {
		c := query.Column{Name: name, Type: query.Float, Values: some(numbers[i])}
		if name == "support" {
			c.Unit = "percentunit"
		}
		out = append(out, c)
	}
	return append(out, query.Column{Name: "sentence", Type: query.Text, Values: some(sentences)})
}
