package files

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
)

// Options are the knobs of a comparison of two files.
type Options struct {
	Columns    []string           // none: all that both files have
	Ignore     []string           // columns to leave out
	Alpha      float64            // false discovery rate among the columns
	Floor      float64            // distance that counts as relevant
	Floors     map[string]float64 // of single columns
	Categories []string           // numeric columns that are categories
	Preset     string             // "": Kedge's judgement; else [Evidently] or [NannyML], which know nothing of the knobs above
	Chunk      int                // rows of NannyML's chunks; 0: a tenth of each file
	Detectors  bool               // say what every detector finds in the rows
}

// DefaultOptions are those of a monitor that has not learnt a floor yet.
func DefaultOptions() Options {
	o := drift.DefaultOptions()
	return Options{Alpha: o.Alpha, Floor: o.Fallback}
}

// Compared is what is said of one column.
type Compared struct {
	Column        string               `json:"column"`
	Kind          string               `json:"kind"` // numeric or categorical
	Detector      string               `json:"detector"`
	Drifted       bool                 `json:"drifted"`
	Severity      string               `json:"severity"`
	Effect        float64              `json:"effect"`
	Floor         float64              `json:"floor"`
	P             float64              `json:"p"` // after correction for many columns
	PSI           *float64             `json:"psi,omitempty"`
	JS            *float64             `json:"js,omitempty"`
	Wasserstein   *float64             `json:"wasserstein_normed,omitempty"`
	ReferenceMean *float64             `json:"reference_mean,omitempty"`
	Mean          *float64             `json:"mean,omitempty"`
	MissingBefore float64              `json:"reference_missing"`
	Missing       float64              `json:"missing"`
	Reason        string               `json:"reason,omitempty"` // why there is no answer
	Sentence      string               `json:"sentence"`
	Bins          []drift.Contribution `json:"bins,omitempty"`
	Detectors     []Detected           `json:"detectors,omitempty"`
}

// Result is the comparison of two files.
type Result struct {
	ReferenceRows int64      `json:"reference_rows"`
	Rows          int64      `json:"rows"`
	Drifted       int        `json:"drifted"`
	Columns       []Compared `json:"columns"`
	OnlyReference []string   `json:"only_reference,omitempty"`
	OnlyNew       []string   `json:"only_new,omitempty"`
	Lists         []string   `json:"lists,omitempty"` // columns that are not compared: a row has several values of them
}

