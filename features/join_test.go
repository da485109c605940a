package features

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// compareKeys orders tuples as the store does.
func compareKeys(a, b []any) int {
	for i := range a {
		c := 0
		switch x := a[i].(type) {
		case int64:
			c = cmp.Compare(x, b[i].(int64))
		case string:
			c = strings.Compare(x, b[i].(string))
		case bool:
			c = cmp.Compare(b2u(x), b2u(b[i].(bool)))
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// batches yields rows ordered by key and event_time in batches of a size,
// using the same memory for each.
func batches(s *event.Schema, rows []factRow, size int) iter.Seq2[*event.Batch, error] {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b factRow) int {
		return cmp.Or(compareKeys(a.keys, b.keys), cmp.Compare(a.v.EventTime, b.v.EventTime))
	})
	return func(yield func(*event.Batch, error) bool) {
		b := event.NewBatch(s, "")
		for chunk := range slices.Chunk(rows, size) {
			b.Reset()
			for _, r := range chunk {
				addRow(b, r)
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

var joinKeys = [][]event.Field{fieldsOf("a Int64"), fieldsOf("a String"), fieldsOf("a String", "b String"), fieldsOf("a Bool", "b Int64"), fieldsOf("a Int32", "b String")}

func randomKey(r *rand.Rand, keys []event.Field) (out []any) {
	for _, f := range keys {
		switch f.Type.Elem {
		case event.Int64, event.Int32:
			out = append(out, r.Int64N(5)-2)
		case event.Bool:
			out = append(out, r.IntN(2) == 0)
		default:
			out = append(out, []string{"", "\x00", "a", "a\x00", "ab", "b", "é"}[r.IntN(7)])
		}
	}
	return out
}

// TestJoinAgainstBruteForce joins random entity frames, duplicates included,
// with rows that come in batches as small as one row: 100,000 questions.
func TestJoinAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for asked := 0; asked < 100_000; {
		schema := viewSchema(joinKeys[r.IntN(len(joinKeys))], fieldsOf("x Float64", "s String", "l List(Int64)"))
		rows := randomFacts(r, r.IntN(60))
		for i := range rows {
			rows[i].keys = randomKey(r, schema.Keys())
			if !rows[i].deleted {
				rows[i].values["s"] = fmt.Sprint(i)
				rows[i].values["l"] = []any{int64(i), nil}
			}
		}
		frame, at := event.NewBatch(schema, ""), []int64{}
		var keys [][]any
		for range 1 + r.IntN(80) {
			key := randomKey(r, schema.Keys())
			if len(keys) > 0 && r.IntN(3) == 0 {
				key = keys[r.IntN(len(keys))]
			}
			keys, at = append(keys, key), append(at, r.Int64N(45)-2)
			addRow(frame, factRow{keys: key})
		}
		ttl, leaky := []int64{0, 0, 3, 9}[r.IntN(4)], r.IntN(5) == 0
		checkJoin(t, schema, rows, frame, keys, at, ttl, leaky, 1+r.IntN(8))
		checkTwice(t, r, schema, rows, frame, keys, at, ttl, leaky)
		asked += len(at)
	}
}

func keyColumns(b *event.Batch) (out []*event.Column) {
	for i := range b.Schema.Keys() {
		out = append(out, &b.Columns[b.Schema.KeyStart()+i])
	}
	return out
}

func checkJoin(t *testing.T, s *event.Schema, rows []factRow, frame *event.Batch, keys [][]any, at []int64, ttl int64, leaky bool, size int) {
	t.Helper()
	checkJoinRows(t, s, rows, batches(s, rows, size), frame, keys, at, ttl, leaky)
}

func checkJoinRows(t *testing.T, s *event.Schema, rows []factRow, source iter.Seq2[*event.Batch, error], frame *event.Batch, keys [][]any, at []int64, ttl int64, leaky bool) {
	t.Helper()
	want := []string{"l", "x", "s"}
	types := []event.ColumnType{{Elem: event.Int64, List: true}, {Elem: event.Float64}, {Elem: event.String}}
	got, err := join(newQuestions(keyColumns(frame), at), HistoryRange{Schema: s, Columns: want}, types, ttl, leaky, source)
	must(t, err)
	checkJoined(t, got, got, rows, keys, at, want, ttl, leaky)
}

// checkJoined asks the brute-force rule. Statuses may be those of another join of
// the same questions than the values.
func checkJoined(t *testing.T, got, statuses *joined, rows []factRow, keys [][]any, at []int64, want []string, ttl int64, leaky bool) {
	t.Helper()
	early := 0
	for i := range at {
		var mine []factRow
		for _, r := range rows {
			if compareKeys(r.keys, keys[i]) == 0 {
				mine = append(mine, r)
			}
		}
		best, status, wasEarly := bruteAsOf(mine, at[i], ttl, leaky)
		if wasEarly && !leaky {
			early++
		}
		p := int(got.place[i])
		if s := statuses.statuses[statuses.place[i]]; s != status {
			t.Fatalf("question %d key %q at %d: %v, want %v", i, keys[i], at[i], s, status)
		}
		for c, name := range want {
			var expect any
			if best != nil {
				expect = best.values[name]
			}
			if v := valueAt(&got.columns[c], p); !sameValue(v, expect) {
				t.Fatalf("question %d key %q at %d ttl %d leaky %v: %s is %v, want %v", i, keys[i], at[i], ttl, leaky, name, v, expect)
			}
		}
	}
	if got.early != early {
		t.Fatalf("%d rows were not known yet, want %d", got.early, early)
	}
}

// TestPointInTimeProbe answers the questions that Feast was asked.
func TestPointInTimeProbe(t *testing.T) {
	raw, err := os.ReadFile(testenv.Shared(t, "reference/feast/point-in-time-probe.json"))
	must(t, err)
	var probe struct {
		Source []struct {
			Driver         int64 `json:"driver_id"`
			Event, Created string
			F64            *float64
		}
		Entities []int64 `json:"entity_driver_ids"`
		DuckDB   struct {
			F64 []*float64 `json:"f64_by_label"`
		}
		Filtered struct {
			F64 []*float64 `json:"f64_by_label"`
		} `json:"duckdb_filter_by_created_timestamp"`
	}
	must(t, json.Unmarshal(raw, &probe))
	const T = int64(1767268800_000000)
	at := func(s string) int64 {
		total := T
		for rest := strings.TrimPrefix(s, "T"); rest != ""; {
			next := 1 + strings.IndexAny(rest[1:]+"+", "+-")
			d, err := time.ParseDuration(rest[:next])
			must(t, err)
			total, rest = total+d.Microseconds(), rest[next:]
		}
		return total
	}
	s := viewSchema(fieldsOf("driver_id Int64"), fieldsOf("f64 Float64"))
	for _, c := range []struct {
		name      string
		byCreated bool
		want      []*float64
	}{{"Feast's default", false, probe.DuckDB.F64}, {"known when created", true, probe.Filtered.F64}} {
		var rows []factRow
		for i, src := range probe.Source {
			r := factRow{v: Version{EventTime: at(src.Event), Created: at(src.Created), Offset: int64(i)}, keys: []any{src.Driver}, values: map[string]any{}}
			r.knownAt = r.v.Created
			if src.F64 != nil {
				r.values["f64"] = *src.F64
			}
			rows = append(rows, r)
		}
		frame, times := event.NewBatch(s, ""), []int64{}
		for _, d := range probe.Entities {
			addRow(frame, factRow{keys: []any{d}})
			times = append(times, T)
		}
		got, err := join(newQuestions(keyColumns(frame), times), HistoryRange{Schema: s, Columns: []string{"f64"}},
			[]event.ColumnType{{Elem: event.Float64}}, time.Hour.Microseconds(), !c.byCreated, batches(s, rows, 100))
		must(t, err)
		for i, w := range c.want {
			v := valueAt(&got.columns[0], int(got.place[i]))
			if w == nil && v != nil || w != nil && v != *w {
				t.Errorf("%s: label %d: %v, want %v", c.name, i, v, w)
			}
		}
	}
}

// TestSorted sorts what is long enough to be sorted in halves, with ties.
func TestSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 1000, 2*partQuestions + 1} {
		all := make([]int32, n)
		for i := range all {
			all[i] = int32(r.IntN(n/2 + 1))
		}
		want := slices.Clone(all)
		slices.Sort(want)
		if got := sorted(all, cmp.Compare[int32]); !slices.Equal(got, want) {
			t.Errorf("%d numbers came out of order", n)
		}
	}
}
