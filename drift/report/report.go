// Package report draws what drift found as one HTML page that needs nothing
// else: no script, no font, no server.
//
// [Gather] collects what it shows from the kinds of queries.
//
// Promises: every text is escaped; the page prints; colours differ in lightness
// too. May not: ask anybody but through what [Gather] is given.
package report

import (
	"cmp"
	_ "embed" // the page's template
	"html/template"
	"io"
	"math"
	"slices"
	"time"
)

//go:embed report.tmpl
var page string

// Data is what a page shows.
type Data struct {
	Title, Subtitle string
	Made            time.Time
	Facts           []Fact
	Notes           []string
	Columns         []Column
	Metrics         []Metric
	Incidents       []Incident
	Blame           []Blame
	Versus          *Versus // nil: about one model as a whole
}

// Versus is a version beside another one.
type Versus struct {
	Version, Against string
	Notes            []string
	Columns          []VersusColumn
	Metrics          []VersusMetric
}

// VersusColumn is a column that both met or answered.
type VersusColumn struct {
	Name, Sentence string
	Differs        bool // beyond chance
	Effect         float64
}

// VersusMetric is what both were worth. NaN stands for nothing.
type VersusMetric struct {
	Name                       string
	Value, Against, Difference float64
	Adjusted                   float64 // chance of such a difference among equals
}

// Fact is a number with its name, for the head of the page.
type Fact struct {
	Name, Value string
	Bad         bool
}

// Column is one watched column.
type Column struct {
	Name, Detector, Severity, Sentence string
	Drifted                            bool
	Effect, Floor                      float64
	Bins                               []Bin
	Series                             []Point // distance by window; Low is the floor
}

// Bin is a bin or category with the shares of the reference and of the window.
type Bin struct {
	Label    string
	Ref, Cur float64
}

// Metric is a performance metric over time: Value is realised, Expected is
// estimated, Low and High its band. NaN stands for nothing.
type Metric struct {
	Name      string
	Reference float64
	Points    []Point
}

// Point is one window.
type Point struct {
	At                         time.Time
	Value, Expected, Low, High float64
	Immature                   bool
}

// Incident is one line of the incidents' table.
type Incident struct {
	State, Severity, Column, Sentence, Who, Why string
	Opened                                      time.Time
	Ended                                       *time.Time
}

// Blame is a column, a segment or a slice of rows under suspicion.
type Blame struct {
	What     string // "segment", "cause", "slice"
	Sentence string
}

// Times is how many times farther out than it must be to count a column is.
func (c Column) Times() float64 {
	if c.Floor <= 0 {
		return 0
	}
	return c.Effect / c.Floor
}

// Write draws the page, the worst columns first.
func Write(w io.Writer, d Data) error {
	d.Columns = slices.Clone(d.Columns)
	slices.SortStableFunc(d.Columns, func(a, b Column) int {
		if a.Drifted != b.Drifted {
			return map[bool]int{true: -1, false: 1}[a.Drifted]
		}
		return cmp.Compare(b.Times(), a.Times())
	})
	t, err := template.New("report").Funcs(template.FuncMap{
		"bars": bars, "line": columnLine, "metric": metricLine, "g": number, "time": when, "overview": overview,
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, d)
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