// Compare holds the second file against the first. Columns are read one at a
// time, as many at once as there are processors.
func Compare(a, b *Table, o Options) (*Result, error) {
	both, onlyA, onlyB := Common(a, b)
	out := &Result{ReferenceRows: a.Rows(), Rows: b.Rows(), OnlyReference: onlyA, OnlyNew: onlyB}
	out.Lists = append(append(out.Lists, a.lists...), b.lists...)
	slices.Sort(out.Lists)
	out.Lists = slices.Compact(out.Lists)
	var names []string
	for _, n := range both {
		if !contains(o.Ignore, n) && (len(o.Columns) == 0 || contains(o.Columns, n)) {
			names = append(names, n)
		}
	}
	for _, n := range o.Columns {
		if !contains(both, n) {
			return nil, fmt.Errorf("column %q is not in both files", n)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the files have no column in common: the reference has %s, the new file %s", listed(onlyA), listed(onlyB))
	}
	if a.Rows() == 0 || b.Rows() == 0 {
		return nil, fmt.Errorf("%d rows in the reference, %d in the new file: there is nothing to compare", a.Rows(), b.Rows())
	}
	var err error
	if out.Columns, err = compareAll(a, b, names, o); err != nil {
		return nil, err
	}
	for _, c := range out.Columns {
		if c.Drifted {
			out.Drifted++
		}
	}
	return out, nil
}

// listed are the first of some names.
func listed(names []string) string {
	const most = 8
	if len(names) == 0 {
		return "none that can be read"
	}
	out := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		out += ", …"
	}
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// compareAll reads as many columns at once as there are processors, and judges
// them together.
func compareAll(a, b *Table, names []string, o Options) ([]Compared, error) {
	columns, reasons, errs := make([]drift.Column, len(names)), make([]string, len(names)), make([]error, len(names))
	detected, out, changed := make([][]Detected, len(names)), make([]Compared, len(names)), make([]string, len(names))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ref, cur, mixed, err := sides(a, b, name, contains(o.Categories, name))
			if errs[i] = err; err != nil {
				return
			}
			if o.Detectors {
				detected[i] = detectAll(ref, cur)
			}
			if o.Preset != "" {
				out[i] = preset(ref, cur, name, o)
				return
			}
			columns[i], reasons[i], errs[i] = prepare(ref, cur, name)
			changed[i] = mixed
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Preset == "" {
		out = judge(names, columns, reasons, o)
	}
	for i, mixed := range changed {
		switch {
		case mixed == "":
		case out[i].Drifted:
			out[i].Sentence += "; " + mixed
		case reasons[i] != "":
			out[i] = Compared{Column: names[i], Detector: "type", Drifted: true, Severity: control.Critical.String(), Sentence: names[i] + " has another type: " + mixed}
		}
	}
	for i := range out {
		out[i].Detectors = detected[i]
	}
	return out, nil
}

// sides reads both files' column; numbers on one side alone are categories, and
// mixed says which side that is. A side without a value has no type: it takes
// the other's.
func sides(a, b *Table, name string, category bool) (ref, cur *Column, mixed string, err error) {
	if ref, err = a.Column(name); err != nil {
		return nil, nil, "", err
	}
	if cur, err = b.Column(name); err != nil {
		return nil, nil, "", err
	}
	switch {
	case ref.empty() || cur.empty():
		category = category || ref.Numbers == nil || cur.Numbers == nil
	case ref.Numbers == nil && cur.Numbers != nil:
		mixed = "texts in the reference, numbers in the new file"
	case ref.Numbers != nil && cur.Numbers == nil:
		mixed = fmt.Sprintf("numbers in the reference, texts in the new file, such as %q", cur.text())
	}
	if category || mixed != "" {
		ref, cur = ref.asCategories(), cur.asCategories()
	}
	return ref, cur, mixed, nil
}

// empty reports whether no row has a value.
func (c *Column) empty() bool {
	for _, x := range c.Numbers {
		if !math.IsNaN(x) {
			return false
		}
	}
	return !slices.Contains(c.Missing, false)
}

// text is the first value that is no number, cut where it is long; else the
// first one.
func (c *Column) text() string {
	out := ""
	for i, s := range c.Categories {
		if c.Missing[i] {
			continue
		}
		if _, err := strconv.ParseFloat(s, 64); out == "" || err != nil {
			if out = string([]rune(s)[:min(len([]rune(s)), 40)]); err != nil {
				break
			}
		}
	}
	return out
}

// gridSample is how many values a grid is cut from.
const gridSample = 50_000

// prepare counts both sides of a column on the reference's grid.
func prepare(ref, cur *Column, name string) (out drift.Column, reason string, err error) {
	out = drift.Column{Name: name, Importance: 0.5}
	g, reason := gridOf(ref)
	if reason != "" {
		return out, reason, nil
	}
	before := summarize(g, ref)
	out.Baseline, err = drift.BaselineOf(g, []*dist.Summary{before})
	out.Window = summarize(g, cur)
	return out, "", err
}

func gridOf(c *Column) (*dist.Grid, string) {
	if c.Numbers != nil {
		if counts(c.Numbers) {
			return nil, "it looks like an identifier: whole numbers that only rise"
		}
		step := max(1, len(c.Numbers)/gridSample)
		var sample []float64
		for i := 0; i < len(c.Numbers); i += step {
			sample = append(sample, c.Numbers[i])
		}
		g, err := dist.NumericGrid(sample, dist.GridConfig{})
		if err != nil {
			return nil, "the reference has no value of it"
		}
		return g, ""
	}
	found, rows := map[string]uint64{}, 0
	for i, w := range c.Categories {
		if !c.Missing[i] {
			found[w]++
			rows++
		}
	}
	if rows >= 100 && len(found) > rows/2 {
		return nil, "it looks like an identifier: nearly every row has a value of its own"
	}
	g, err := dist.CategoryGrid(found, dist.GridConfig{})
	if err != nil {
		return nil, "the reference has no value of it"
	}
	return g, ""
}

// counts reports whether values are a running number.
func counts(xs []float64) bool {
	for i, x := range xs {
		if x != math.Trunc(x) || i > 0 && x <= xs[i-1] {
			return false
		}
	}
	return len(xs) >= 100
}

func summarize(g *dist.Grid, c *Column) *dist.Summary {
	b := dist.NewBuilder(g)
	for _, x := range c.Numbers {
		if math.IsNaN(x) {
			b.AddMissing()
		} else {
			b.Add(x)
		}
	}
	for i, w := range c.Categories {
		if c.Missing[i] {
			b.AddMissing()
		} else {
			b.AddCategory(w)
		}
	}
	return b.Summary()
}

func judge(names []string, columns []drift.Column, reasons []string, o Options) []Compared {
	opt := drift.DefaultOptions()
	opt.Alpha, opt.Fallback = o.Alpha, o.Floor
	var usable []drift.Column
	for i, c := range columns {
		if reasons[i] == "" {
			usable = append(usable, c)
		}
	}
	// both questions about each column: its shape and its missing rate
	found := map[string][]drift.Judgement{}
	for _, j := range drift.Judge(usable, 0, opt) {
		if f, ok := o.Floors[j.Column]; ok {
			j.Floor = f
			j.Drifted = j.Reason == "" && j.Adjusted <= o.Alpha && j.Effect >= f
			if j.Drifted {
				j.Severity = control.Grade(control.Times(j.Effect, f), 0.5)
			}
		}
		found[j.Column] = append(found[j.Column], j)
	}
	out := make([]Compared, len(names))
	for i, name := range names {
		if reasons[i] != "" {
			out[i] = Compared{Column: name, Reason: reasons[i], Sentence: name + ": not compared, " + reasons[i], Severity: "quiet"}
			continue
		}
		out[i] = compared(columns[i], found[name])
	}
	return out
}

// compared speaks with the worse of a column's answers.
func compared(c drift.Column, js []drift.Judgement) Compared {
	j := js[0]
	if len(js) > 1 && js[1].Drifted && (!j.Drifted || js[1].Severity > j.Severity) {
		j = js[1]
	}
	out := Compared{Column: c.Name, Kind: "numeric", Detector: j.Detector, Drifted: j.Drifted, Severity: j.Severity.String(), Effect: j.Effect, Floor: j.Floor, P: j.Adjusted,
		Reason: string(j.Reason), Sentence: drift.Sentence(c, j)}
	if c.Baseline.Grid.Categorical() {
		out.Kind = "categorical"
	}
	out.MissingBefore, _ = c.Baseline.Reference.MissingRate()
	out.Missing, _ = c.Window.MissingRate()
	if v, ok := c.Baseline.Reference.Mean(); ok && out.Kind == "numeric" {
		out.ReferenceMean = &v
	}
	if v, ok := c.Window.Mean(); ok && out.Kind == "numeric" {
		out.Mean = &v
	}
	cmp, err := drift.Compare(c.Baseline.Grid, c.Baseline.Reference, c.Window)
	if err != nil {
		return out
	}
	for name, to := range map[string]**float64{"psi": &out.PSI, "js": &out.JS, "wasserstein_normed": &out.Wasserstein} {
		d, _ := drift.Detector(name) // the names are of the table
		if r, err := d.Compare(cmp); err == nil && !math.IsInf(r.Statistic, 0) && !math.IsNaN(r.Statistic) {
			*to = &r.Statistic
		}
	}
	out.Bins, _ = cmp.Contributions(stat.TVD) // a column without rows has none
	return out
}

// chunks is how many windows a file is cut into to learn how far its own parts
// lie from the whole.
const chunks = 40

// Reference makes what a monitor can be held against out of a file, in the
// file's order. Columns that cannot be watched are left out, with the reason.
func Reference(t *Table, columns, categories []string) (*drift.FileReference, map[string]string, error) {
	out, left := &drift.FileReference{Columns: map[string]*drift.Baseline{}}, map[string]string{}
	for _, name := range t.Names() {
		if len(columns) > 0 && !contains(columns, name) {
			continue
		}
		c, err := t.Column(name)
		if err != nil {
			return nil, nil, err
		}
		if contains(categories, name) {
			c = c.asCategories()
		}
		g, reason := gridOf(c)
		if reason != "" {
			left[name] = reason
			continue
		}
		var windows []*dist.Summary
		n := c.Rows()
		for i := range chunks {
			if from, to := n*i/chunks, n*(i+1)/chunks; from < to {
				windows = append(windows, summarize(g, c.slice(from, to)))
			}
		}
		if out.Columns[name], err = drift.BaselineOf(g, windows); err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", name, err)
		}
	}
	return out, left, nil
}

func (c *Column) slice(from, to int) *Column {
	if c.Numbers != nil {
		return &Column{Numbers: c.Numbers[from:to]}
	}
	return &Column{Categories: c.Categories[from:to], Missing: c.Missing[from:to]}
}
