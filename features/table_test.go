package features

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kedge-ml/kedge/event"
)

func fieldsOf(spec ...string) (fields []event.Field) {
	for _, s := range spec {
		name, typ, _ := strings.Cut(s, " ")
		t, err := event.ParseType(typ)
		if err != nil {
			panic(err)
		}
		fields = append(fields, event.Field{Name: name, Type: t})
	}
	return fields
}

func viewSchema(keys, values []event.Field) *event.Schema {
	return event.NewSchema(event.Features, "demo", "v", 1, keys, values)
}

// factRow is a row as the tests' models hold it: everything by name.
type factRow struct {
	v       Version
	knownAt int64
	deleted bool
	keys    []any // int64, string, bool
	values  map[string]any
}

// addRow appends a row to a batch whose schema may lack some of its columns.
func addRow(b *event.Batch, r factRow) {
	c := b.Columns
	c[event.ColPartition].Int32s = append(c[event.ColPartition].Int32s, r.v.Partition)
	c[event.ColOffset].Int64s = append(c[event.ColOffset].Int64s, r.v.Offset)
	c[event.ColIndex].Int32s = append(c[event.ColIndex].Int32s, r.v.Index)
	c[event.ColEpoch].Int32s = append(c[event.ColEpoch].Int32s, r.v.Epoch)
	c[event.ColEventTime].Int64s = append(c[event.ColEventTime].Int64s, r.v.EventTime)
	c[event.ColCreated].Int64s = append(c[event.ColCreated].Int64s, r.v.Created)
	c[event.ColKnownAt].Int64s = append(c[event.ColKnownAt].Int64s, r.knownAt)
	c[event.ColAppended].Int64s = append(c[event.ColAppended].Int64s, r.knownAt)
	c[event.FeatureDelete].Bools = append(c[event.FeatureDelete].Bools, b2u(r.deleted))
	for _, i := range []int{event.ColID, event.ColTrace, event.ColOverflow} {
		c[i].StrEnds = append(c[i].StrEnds, 0)
	}
	for i := range b.Schema.Keys() {
		addValue(&c[b.Schema.KeyStart()+i], r.keys[i])
	}
	for i, f := range b.Schema.Values() {
		addValue(&c[b.Schema.ValueStart()+i], r.values[f.Name])
	}
	b.Rows++
}

func b2u(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func addValue(c *event.Column, v any) {
	if v == nil {
		c.AppendNull()
		return
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			addValue(c.Items, e)
		}
		c.Ends = append(c.Ends, uint64(c.Items.Len()))
		return
	case string:
		c.Data = append(c.Data, v...)
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	case int64:
		appendNumber(c, number{i: v})
	case float64:
		appendNumber(c, number{float: true, f: v})
	case bool:
		appendNumber(c, number{i: int64(b2u(v))})
	default:
		panic(fmt.Sprintf("value %T", v))
	}
	appendNotNull(c)
}

// valueAt reads a column back as addValue takes it.
func valueAt(c *event.Column, i int) any {
	if c.Type.List {
		from, to := c.Span(i)
		if from == to {
			return nil
		}
		list := []any{}
		for j := from; j < to; j++ {
			list = append(list, valueAt(c.Items, int(j)))
		}
		return list
	}
	if c.Null(i) {
		return nil
	}
	switch c.Type.Elem {
	case event.Bool:
		return c.Bools[i] != 0
	case event.Int32:
		return int64(c.Int32s[i])
	case event.Int64, event.Timestamp:
		return c.Int64s[i]
	case event.Float32:
		return float64(c.Float32s[i])
	case event.Float64:
		return c.Float64s[i]
	}
	return string(c.Str(i))
}

func encodedKey(s *event.Schema, keys []any) []byte {
	b := event.NewBatch(s, "")
	addRow(b, factRow{keys: keys})
	return AppendKey(nil, b.Columns[s.KeyStart():s.ValueStart()], 0)
}

// readRow reads one key the way a request does.
func readRow(t *Table, keys []any, now int64) (row Row, values map[string]any) {
	var rows Rows
	s := t.Schema()
	t.Get(encodedKey(s, keys), now, &rows)
	return rows.Row(0), valuesOf(rows.Row(0), s)
}

// valuesOf reads a row's values back by name.
func valuesOf(row Row, s *event.Schema) map[string]any {
	values := map[string]any{}
	for _, f := range s.Values() {
		c := newColumn(f.Type, true)
		if row.AppendTo(&c, row.Column(f.Name)); c.Len() != 1 {
			panic("AppendTo appended no row")
		}
		values[f.Name] = valueAt(&c, 0)
	}
	return values
}

// lookUp reads keys of a view as a request does.
func lookUp(ctx context.Context, v *View, now int64, rows *Rows, encoded ...[]byte) error {
	var keys Keys
	var round Round
	for _, k := range encoded {
		keys.Add(k)
	}
	v.Look(&keys, now, rows, &round)
	return round.Do(ctx, now)
}

