package store_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// odd are values that meet every edge: an atom and its neighbours, missing and
// infinite ones.
func odd(i int) (x float64, null bool) {
	switch i % 11 {
	case 0:
		return 0, true
	case 1:
		return math.NaN(), false
	case 2:
		return math.Inf(1 - 2*(i%2)), false
	case 3:
		return 0.1, false
	case 4:
		return math.Nextafter(0.1, 1), false
	case 5:
		return math.Nextafter(0.1, 0), false
	case 6:
		return -1e150, false
	}
	return math.Sin(float64(i)) * 7, false
}

// checkForeign holds that what lies beside a domain is what a loop over the same
// rows finds, of numbers to their last bit.
func checkForeign(t *testing.T, s *store.Store, sub store.Subject, from time.Time) {
	t.Helper()
	numbers := []string{"0.1", "-1e150"}
	var beside uint64
	for i := range 600 {
		if x, null := odd(i); !null && !math.IsNaN(x) && x != 0.1 && x != -1e150 {
			beside++
		}
	}
	domains := []store.Domain{{Column: "x", Values: numbers}, {Column: "c", Values: []string{"é", "a'b"}}, {Column: "c", Values: []string{"é", "a'b", "rare\\", "new"}},
		{Column: "x", Values: []string{"high"}}, {Column: "gone", Values: numbers}}
	got, err := s.ForeignValues(t.Context(), sub, domains, from, from.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Rows != beside || len(got[0].Examples) != 3 || beside == 0 {
		t.Errorf("numbers beside their domain: %+v, want %d rows", got[0], beside)
	}
	if got[1].Rows != 300 || !slices.Equal(got[1].Examples, []string{"new", "rare\\"}) {
		t.Errorf("texts beside their domain: %+v", got[1])
	}
	if got[2].Rows != 0 || len(got[2].Examples) != 0 || got[2].Problem != "" {
		t.Errorf("all that there is: %+v", got[2])
	}
	for i, want := range map[int]string{3: "holds numbers", 4: "no column"} {
		if !strings.Contains(got[i].Problem, want) {
			t.Errorf("%+v: %+v, want %q", domains[i], got[i], want)
		}
	}
	none, err := s.ForeignValues(t.Context(), sub, domains[:2], from.Add(-time.Hour), from.Add(-time.Minute))
	if err != nil || none[0].Rows+none[1].Rows != 0 {
		t.Errorf("where there are no rows: %+v (%v)", none, err)
	}
}

// The engine counts as the builder does: every cell, every moment.
func TestDerivedSummariesAreTheBuildersOwn(t *testing.T) {
	s := open(t)
	schema := features(7, event.Field{Name: "x", Type: scalar(event.Float64)}, event.Field{Name: "c", Type: scalar(event.String)})
	if err := s.Prepare(t.Context(), []*event.Schema{schema}); err != nil {
		t.Fatal(err)
	}
	sample := []float64{}
	for i := range 3000 {
		sample = append(sample, math.Sin(float64(i))*7, 0.1)
	}
	numbers, err := dist.NumericGrid(sample, dist.GridConfig{Cells: 50})
	if err != nil {
		t.Fatal(err)
	}
	names, _ := dist.CategoryGrid(map[string]uint64{"a'b": 9, "é": 8, "rare\\": 1}, dist.GridConfig{Categories: 2})
	want, bySegment := map[string]*dist.Builder{}, map[string]*dist.Builder{}
	count := func(into map[string]*dist.Builder, column string, at int64, g *dist.Grid) *dist.Builder {
		key := fmt.Sprint(column, time.UnixMicro(at).Truncate(time.Minute).Unix())
		if into[key] == nil {
			into[key] = dist.NewBuilder(g)
		}
		return into[key]
	}
	b := event.NewBatch(schema, topic)
	for i := range 600 {
		addRow(b, int64(i))
		b.Columns[event.FeatureDelete].Bools[i] = 0
		at, v := b.Columns[event.ColEventTime].Int64s[i], schema.ValueStart()
		x, null := odd(i)
		word := []string{"a'b", "é", "rare\\", "new"}[i%4]
		setFloat(&b.Columns[v], x, null)
		setText(&b.Columns[v+1], word)
		segment := "c=" + map[bool]string{true: word, false: store.RestOfSegment}[i%4 < 2]
		for _, b := range []*dist.Builder{count(want, "x", at, numbers), count(bySegment, "x"+segment, at, numbers)} {
			if null {
				b.AddMissing()
			} else {
				b.Add(x)
			}
		}
		count(want, "c", at, names).AddCategory(word)
		count(bySegment, "c"+segment, at, names).AddCategory(word)
	}
	if err := s.Insert(t.Context(), "derive", b); err != nil {
		t.Fatal(err)
	}
	from := time.UnixMicro(minute).UTC().Add(-time.Hour)
	sub, columns := store.Subject{Kind: event.Features, TableID: 7}, []store.SummaryColumn{{Name: "x", Grid: numbers}, {Name: "c", Grid: names}}
	got, err := s.DeriveSummaries(t.Context(), sub, columns, from, from.Add(24*time.Hour), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(want) < 10 {
		t.Fatalf("%d windows, want %d", len(got), len(want))
	}
	for _, w := range got {
		compareSummaries(t, w, want[fmt.Sprint(w.Column, w.Start.Unix())].Summary())
	}
	values, err := s.DimensionValues(t.Context(), sub, "c", from, from.Add(24*time.Hour), 3)
	if err != nil || !slices.Equal(values, []string{"a'b", "new", "rare\\"}) { // all are as frequent
		t.Errorf("values of c: %q (%v)", values, err)
	}
	got, err = s.DeriveSegments(t.Context(), sub, store.Dimension{Name: "c", Values: []string{"é", "a'b"}}, columns, from, from.Add(24*time.Hour), time.Minute)
	if err != nil || len(got) != len(bySegment) {
		t.Fatalf("%d windows of segments, want %d (%v)", len(got), len(bySegment), err)
	}
	for _, w := range got {
		compareSummaries(t, w, bySegment[fmt.Sprint(w.Column, w.Segment, w.Start.Unix())].Summary())
	}
	checkForeign(t, s, sub, from)
	if _, err := s.DeriveSegments(t.Context(), sub, store.Dimension{Name: "nothing"}, columns, from, from.Add(time.Hour), time.Minute); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("segments by a column that is not there: %v", err)
	}
}

func compareSummaries(t *testing.T, w store.WindowSummary, want *dist.Summary) {
	t.Helper()
	got := w.Summary
	counts := func(s *dist.Summary) string {
		cells := ""
		for _, c := range s.Cells {
			cells += fmt.Sprintf(" %d:%d", c.Index, c.Count)
		}
		return fmt.Sprint(s.GridID, s.Count, s.Missing, s.NaN, s.PosInf, s.NegInf, s.Min, s.Max, cells)
	}
	if counts(got) != counts(want) {
		t.Errorf("%s at %v: %s\nwant %s", w.Column, w.Start, counts(got), counts(want))
	}
	if math.Abs(got.Sum-want.Sum) > 1e-9*math.Abs(want.Sum) || math.Abs(got.M2-want.M2) > 1e-6*want.M2 {
		t.Errorf("%s at %v: sums %v and %v, want %v and %v", w.Column, w.Start, got.Sum, got.M2, want.Sum, want.M2)
	}
}

// setFloat and setText overwrite the last value of a column.
func setFloat(c *event.Column, x float64, null bool) {
	last := len(c.Float64s) - 1
	c.Float64s[last], c.Nulls[last] = x, 0
	if null {
		c.Float64s[last], c.Nulls[last] = 0, 1
	}
}

func setText(c *event.Column, s string) {
	last := len(c.StrEnds) - 1
	start := uint32(0)
	if last > 0 {
		start = c.StrEnds[last-1]
	}
	c.Data = append(c.Data[:start], s...)
	c.StrEnds[last], c.Nulls[last] = uint32(len(c.Data)), 0
}

// What is counted anew waits while an insert runs, and gets on under an insert
// that does not end.
func TestDerivationYieldsToInserts(t *testing.T) {
	s, schema := open(t), twenty()
	batch := filled(schema, 1000)
	insert(t, s, "rows", batch)
	sub := store.Subject{Kind: event.Features, TableID: schema.TableID}
	g, err := dist.NumericGrid([]float64{1, 2, 3, 4, 5}, dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	from := time.UnixMicro(batch.Columns[event.ColEventTime].Int64s[0]).UTC().Truncate(24 * time.Hour)
	count := func() int {
		got, err := s.DeriveSummaries(t.Context(), sub, []store.SummaryColumn{{Name: "f00", Grid: g}}, from, from.Add(24*time.Hour), 24*time.Hour)
		if err != nil {
			t.Error(err)
			return 0
		}
		return len(got)
	}
	run(t, s, "CREATE TABLE held (a Int64) ENGINE = Memory")
	began, end := make(chan bool), make(chan bool)
	ended := make(chan error, 1)
	release := sync.OnceFunc(func() { close(end) })
	defer release() // a store does not close while an insert runs
	go func() {
		_, err := s.Embedded().Insert(t.Context(), chdb.Statement{SQL: "INSERT INTO held SETTINGS priority = 1"}, "TSV", func(w io.Writer) error {
			_, err := w.Write([]byte("1\n"))
			close(began)
			<-end
			return err
		})
		ended <- err
	}()
	<-began
	counted := make(chan int, 1)
	go func() { counted <- count() }()
	testenv.Eventually(t, 20*time.Second, func() error {
		if text(t, s, "SELECT value FROM system.metrics WHERE metric = 'QueryPreempted'") == "0" {
			return errors.New("the count does not wait for the insert")
		}
		return nil
	})
	if n := <-counted; n == 0 {
		t.Error("nothing was counted while the insert ran")
	}
	release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
