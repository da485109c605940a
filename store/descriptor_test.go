package store_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// described is testdata/descriptors.json, which Python and NumPy wrote.
type described struct {
	Known []string
	Texts []struct {
		Text, Script   string
		Length, Words  float64
		Upper, Unknown float64
	}
	Centre  []float64
	Vectors []struct {
		Vector []float64
		Length float64
		Norm   float64
		Cosine float64 `json:"cosine_distance"`
	}
}

// textsAndVectors stores one row a minute, and two rows more: with neither, and
// with a vector that is too short.
func textsAndVectors(t *testing.T, s *store.Store, d described) (sub store.Subject, from, to time.Time) {
	t.Helper()
	schema := features(7, event.Field{Name: "review", Type: scalar(event.String)}, event.Field{Name: "embedding", Type: list(event.Float32)})
	if err := s.Prepare(t.Context(), []*event.Schema{schema}); err != nil {
		t.Fatal(err)
	}
	b, v := event.NewBatch(schema, topic), schema.ValueStart()
	rows := len(d.Vectors) + 2
	for i := range rows {
		addRow(b, int64(i))
		b.Columns[event.FeatureDelete].Bools[i] = 0
		b.Columns[event.ColEventTime].Int64s[i] = minute + int64(i)*60_000_000
		text, vector := &b.Columns[v], &b.Columns[v+1]
		if i < len(d.Texts) {
			setText(text, d.Texts[i].Text)
		} else {
			setText(text, "")
			text.Nulls[i] = 1
		}
		n := int(lastEnd(vector.Ends[:i]))
		vector.Items.Float32s, vector.Items.Nulls = vector.Items.Float32s[:n], vector.Items.Nulls[:n]
		var elements []float64
		switch {
		case i < len(d.Vectors):
			elements = d.Vectors[i].Vector
		case i == len(d.Vectors)+1:
			elements = []float64{3, 4}
		}
		for _, x := range elements {
			vector.Items.Float32s, vector.Items.Nulls = append(vector.Items.Float32s, float32(x)), append(vector.Items.Nulls, 0)
		}
		vector.Ends[i] = uint64(n + len(elements))
	}
	if err := s.Insert(t.Context(), "described", b); err != nil {
		t.Fatal(err)
	}
	from = time.UnixMicro(minute).UTC()
	return store.Subject{Kind: event.Features, TableID: 7}, from, from.Add(time.Duration(rows) * time.Minute)
}

