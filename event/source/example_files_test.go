package source

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// replay maps a file by one of the repository's example mappings, decodes what
// it gives, and returns the rows per kind.
func replay(t *testing.T, file, mapping string) map[event.Kind]*sums {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "examples", mapping))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(testenv.Shared(t, "data/"+file), m)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mp, err := NewMapper(m, Options{File: f, KnownAt: "event_time"})
	if err != nil {
		t.Fatal(err)
	}
	c := newDecoding(t)
	n := int64(0)
	for row, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		events, err := mp.Map(row)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			c.add(e)
		}
		n++
	}
	if n != f.Total() {
		t.Fatalf("%d rows, the file says %d", n, f.Total())
	}
	return c.finish()
}

func TestElecDecodesWhole(t *testing.T) {
	got := replay(t, "elec.csv", "elec.yaml")[event.Features]
	f, err := os.Open(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := &sums{rows: int64(len(records) - 1), columns: map[string]float64{}}
	for _, r := range records[1:] {
		for i, cell := range r {
			x, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			want.columns["v_"+records[0][i]] += x
		}
	}
	want.first = time.Date(1996, 5, 7, 0, 0, 0, 0, time.UTC)
	want.last = want.first.Add(time.Duration(want.rows-1) * 30 * time.Minute)
	expectSums(t, got, want)
}

// expectSums compares rows, ends and the columns that want has. Sums were made
// in the same order, so they are equal to the last bit.
func expectSums(t *testing.T, got, want *sums) {
	t.Helper()
	if got == nil || got.rows != want.rows || !got.first.Equal(want.first) || !want.last.IsZero() && !got.last.Equal(want.last) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for name, x := range want.columns {
		if got.columns[name] != x {
			t.Errorf("%s adds up to %v, in the file to %v", name, got.columns[name], x)
		}
	}
}

// person is a row of the employment files, read by the library's own mapping.
type person struct {
	ID       *int64   `parquet:"id,optional"`
	Age      *float64 `parquet:"AGEP,optional"`
	Sex      *string  `parquet:"SEX,optional"`
	Year     *int64   `parquet:"year,optional"`
	Employed *int64   `parquet:"employed,optional"`
	Class    *int64   `parquet:"prediction,optional"`
	Score    *float64 `parquet:"predicted_probability,optional"`
}

func people(t *testing.T, file string) (inputs, predictions, labels *sums, years map[int64]int64) {
	t.Helper()
	rows, err := parquet.ReadFile[person](testenv.Shared(t, "data/"+file))
	if err != nil {
		t.Fatal(err)
	}
	newSums := func() *sums { return &sums{rows: int64(len(rows)), columns: map[string]float64{}} }
	inputs, predictions, labels, years = newSums(), newSums(), newSums(), map[int64]int64{}
	add := func(s *sums, name string, x *float64) {
		if x != nil {
			s.columns[name] += *x
		}
	}
	for _, p := range rows {
		add(inputs, "v_AGEP", p.Age)
		inputs.columns["k_person"] += float64(*p.ID)
		add(predictions, "v_AGEP", p.Age)
		add(predictions, "score", p.Score)
		if p.Employed != nil {
			labels.columns["label"] += float64(*p.Employed)
		}
		if p.Year != nil {
			years[*p.Year]++
		}
	}
	return inputs, predictions, labels, years
}

func TestEmploymentDecodesWhole(t *testing.T) {
	if testing.Short() {
		testenv.Skip(t, testenv.Short, "maps a million events")
	}
	got := replay(t, "employment_MA_reference.pq", "employment.yaml")
	inputs, predictions, labels, _ := people(t, "employment_MA_reference.pq")
	for _, s := range []*sums{inputs, predictions, labels} {
		s.first = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	labels.first = labels.first.AddDate(0, 0, 30)
	expectSums(t, got[event.Features], inputs)
	expectSums(t, got[event.Predictions], predictions)
	expectSums(t, got[event.Labels], labels)

	got = replay(t, "employment_MA_analysis.pq", "employment.yaml")
	inputs, predictions, _, years := people(t, "employment_MA_analysis.pq")
	inputs.first = time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC)
	predictions.first = inputs.first
	expectSums(t, got[event.Features], inputs)
	expectSums(t, got[event.Predictions], predictions)
	if got[event.Labels] != nil {
		t.Errorf("labels without a truth: %+v", got[event.Labels])
	}
	for year, n := range years {
		if got[event.Features].years[int(year)] != n {
			t.Errorf("%d rows in %d, the file has %d", got[event.Features].years[int(year)], year, n)
		}
	}

	got = replay(t, "employment_MA_analysis_target.pq", "employment_labels.yaml")
	_, _, labels, _ = people(t, "employment_MA_analysis_target.pq")
	labels.first = time.Date(2016, 1, 31, 0, 0, 0, 0, time.UTC)
	expectSums(t, got[event.Labels], labels)
}