func sameValue(a, b any) bool {
	if x, ok := a.(float64); ok {
		y, ok := b.(float64)
		return ok && math.Float64bits(x) == math.Float64bits(y)
	}
	return fmt.Sprintf("%T%v", a, a) == fmt.Sprintf("%T%v", b, b)
}

// modelAnswer is the brute-force rule: of all rows ever seen for the key with
// event_time at or before now, the largest by the tuple.
func modelAnswer(all []factRow, keys []any, now int64) (best factRow, ok bool) {
	tuple := func(r factRow) [6]int64 {
		return [6]int64{r.v.EventTime, r.v.Created, int64(r.v.Epoch), int64(r.v.Partition), r.v.Offset, int64(r.v.Index)}
	}
	for _, r := range all {
		if r.v.EventTime > now || fmt.Sprintf("%q", r.keys) != fmt.Sprintf("%q", keys) {
			continue
		}
		a, b := tuple(r), tuple(best)
		if !ok || slices.Compare(a[:], b[:]) > 0 {
			best, ok = r, true
		}
	}
	return best, ok && !best.deleted
}

var propertyTypes = []string{"Bool", "Int32", "Int64", "Float32", "Float64", "String", "Timestamp", "Bytes", "Json",
	"List(Int64)", "List(Float64)", "List(String)", "List(Bool)"}

func drawValue(t *rapid.T, typ event.ColumnType) any {
	if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
		return nil
	}
	if typ.List {
		var list []any
		for range rapid.IntRange(0, 5).Draw(t, "len") {
			list = append(list, drawValue(t, event.ColumnType{Elem: typ.Elem}))
		}
		if len(list) == 0 {
			return nil
		}
		return list
	}
	switch typ.Elem {
	case event.Bool:
		return rapid.Bool().Draw(t, "bool")
	case event.Int32:
		return int64(rapid.Int32().Draw(t, "i32"))
	case event.Int64, event.Timestamp:
		return rapid.Int64().Draw(t, "i64")
	case event.Float32:
		return float64(rapid.Float32().Draw(t, "f32"))
	case event.Float64:
		return rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)})).Draw(t, "f64")
	}
	return strings.Repeat(rapid.String().Draw(t, "s"), rapid.SampledFrom([]int{1, 1, 1, 50}).Draw(t, "repeat"))
}

func drawRow(t *rapid.T, s *event.Schema, offset int64) factRow {
	small := rapid.Int64Range(0, 9)
	r := factRow{values: map[string]any{}, deleted: rapid.IntRange(0, 5).Draw(t, "delete") == 0}
	r.v = Version{EventTime: small.Draw(t, "event"), Created: small.Draw(t, "created") / 4, Epoch: int32(small.Draw(t, "epoch") / 5),
		Partition: int32(small.Draw(t, "partition") / 3), Offset: offset, Index: int32(small.Draw(t, "index"))}
	for _, f := range s.Keys() {
		switch f.Type.Elem {
		case event.Int64:
			r.keys = append(r.keys, rapid.Int64Range(0, 2).Draw(t, "key"))
		case event.Bool:
			r.keys = append(r.keys, rapid.Bool().Draw(t, "key"))
		default:
			r.keys = append(r.keys, rapid.SampledFrom([]string{"", "1", "12", "3", "23", "2"}).Draw(t, "key"))
		}
	}
	if r.deleted {
		return r
	}
	for _, f := range s.Values() {
		r.values[f.Name] = drawValue(t, f.Type)
	}
	return r
}

// evolved adds a column, drops one, or widens an Int64, in the schema and in
// the model's rows alike. A column is named by its step: one that is gone does not
// come back as another type.
func evolved(t *rapid.T, s *event.Schema, step int, all []factRow) *event.Schema {
	values := slices.Clone(s.Values())
	switch at := rapid.IntRange(0, len(values)-1).Draw(t, "at"); rapid.IntRange(0, 2).Draw(t, "change") {
	case 0:
		values = slices.Insert(values, at, fieldsOf(fmt.Sprintf("n%d %s", step, rapid.SampledFrom(propertyTypes).Draw(t, "type")))...)
	case 1:
		if len(values) > 1 {
			for _, r := range all {
				delete(r.values, values[at].Name)
			}
			values = slices.Delete(values, at, at+1)
		}
	case 2:
		if e := values[at].Type.Elem; e == event.Int64 {
			values[at].Type.Elem = event.Float64
			for _, r := range all {
				r.values[values[at].Name] = widened(r.values[values[at].Name])
			}
		}
	}
	return viewSchema(s.Keys(), values)
}

func widened(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = widened(v[i])
		}
		return list
	}
	return v
}