// What is counted of a text and of a vector is what Python finds in it; length
// counts rows without one too, the others leave them out.
func TestDescriptorsAreWhatPythonFinds(t *testing.T) {
	raw, err := os.ReadFile("testdata/descriptors.json")
	if err != nil {
		t.Fatal(err)
	}
	var d described
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	sub, from, to := textsAndVectors(t, s, d)
	var known []uint64
	for _, w := range d.Known {
		known = append(known, dist.Hash(w))
	}
	slices.Sort(known)
	centre, err := s.Anchor(t.Context(), sub, "cosine_distance(embedding)", from, to)
	if err != nil || len(centre.Vector) != len(d.Centre) {
		t.Fatalf("centre %v (%v)", centre, err)
	}
	for i := range d.Centre {
		near(t, "centre", centre.Vector[i], d.Centre[i])
	}
	number := func(name string, a dist.Anchor) store.SummaryColumn {
		g, err := dist.NumericGrid([]float64{0, 1, 2}, dist.GridConfig{Anchor: a})
		if err != nil {
			t.Fatal(err)
		}
		return store.SummaryColumn{Name: name, Grid: g}
	}
	names, err := dist.CategoryGrid(map[string]uint64{"none": 1, "other": 1, "Latin": 1, "Cyrillic": 1, "Greek": 1, "Arabic": 1, "Hebrew": 1, "Devanagari": 1, "Thai": 1, "Hangul": 1, "Kana": 1, "Han": 1}, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	script := store.SummaryColumn{Name: "script(review)", Grid: names}
	texts, vectors := len(d.Texts), len(d.Vectors)
	for _, c := range []struct {
		column  store.SummaryColumn
		rows    int
		missing int
		want    func(i int) float64
	}{
		{number("length(review)", dist.Anchor{}), vectors + 2, vectors + 2 - texts, func(i int) float64 { return d.Texts[i].Length }},
		{number("words(review)", dist.Anchor{}), texts, 0, func(i int) float64 { return d.Texts[i].Words }},
		{number("upper(review)", dist.Anchor{}), texts, 0, func(i int) float64 { return d.Texts[i].Upper }},
		{number("unknown(review)", dist.Anchor{Words: [2][]uint64{known, known}}), texts, 0, func(i int) float64 { return d.Texts[i].Unknown }},
		{script, texts, 0, func(i int) float64 { return float64(names.CategoryCell(d.Texts[i].Script)) }},
		{number("length(embedding)", dist.Anchor{}), vectors + 2, 1, func(i int) float64 { return length(d, i) }},
		{number("norm(embedding)", dist.Anchor{}), vectors + 1, 0, func(i int) float64 { return norm(d, i) }},
		{number("cosine_distance(embedding)", centre), vectors + 1, 0, func(i int) float64 { return cosine(d, i) }},
	} {
		got, err := s.DeriveSummaries(t.Context(), sub, []store.SummaryColumn{c.column}, from, to, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, w := range got {
			i := int(w.Start.Sub(from) / time.Minute)
			if w.Summary.Missing > 0 {
				missing++
				continue
			}
			is := w.Summary.Sum
			if c.column.Grid.Categorical() {
				is = float64(w.Summary.Cells[0].Index)
			} else if w.Summary.NaN > 0 {
				is = math.NaN()
			}
			near(t, c.column.Name, is, c.want(i))
		}
		if len(got) != c.rows || missing != c.missing {
			t.Errorf("%s: %d windows, %d without a value; want %d and %d", c.column.Name, len(got), missing, c.rows, c.missing)
		}
	}
	checkAnchors(t, s, sub, from, to)
}

func length(d described, i int) float64 {
	if i > len(d.Vectors) {
		return 2
	}
	return d.Vectors[i].Length
}

func norm(d described, i int) float64 {
	if i > len(d.Vectors) {
		return 5
	}
	return d.Vectors[i].Norm
}

func cosine(d described, i int) float64 {
	if i > len(d.Vectors) { // of another length than the centre
		return math.NaN()
	}
	return d.Vectors[i].Cosine
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6 || math.IsNaN(got) != math.IsNaN(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// checkAnchors holds what anchors are of: directions are unit vectors of their
// own, nothing is made of nothing, and what is no descriptor has none.
func checkAnchors(t *testing.T, s *store.Store, sub store.Subject, from, to time.Time) {
	t.Helper()
	one, err := s.Anchor(t.Context(), sub, "projection1(embedding)", from, to)
	two, err2 := s.Anchor(t.Context(), sub, "projection2(embedding)", from, to)
	sum := 0.0
	for _, x := range one.Vector {
		sum += x * x
	}
	if err != nil || err2 != nil || math.Abs(sum-1) > 1e-12 || slices.Equal(one.Vector, two.Vector) {
		t.Errorf("directions %v and %v (%v, %v)", one.Vector, two.Vector, err, err2)
	}
	for _, name := range []string{"cosine_distance(embedding)", "unknown(review)", "projection1(embedding)"} {
		if _, err := s.Anchor(t.Context(), sub, name, from.Add(-time.Hour), from); !errors.Is(err, dist.ErrNoSample) {
			t.Errorf("%s of no rows: %v", name, err)
		}
	}
	for _, name := range []string{"review", "length(review)", "norm(embedding)"} {
		if a, err := s.Anchor(t.Context(), sub, name, from, to); err != nil || len(a.Vector)+len(a.Words[0])+len(a.Words[1]) > 0 {
			t.Errorf("%s has the anchor %v (%v)", name, a, err)
		}
	}
	for _, name := range []string{"norm(review)", "length(nothing)", "size(review)", "embedding"} {
		if _, err := s.ColumnNumbers(t.Context(), sub, name, dist.Anchor{}, from, to, 5); !errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
