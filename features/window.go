package features

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// WindowViewKind is the registry kind of views whose features are aggregated
// from the rows of another view.
const WindowViewKind = "WindowView"

// WindowSpec defines a window view: features aggregated, per key, from the rows
// of a source view over the time before they are asked for. Every row of the
// source is one event; nulls and NaN are not aggregated.
//
// A window reaches from T back to T − window, rounded down to a multiple of its
// hop (window/60, at least a second and at most a day); at T it is exact to the
// event. Both ends are included.
type WindowSpec struct {
	event.Ownership `yaml:",inline"`
	Source          string          `json:"source" yaml:"source"` // a feature view; its keys are this view's
	Features        []WindowFeature `json:"features" yaml:"features"`
}

// WindowFeature is one aggregate.
type WindowFeature struct {
	Name     string         `json:"name" yaml:"name"`
	Function string         `json:"function" yaml:"function"`                 // see windowFunctions
	Column   string         `json:"column,omitempty" yaml:"column,omitempty"` // of the source; count goes without
	Window   event.Duration `json:"window" yaml:"window"`                     // 1m to 90d
}

const (
	minWindow      = time.Minute
	maxWindow      = 90 * 24 * time.Hour
	maxWindowText  = 1024      // bytes of a text that first and last keep; longer ones are not aggregated
	maxWindowBytes = 4 << 20   // of one key at most, all tiles in use
	maxWindowNames = 500       // features of one window view
	noTime         = minTime   // a key without events
	hopsPerWindow  = 60        // the tail is rounded to a sixtieth of the window
	second         = 1_000_000 // µs
	day            = 86_400 * second
)

// accumulation is what a tile keeps of a column.
type accumulation uint8

const (
	accCount    accumulation = iota // values
	accSum                          // values and their sum
	accSquares                      // and the sum of their squares
	accMin                          // the smallest value
	accMax                          // the largest
	accFirst                        // the value of the oldest event, by the comparator
	accLast                         // of the newest
	accDistinct                     // registers of a HyperLogLog
)

// windowFunctions are the functions, by the names that definitions use.
func windowFunctions() map[string]accumulation {
	return map[string]accumulation{"count": accCount, "sum": accSum, "mean": accSum, "stddev": accSquares, "min": accMin,
		"max": accMax, "first": accFirst, "last": accLast, "distinct": accDistinct}
}

// ParseWindow reads a window view from JSON or YAML, strictly. Whether its
// source has the columns is seen when it is linked with it.
func ParseWindow(b []byte) (*WindowSpec, error) {
	s := &WindowSpec{}
	if err := decodeStrict(b, s); err != nil {
		return nil, fmt.Errorf("window view: %w", err)
	}
	var errs []error
	if s.Source == "" {
		errs = append(errs, errors.New("source: name the feature view whose rows are aggregated"))
	}
	if len(s.Features) == 0 || len(s.Features) > maxWindowNames {
		errs = append(errs, fmt.Errorf("features: %d; want 1 to %d", len(s.Features), maxWindowNames))
	}
	seen := map[string]bool{}
	for _, f := range s.Features {
		errs = append(errs, f.check())
		if seen[f.Name] {
			errs = append(errs, fmt.Errorf("feature %q is defined twice", f.Name))
		}
		seen[f.Name] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("window view: %w", err)
	}
	return s, nil
}

func (f *WindowFeature) check() error {
	if err := event.CheckName(f.Name); err != nil {
		return err
	}
	if _, ok := windowFunctions()[f.Function]; !ok {
		return fmt.Errorf("feature %s: function %q: want count, sum, mean, stddev, min, max, first, last or distinct", f.Name, f.Function)
	}
	if f.Column == "" && f.Function != "count" {
		return fmt.Errorf("feature %s: %s needs a column", f.Name, f.Function)
	}
	if w := time.Duration(f.Window); w < minWindow || w > maxWindow {
		return fmt.Errorf("feature %s: window %v: want 1m to 90d", f.Name, w)
	}
	return nil
}

// windowPlan is a window view compiled against its source. It is immutable.
type windowPlan struct {
	source  *event.Schema
	columns []windowColumn // of the source that are aggregated
	windows []windowOf     // longest first
	outputs []windowOutput // in the definition's order
	schema  *event.Schema  // of the features
	layout  *layout        // of the features
}

type windowColumn struct {
	name string
	typ  event.ColumnType
}

// windowOf is one length of window and what its tiles keep.
type windowOf struct {
	length, hop int64 // µs
	accs        []accumulator
}

type accumulator struct {
	acc    accumulation
	column int // windowPlan.columns; -1: the event itself
	float  bool
	text   bool
}

// windowOutput says where a feature's value comes from.
type windowOutput struct {
	function    string
	window, acc int
}

// hopOf is the step that a window's tail is rounded to.
func hopOf(window int64) int64 { return min(max(window/hopsPerWindow, second), day) }

