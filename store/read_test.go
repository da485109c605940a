package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

func column(t testing.TB, f query.Frame, name string) query.Column {
	t.Helper()
	for _, c := range f.Columns {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("frame %s has no column %s", f.Name, name)
	return query.Column{}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func at(offset int64) time.Time { return time.UnixMicro(minute + offset*1_000_000).UTC() }

// allKinds is a schema that uses every type, nullable where values are, with
// names that try to break out.
func allKinds() *event.Schema {
	var values []event.Field
	for i, e := range []event.Type{event.Bool, event.Int32, event.Int64, event.Float32, event.Float64, event.String, event.Timestamp, event.Bytes, event.JSON} {
		values = append(values, event.Field{Name: fmt.Sprintf("s%d", i), Type: scalar(e)}, event.Field{Name: fmt.Sprintf("l%d", i), Type: list(e)})
	}
	for _, n := range hostileNames() {
		values = append(values, event.Field{Name: n, Type: scalar(event.Float64)})
	}
	return event.NewSchema(event.Features, "test", "all", 9, []event.Field{{Name: "user", Type: scalar(event.String)}, {Name: "a.b`'", Type: scalar(event.Int64)}}, values)
}

func hostileNames() []string {
	return []string{"`", "a`b", "'", `\`, `"`, "a b", "Ünïcode", "日本語", "🙂", "x.null", "x", "x.size0", "a.b", "%2E", "select", "*", "1", "", "--", "/*", "\t", "\n", "{p:String}",
		strings.Repeat("very long ", 60), "); DROP TABLE ledger; --", "event_time", "_offset", "count()"}
}

// read gives back what a batch must look like in frames, worked out from the
// batch alone.
func expected(c *event.Column, f event.Field, i int) any {
	if f.Type.List {
		from, to := c.Span(i)
		items := []any{}
		for k := from; k < to; k++ {
			items = append(items, expected(c.Items, event.Field{Type: scalar(f.Type.Elem), Nullable: true}, int(k)))
		}
		return items
	}
	if c.Null(i) {
		return nil
	}
	switch f.Type.Elem {
	case event.Bool:
		return c.Bools[i] != 0
	case event.Int32:
		return float64(c.Int32s[i])
	case event.Int64, event.Timestamp:
		return float64(c.Int64s[i])
	case event.Float32:
		return float64(c.Float32s[i])
	case event.Float64:
		return c.Float64s[i]
	}
	return string(c.Str(i))
}

func TestEveryTypeRoundTrips(t *testing.T) {
	s := open(t)
	view := allKinds()
	b := batch(view, 0, 50)
	insert(t, s, "all", b)
	for j, f := range view.Fields {
		if f.Role != event.ValueRole {
			continue
		}
		name := storedName(f)
		expr := fmt.Sprintf("`%s`", name)
		if f.Type.Elem == event.Timestamp {
			expr = fmt.Sprintf("toUnixTimestamp64Micro(%s)", expr)
			if f.Type.List {
				expr = fmt.Sprintf("arrayMap(x -> toUnixTimestamp64Micro(x), `%s`)", name)
			}
		}
		got := text(t, s, "SELECT toJSONString("+expr+") FROM features_9 ORDER BY _offset SETTINGS output_format_json_quote_denormals = 1, output_format_json_quote_64bit_integers = 0")
		for i, line := range strings.Split(got, "\n") {
			var v any
			if line == `\N` {
				line = "null"
			}
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%s row %d: %q: %v", f.Name, i, line, err)
			}
			if want := expected(&b.Columns[j], f, i); !same(v, want) {
				t.Errorf("%s (%s) row %d: got %v, want %v", f.Name, f.Type, i, v, want)
			}
		}
	}
}

// storedName is written again here on purpose: the test must notice a change.
func storedName(f event.Field) string {
	n := f.ColumnName()
	n = strings.ReplaceAll(n, "%", "%25")
	n = strings.ReplaceAll(n, ".", "%2E")
	n = strings.ReplaceAll(n, "\\", "\\\\")
	return strings.ReplaceAll(n, "`", "\\`")
}

func same(a, b any) bool {
	if x, ok := a.([]any); ok {
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, same)
	}
	if y, ok := b.(float64); ok {
		if math.IsInf(y, 1) {
			return a == "inf"
		}
		x, ok := a.(float64)
		return ok && (x == y || math.Abs(x-y) < 1e-6*math.Abs(y))
	}
	return a == b
}

func TestRowsShowsEveryColumn(t *testing.T) {
	s := open(t)
	view := allKinds()
	b := batch(view, 0, 50)
	insert(t, s, "all", b)
	r := query.Request{Kind: "rows", Namespace: "test", View: "all", From: at(0), To: at(100)}
	f := must[[]query.Frame](t)(s.Rows(t.Context(), r))[0]
	if f.Rows() != 50 {
		t.Fatalf("%d rows", f.Rows())
	}
	times := column(t, f, "envelope.event_time").Values.([]time.Time)
	if !times[0].Equal(at(49)) || !times[49].Equal(at(0)) {
		t.Errorf("newest first: %v … %v", times[0], times[49])
	}
	for _, n := range hostileNames() {
		c := column(t, f, n)
		for i := range 50 {
			j := slices.IndexFunc(view.Fields, func(f event.Field) bool { return f.Role == event.ValueRole && f.Name == n })
			want := expected(&b.Columns[j], view.Fields[j], 49-i)
			got := c.Values.([]*float64)[i]
			if (got == nil) != (want == nil) || got != nil && *got != want.(float64) {
				t.Fatalf("column %q row %d: %v, want %v", n, i, got, want)
			}
		}
	}
	r.Columns, r.Filter, r.Limit = []string{"user", "s5", "a.b`'"}, map[string]string{"user": column(t, f, "user").Values.([]string)[7]}, 5
	one := must[[]query.Frame](t)(s.Rows(t.Context(), r))[0]
	for _, f := range view.Fields {
		if f.Role == event.ValueRole && f.Type == scalar(event.Int64) { // beyond 64 bits the engine would go on with another number
			r := r
			r.Filter = map[string]string{f.Name: "18446744073709551617"}
			if _, err := s.Rows(t.Context(), r); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("filter %s beyond 64 bits: %v", f.Name, err)
			}
		}
	}
	if one.Rows() != 1 || len(one.Columns) != 3 {
		t.Errorf("filter by key: %d rows, %d columns", one.Rows(), len(one.Columns))
	}
	r.Filter = map[string]string{"a.b`'": "not a number"}
	if _, err := s.Rows(t.Context(), r); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a filter value of the wrong type: %v", err)
	}
	r.Filter, r.Columns = nil, []string{"nope"}
	if _, err := s.Rows(t.Context(), r); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("an unknown column: %v", err)
	}
	if _, err := s.Rows(t.Context(), query.Request{View: "nope"}); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("an unknown view: %v", err)
	}
}

// window are the finite values of a city in two minutes, in order, and how
// many rows, nulls and values that are not finite there are.
func window(b *event.Batch, xs, cities *event.Column, city string, start time.Time) (vals []float64, n, nulls, odd int) {
	for row := range b.Rows {
		if at(int64(row)).Before(start) || !at(int64(row)).Before(start.Add(2*time.Minute)) || string(cities.Str(row)) != city {
			continue
		}
		n++
		switch {
		case xs.Null(row):
			nulls++
		case math.IsInf(xs.Float64s[row], 0):
			odd++
		default:
			vals = append(vals, xs.Float64s[row])
		}
	}
	slices.Sort(vals)
	return vals, n, nulls, odd
}

func moments(vals []float64) (mean, deviation float64) {
	for _, v := range vals {
		mean += v / float64(len(vals))
	}
	for _, v := range vals {
		deviation += (v - mean) * (v - mean) / float64(len(vals))
	}
	return mean, math.Sqrt(deviation)
}

func TestSummariesAgainstBruteForce(t *testing.T) {
	s := open(t)
	view := features(1, event.Field{Name: "x", Type: scalar(event.Float64)}, event.Field{Name: "n", Type: scalar(event.Int64)}, event.Field{Name: "city", Type: scalar(event.String)})
	b := batch(view, 0, 600)
	xs := &b.Columns[view.ValueStart()]
	cities := &b.Columns[view.ValueStart()+2]
	cities.Data, cities.StrEnds, cities.Nulls = nil, nil, nil
	cities.Nulls = make([]uint8, b.Rows)
	for i := range b.Rows {
		addText(cities, []string{"Bern", "O'Brien\t\\", ""}[i%3])
	}
	insert(t, s, "s", b)
	r := query.Request{View: "view1", Columns: []string{"x"}, GroupBy: []string{"city"}, From: at(0), To: at(600), Step: query.Duration(2 * time.Minute)}
	frames := must[[]query.Frame](t)(s.Summaries(t.Context(), r))
	if len(frames) != 3 {
		t.Fatalf("%d frames, want one per city", len(frames))
	}
	for _, f := range frames {
		city := f.Columns[1].Labels["city"]
		for i, start := range column(t, f, "time").Values.([]time.Time) {
			vals, n, nulls, odd := window(b, xs, cities, city, start)
			mean, deviation := moments(vals)
			check := func(name string, want, tol float64) {
				t.Helper()
				var got float64
				switch v := column(t, f, name).Values.(type) {
				case []float64:
					got = v[i]
				case []*float64:
					got = *v[i]
				case []int64:
					got = float64(v[i])
				}
				if math.Abs(got-want) > tol {
					t.Errorf("%s %v %s: %v, want %v", city, start, name, got, want)
				}
			}
			check("count", float64(n), 0)
			check("null_share", float64(nulls)/float64(n), 1e-12)
			check("nonfinite_share", float64(odd)/float64(n), 1e-12)
			check("mean", mean, 1e-9)
			check("stddev", deviation, 1e-9)
			check("min", vals[0], 0)
			check("max", vals[len(vals)-1], 0)
			for name, q := range map[string]float64{"p05": 0.05, "p50": 0.5, "p95": 0.95} {
				rank := int(q * float64(len(vals)))
				lo, hi := vals[max(0, rank-2)], vals[min(len(vals)-1, rank+1)]
				if got := *column(t, f, name).Values.([]*float64)[i]; got < lo || got > hi {
					t.Errorf("%s %v %s: %v, want %v to %v", city, start, name, got, lo, hi)
				}
			}
		}
		if n := f.Rows(); n != 5 {
			t.Errorf("%d steps, want 5", n)
		}
	}
	all := must[[]query.Frame](t)(s.Summaries(t.Context(), query.Request{View: "view1", From: at(0), To: at(600)}))
	if len(all) != 2 {
		t.Errorf("%d frames without names, want the two numeric columns", len(all))
	}
	if _, err := s.Summaries(t.Context(), query.Request{View: "view1", Columns: []string{"city"}}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a text column: %v", err)
	}
	some := must[[]query.Frame](t)(s.Summaries(t.Context(), query.Request{View: "view1", Columns: []string{"city", "x"}, From: at(0), To: at(600)}))
	if len(some) != 1 || len(some[0].Notices) != 1 || !strings.Contains(some[0].Notices[0].Text, "city") {
		t.Errorf("a text column beside a number: %+v", some)
	}
}

func TestThroughputAndLag(t *testing.T) {
	s := open(t)
	insert(t, s, "a", batch(features(1), 0, 10))
	start := time.Now()
	for i := range int64(3) {
		row := ledgerRow(i*100, i*100+100, "features_1")
		row.MinAppended = time.Now().Add(-7 * time.Second).UnixMicro()
		if err := s.InsertLedger(t.Context(), fmt.Sprint(i), row); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range [][]string{nil, {"topic"}} {
		r := query.Request{Namespace: "test", GroupBy: by, From: start.Add(-time.Minute), To: start.Add(time.Minute), Step: query.Duration(10 * time.Second)}
		f := must[[]query.Frame](t)(s.Throughput(t.Context(), r))[0]
		name := map[bool]string{true: "features", false: topic}[by == nil]
		total := 0.0
		for i, v := range column(t, f, name).Values.([]float64) {
			step := min(10, r.To.Sub(f.Columns[0].Values.([]time.Time)[i]).Seconds())
			total += v * step
		}
		if math.Abs(total-300) > 1e-6 {
			t.Errorf("by %v: %v rows in all, want 300", by, total)
		}
		r.Namespace = "other"
		if f := must[[]query.Frame](t)(s.Throughput(t.Context(), r))[0]; len(f.Columns) != 1 {
			t.Errorf("another namespace sees %d series", len(f.Columns)-1)
		}
	}
	f := must[[]query.Frame](t)(s.IngestLag(t.Context(), query.Request{From: start.Add(-time.Minute), To: time.Now().Add(time.Minute)}))[0]
	found := 0
	for _, v := range column(t, f, topic).Values.([]*float64) {
		if v != nil {
			found++
			if *v < 7 || *v > 60 {
				t.Errorf("lag %v s, want a little over 7", *v)
			}
		}
	}
	if found == 0 {
		t.Error("no lag at all")
	}
}

func TestAuditFindsWhatIsPlanted(t *testing.T) {
	s := open(t)
	view := features(1)
	for i := range int64(5) {
		token := fmt.Sprint("unit", i)
		insert(t, s, token, batch(view, i*100, i*100+100))
		if err := s.InsertLedger(t.Context(), token, ledgerRow(i*100, i*100+100, "features_1")); err != nil {
			t.Fatal(err)
		}
	}
	audit := func() (store.PartitionAudit, []store.Finding) {
		t.Helper()
		parts, found, err := s.AuditLedger(t.Context(), "", time.Time{})
		if err != nil || len(parts) != 1 {
			t.Fatalf("%v %v", parts, err)
		}
		return parts[0], found
	}
	clean, found := audit()
	if clean.Rows != 500 || clean.Next != 500 || clean.GapRows+clean.DuplicateRows+clean.GapRecords+clean.OverlapRecords+clean.Unbalanced+clean.Unledgered != 0 || len(found) != 0 {
		t.Fatalf("a clean ledger: %+v %v", clean, found)
	}
	insert(t, s, "planted duplicate", batch(view, 250, 253))
	text(t, s, "ALTER TABLE features_1 DELETE WHERE _offset IN (10, 11) SETTINGS mutations_sync = 2")
	insert(t, s, "in flight", batch(view, 500, 504))
	if err := s.InsertDeadLetters(t.Context(), "planted dead letter", []event.DeadLetter{{Topic: topic, Offset: 3, KnownAt: minute}}); err != nil {
		t.Fatal(err)
	}
	got, found := audit()
	if got.GapRows != 2 || got.DuplicateRows != 4 || got.Unledgered != 4 || len(found) != 3 {
		t.Errorf("got %+v\n%v", got, found)
	}
	row := ledgerRow(600, 700, "features_2")
	row.Records = 90
	if err := s.InsertLedger(t.Context(), "gap before", row); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertLedger(t.Context(), "overlap", ledgerRow(690, 720, "features_2")); err != nil {
		t.Fatal(err)
	}
	got, _ = audit()
	if got.GapRecords != 100 || got.OverlapRecords != 10 || got.Unbalanced != 10 {
		t.Errorf("got %+v", got)
	}
	frames := must[[]query.Frame](t)(s.Ledger(t.Context(), query.Request{}))
	if v := column(t, frames[0], "gap_records").Values.([]int64); v[0] != 100 {
		t.Errorf("frame: %v", v)
	}
}

func TestDeadLetters(t *testing.T) {
	s := open(t)
	raw := []byte("\xff\xfe\x00'\\\t\n{")
	var dead []event.DeadLetter
	for i := range int64(20) {
		dead = append(dead, event.DeadLetter{Topic: topic, Partition: 2, Offset: i, Index: int32(i % 2), Epoch: 1, KnownAt: minute + i, Reason: event.ReasonType,
			Detail: fmt.Sprintf("column \"x\" row %d", i), Key: []byte("k"), Value: raw, Size: 9})
	}
	dead[3].Reason = event.ReasonFuture
	for range 2 {
		if err := s.InsertDeadLetters(t.Context(), "d", dead); err != nil {
			t.Fatal(err)
		}
	}
	frames := must[[]query.Frame](t)(s.DeadLetters(t.Context(), query.Request{Limit: 7}))
	if o := column(t, frames[0], "offset").Values.([]int64); len(o) != 7 || o[0] != 19 {
		t.Errorf("newest first: %v", o)
	}
	if n := column(t, frames[1], "count").Values.([]int64); !slices.Equal(n, []int64{19, 1}) {
		t.Errorf("counts by reason: %v", n)
	}
	i := int64(0)
	for d, err := range s.DeadLetterRecords(t.Context(), query.Request{}) {
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%v", d) != fmt.Sprintf("%v", dead[i]) {
			t.Errorf("got %+v, want %+v", d, dead[i])
		}
		i++
	}
	if i != 20 {
		t.Errorf("%d records, want 20", i)
	}
	for filter, want := range map[[2]string]int{{"reason", "future"}: 1, {"partition", "2"}: 20, {"partition", "1"}: 0, {"offset", "5"}: 1, {"detail", "ROW 1"}: 11, {"topic", "x' OR 1=1 --"}: 0} {
		f := must[[]query.Frame](t)(s.DeadLetters(t.Context(), query.Request{Filter: map[string]string{filter[0]: filter[1]}}))[0]
		if f.Rows() != want {
			t.Errorf("filter %v: %d, want %d", filter, f.Rows(), want)
		}
	}
	for _, bad := range []map[string]string{{"nope": "1"}, {"offset": "1 OR 1"}} {
		if _, err := s.DeadLetters(t.Context(), query.Request{Filter: bad}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("filter %v: %v", bad, err)
		}
	}
}

func TestDiskAndFreshness(t *testing.T) {
	s := open(t)
	insert(t, s, "a", batch(features(1), 0, 1000))
	if err := s.Prepare(t.Context(), []*event.Schema{features(2)}); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertLedger(t.Context(), "a", ledgerRow(0, 1000, "features_1")); err != nil {
		t.Fatal(err)
	}
	frames := must[[]query.Frame](t)(s.Disk(t.Context(), query.Request{}))
	i := slices.Index(column(t, frames[0], "table").Values.([]string), "features_1")
	if i < 0 || column(t, frames[0], "rows").Values.([]int64)[i] != 1000 || column(t, frames[0], "bytes").Values.([]int64)[i] < 1000 || column(t, frames[0], "rows_a_day").Values.([]float64)[i] != 1000 {
		t.Errorf("disk: %+v", frames[0])
	}
	if d := column(t, frames[1], "days_until_full").Values.([]*float64)[0]; d == nil || *d <= 0 {
		t.Errorf("days until full: %v", d)
	}
	f := must[[]query.Frame](t)(s.Freshness(t.Context(), query.Request{}))[0]
	newest := column(t, f, "newest").Values.([]*time.Time)
	if f.Rows() != 2 || newest[0] == nil || !newest[0].Equal(at(999)) || newest[1] != nil {
		t.Errorf("freshness: %+v", f)
	}
	if f := must[[]query.Frame](t)(s.Freshness(t.Context(), query.Request{View: "view2"}))[0]; f.Rows() != 1 {
		t.Errorf("one view: %d rows", f.Rows())
	}
}

// TestForeignDeadLettersBelongToTheirSource: who maps a topic sees its dead
// letters, and nobody else does.
func TestForeignDeadLettersBelongToTheirSource(t *testing.T) {
	s := open(t)
	dead := []event.DeadLetter{{Topic: "kedge.a.features", KnownAt: minute}, {Topic: "shop.users", KnownAt: minute}, {Topic: "bank.loans", KnownAt: minute}}
	if err := s.InsertDeadLetters(t.Context(), "d", dead); err != nil {
		t.Fatal(err)
	}
	err := s.CopyDefinitions(t.Context(), []store.Definition{
		{Kind: "Source", Namespace: "a", Name: "shop", Offset: 1, Spec: `{"topic":"shop.users","mapping":{}}`},
		{Kind: "Source", Namespace: "a", Name: "shop", Offset: 2, Deleted: true},
		{Kind: "Source", Namespace: "b", Name: "bank", Offset: 3, Spec: `{"topic":"bank.loans","mapping":{}}`},
	})
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]int{"": 3, "a": 2, "b": 1, "c": 0} {
		f := must[[]query.Frame](t)(s.DeadLetters(t.Context(), query.Request{Namespace: namespace}))[0]
		if f.Rows() != want {
			t.Errorf("namespace %q sees %d dead letters, want %d", namespace, f.Rows(), want)
		}
	}
}

// TestRangesThatNoDurationHolds: steps over centuries are refused or counted
// right, and never a panic.
func TestRangesThatNoDurationHolds(t *testing.T) {
	s := open(t)
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		from, to int
		step     time.Duration
		refused  bool
	}{
		{1000, 2026, 0, true}, {2025, 9999, time.Hour, true}, {1700, 2026, 285 * 365 * 24 * time.Hour, true},
		{1800, 2026, 285 * 365 * 24 * time.Hour, false}, {2025, 2026, math.MaxInt64, false}, {1800, 2026, 0, false},
	} {
		frames, err := s.Throughput(t.Context(), query.Request{Kind: "throughput", From: year(c.from), To: year(c.to), Step: query.Duration(c.step)})
		if c.refused != errors.Is(err, store.ErrInvalid) || !c.refused && (err != nil || len(frames) == 0) {
			t.Errorf("%d to %d by %v: %v", c.from, c.to, c.step, err)
		}
	}
}