// TestBlocksAreReclaimed rewrites strings of changing length for ever and
// wants bounded memory.
func TestBlocksAreReclaimed(t *testing.T) {
	s := viewSchema(fieldsOf("a Int64"), fieldsOf("s String"))
	table := NewTable(s, 0)
	b := event.NewBatch(s, "")
	var peak int
	for round := range int64(300) {
		b.Reset()
		for k := range int64(200) {
			text := strings.Repeat("x", int((k*7+round*131)%3000))
			addRow(b, factRow{keys: []any{k}, v: Version{EventTime: round}, values: map[string]any{"s": text}})
		}
		table.Apply(b, round)
		peak = max(peak, table.Stats().Allocated)
	}
	if st := table.Stats(); peak > 6*200*3000 {
		t.Fatalf("peak %d bytes for 200 keys of ≤ 3000 bytes: %+v", peak, st)
	}
	_, got := readRow(table, []any{int64(9)}, 1000)
	if want := strings.Repeat("x", (9*7+299*131)%3000); got["s"] != want {
		t.Fatalf("row lost its string: %d bytes, want %d", len(got["s"].(string)), len(want))
	}
}

func TestEvictForgetsAndRefuses(t *testing.T) {
	s := viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64"))
	table := NewTable(s, time.Microsecond*5)
	b := event.NewBatch(s, "")
	for k := range int64(100) {
		addRow(b, factRow{keys: []any{k}, v: Version{EventTime: k}, values: map[string]any{"x": k}})
	}
	table.Apply(b, 100)
	if gone := table.Evict(40); gone != 40 {
		t.Fatalf("evicted %d, want 40", gone)
	}
	table.Apply(b, 100)
	for k := range int64(100) {
		if row, _ := readRow(table, []any{k}, 100); row.Found() != (k >= 40) {
			t.Fatalf("key %d found %v", k, row.Found())
		}
	}
	if !table.Expired(94, 100) || table.Expired(95, 100) {
		t.Fatal("ttl: T-ttl is in, one microsecond earlier is out")
	}
}

// TestReadersNeverSeeHalfARow rewrites rows whose columns all state the same
// number, evolves the table meanwhile, and wants every read to agree with
// itself. Run with -race.
func TestReadersNeverSeeHalfARow(t *testing.T) {
	keys := fieldsOf("a String")
	s := viewSchema(keys, fieldsOf("x Int64", "s String", "y Float64"))
	table := NewTable(s, 0)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var rows Rows
			key := []byte(nil)
			for i := int64(0); !done.Load(); i++ {
				rows.Reset()
				key = appendStringKey(key[:0], fmt.Sprint(i%50))
				table.Get(key, 1<<40, &rows)
				checkWhole(t, rows.Row(0))
			}
		})
	}
	var writers sync.WaitGroup
	for p := range int32(2) {
		writers.Go(func() {
			b := event.NewBatch(s, "")
			for v := int64(1); v < 400; v++ {
				b.Reset()
				for k := range 50 {
					n := v*2 + int64(p)
					addRow(b, factRow{keys: []any{fmt.Sprint(k)}, v: Version{EventTime: n, Partition: p, Offset: v},
						values: map[string]any{"x": n, "s": strings.Repeat(fmt.Sprint(n%10), int(n%90)), "y": float64(n)}})
				}
				table.Apply(b, 1<<40)
			}
		})
	}
	for i := range 20 {
		next := viewSchema(keys, append(fieldsOf("x Int64", "s String", "y Float64"), fieldsOf(fmt.Sprintf("n%d String", i))...))
		if err := table.Evolve(next); err != nil {
			t.Error(err)
		}
	}
	writers.Wait()
	done.Store(true)
	wg.Wait()
	if row, got := readRow(table, []any{"7"}, 1<<40); !row.Found() || got["x"] != int64(399*2+1) {
		t.Fatalf("last row is %v", got)
	}
}

func checkWhole(t *testing.T, r Row) {
	if !r.Found() {
		return
	}
	x, y, s := newColumn(fieldsOf("x Int64")[0].Type, true), newColumn(fieldsOf("y Float64")[0].Type, true), newColumn(fieldsOf("s String")[0].Type, true)
	r.AppendTo(&x, r.Column("x"))
	r.AppendTo(&y, r.Column("y"))
	r.AppendTo(&s, r.Column("s"))
	n := x.Int64s[0]
	if r.Version().EventTime != n || y.Float64s[0] != float64(n) || !bytes.Equal(s.Str(0), bytes.Repeat([]byte(fmt.Sprint(n%10)), int(n%90))) {
		t.Errorf("torn row: version %+v x %d y %v s %q", r.Version(), n, y.Float64s[0], s.Str(0))
	}
}

// TestBytesPerRow holds the table to the size that docs/features.md states: an
// Int64 key and 20 floats.
func TestBytesPerRow(t *testing.T) {
	table, _ := bigTable(100_000)
	defer table.Close()
	st := table.Stats()
	perRow, allocated := st.Used/st.Rows, st.Allocated/st.Rows
	t.Logf("%d bytes a row in use, %d allocated", perRow, allocated)
	if l := table.layout.Load(); l.stride != 208 || perRow > 230 {
		t.Fatalf("slot of %d bytes, %d bytes a row: the page says 208 and at most 230", l.stride, perRow)
	}
}