// from is the time at which the window that ends at t begins.
func (w *windowOf) from(t int64) int64 { return floorDiv(t-w.length, w.hop) * w.hop }

// compileWindow resolves a window view. uid is the definition's own.
func compileWindow(spec *WindowSpec, source *event.Schema, name string, uid uint64) (*windowPlan, error) {
	p := &windowPlan{source: source}
	for _, f := range spec.Features {
		if l := f.Window; !slices.ContainsFunc(p.windows, func(w windowOf) bool { return w.length == micros(l) }) {
			p.windows = append(p.windows, windowOf{length: micros(l), hop: hopOf(micros(l))})
		}
	}
	slices.SortFunc(p.windows, func(a, b windowOf) int { return int(b.length/second - a.length/second) })
	var values []event.Field
	for _, f := range spec.Features {
		typ, err := p.addFeature(f)
		if err != nil {
			return nil, fmt.Errorf("feature %s: %w", f.Name, err)
		}
		values = append(values, event.Field{Name: f.Name, Type: typ})
	}
	if n := p.maxBytes(); n > maxWindowBytes {
		return nil, fmt.Errorf("one key could take %d bytes, at most %d: define fewer features or split the view", n, maxWindowBytes)
	}
	p.schema = event.NewSchema(event.Features, source.Namespace, name, uid, slices.Clone(source.Keys()), values)
	p.layout = newLayout(p.schema)
	return p, nil
}

func micros(d event.Duration) int64 { return time.Duration(d).Microseconds() }

func (p *windowPlan) addFeature(f WindowFeature) (event.ColumnType, error) {
	a := accumulator{acc: windowFunctions()[f.Function], column: -1}
	typ := event.ColumnType{Elem: event.Int64}
	if f.Column != "" {
		at := slices.IndexFunc(p.source.Values(), func(c event.Field) bool { return c.Name == f.Column })
		if at < 0 {
			return typ, fmt.Errorf("the source has no column %q", f.Column)
		}
		c := p.source.Values()[at]
		var err error
		if typ, err = resultType(a.acc, f.Function, c.Type); err != nil {
			return typ, fmt.Errorf("%s of column %s: %w", f.Function, f.Column, err)
		}
		a.column, a.text = p.addColumn(c), fixedWidth(c.Type) < 0
		a.float = c.Type.Elem == event.Float32 || c.Type.Elem == event.Float64
	}
	w := slices.IndexFunc(p.windows, func(w windowOf) bool { return w.length == micros(f.Window) })
	accs := &p.windows[w].accs
	at := slices.Index(*accs, a)
	if at < 0 {
		at = len(*accs)
		*accs = append(*accs, a)
	}
	p.outputs = append(p.outputs, windowOutput{f.Function, w, at})
	return typ, nil
}

func (p *windowPlan) addColumn(f event.Field) int {
	c := windowColumn{f.Name, f.Type}
	if i := slices.Index(p.columns, c); i >= 0 {
		return i
	}
	p.columns = append(p.columns, c)
	return len(p.columns) - 1
}

// resultType is the type of a function of a column, if it has one.
func resultType(a accumulation, function string, c event.ColumnType) (event.ColumnType, error) {
	whole, number := event.ColumnType{Elem: event.Int64}, event.ColumnType{Elem: event.Float64}
	switch {
	case c.List || c.Elem == event.Unknown || c.Elem == event.JSON || c.Elem == event.Bytes:
		return c, fmt.Errorf("type %s cannot be aggregated", c)
	case a == accCount, a == accDistinct:
		return whole, nil
	case a == accFirst, a == accLast:
		return c, nil
	case c.Elem == event.String, c.Elem == event.Bool:
		return c, fmt.Errorf("type %s has no %s", c, function)
	case a == accMin, a == accMax:
		return c, nil
	case c.Elem == event.Timestamp:
		return c, fmt.Errorf("type %s has no %s", c, function)
	}
	return number, nil
}

// reach is how far back the longest window goes, its rounding included.
func (p *windowPlan) reach() int64 { return p.windows[0].length + p.windows[0].hop }

// maxBytes is what one key takes when every tile is in use and every register
// and text at its largest.
func (p *windowPlan) maxBytes() int {
	n := windowHeader
	for _, w := range p.windows {
		tile := 8
		for _, a := range w.accs {
			tile += a.maxSize()
		}
		n += 2 + int(w.length/w.hop+2)*tile
	}
	return n
}

// same reports whether two plans keep the same state, so that the rows of one
// can be read by the other.
func (p *windowPlan) same(o *windowPlan) bool {
	return o != nil && p.source.TableID == o.source.TableID && slices.Equal(p.columns, o.columns) && slices.Equal(p.outputs, o.outputs) &&
		sameShape(p.schema, o.schema) && slices.EqualFunc(p.windows, o.windows, func(a, b windowOf) bool {
		return a.length == b.length && slices.Equal(a.accs, b.accs)
	})
}
