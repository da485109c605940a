package store_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

func config(t testing.TB) store.EmbeddedConfig {
	return store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()}
}

func open(t testing.TB) *store.Store {
	t.Helper()
	return openAt(t, config(t))
}

func openAt(t testing.TB, cfg store.EmbeddedConfig) *store.Store {
	t.Helper()
	s, err := store.OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// text is an answer of the engine itself, past the store's own reading.
func text(t testing.TB, s *store.Store, sql string) string {
	t.Helper()
	var out []byte
	err := s.Embedded().Query(t.Context(), chdb.Statement{SQL: sql}, "TabSeparatedRaw", func(b []byte) error { out = append(out, b...); return nil })
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for len(out) > 0 && out[len(out)-1] == '\n' {
		out = out[:len(out)-1]
	}
	return string(out)
}

func scalar(e event.Type) event.ColumnType { return event.ColumnType{Elem: e} }

func list(e event.Type) event.ColumnType { return event.ColumnType{Elem: e, List: true} }

// features is a small view: one string key, one float.
func features(id uint64, values ...event.Field) *event.Schema {
	if values == nil {
		values = []event.Field{{Name: "x", Type: scalar(event.Float64)}}
	}
	return event.NewSchema(event.Features, "test", fmt.Sprintf("view%d", id), id, []event.Field{{Name: "user", Type: scalar(event.String)}}, values)
}

const topic = "kedge.test.features"

// minute is 2026-03-01 12:00 UTC in µs.
const minute = int64(1772366400_000000)

// addRow appends row i: offset i, one event a second, made by a formula that
// tests can repeat.
func addRow(b *event.Batch, offset int64) {
	for j, f := range b.Schema.Fields {
		addValue(&b.Columns[j], f, offset, int64(j))
	}
	set := func(col int, v int64) {
		c := &b.Columns[col]
		if c.Type.Elem == event.Int32 {
			c.Int32s[len(c.Int32s)-1] = int32(v)
			return
		}
		c.Int64s[len(c.Int64s)-1] = v
	}
	set(event.ColPartition, 0)
	set(event.ColOffset, offset)
	set(event.ColIndex, 0)
	set(event.ColEpoch, 0)
	at := minute + offset*1_000_000
	set(event.ColEventTime, at)
	set(event.ColCreated, at)
	set(event.ColKnownAt, at+500_000)
	set(event.ColAppended, at+500_000)
	b.Rows++
}

func addValue(c *event.Column, f event.Field, i, j int64) {
	if c.Type.List {
		n := (i + j) % 3
		for k := range n {
			addValue(c.Items, event.Field{Type: scalar(f.Type.Elem), Nullable: true}, i+k, j)
		}
		c.Ends = append(c.Ends, lastEnd(c.Ends)+uint64(n))
		return
	}
	null := f.Nullable && (i+j)%4 == 0
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, map[bool]uint8{true: 1}[null])
	}
	if null {
		i, j = 0, 0
	}
	switch c.Type.Elem {
	case event.Bool:
		c.Bools = append(c.Bools, uint8((i+j)%2))
	case event.Int32:
		c.Int32s = append(c.Int32s, int32(i*7+j))
	case event.Int64, event.Timestamp:
		c.Int64s = append(c.Int64s, i*1_000_003+j)
	case event.Float32:
		c.Float32s = append(c.Float32s, float32(i)+float32(j)/8)
	case event.Float64:
		v := float64(i) + float64(j)/16
		if i == 5 {
			v = math.Inf(1)
		}
		c.Float64s = append(c.Float64s, v)
	case event.FloatMap, event.StringMap, event.TimeMap:
		n := (i + j) % 3
		for k := range n {
			addText(c.Names, fmt.Sprintf("m%d", k))
			addValue(c.Items, event.Field{Type: c.Items.Type}, i+k, j)
		}
		c.Ends = append(c.Ends, lastEnd(c.Ends)+uint64(n))
	default:
		if null {
			addText(c, "")
			return
		}
		addText(c, fmt.Sprintf("t%d-%d", i, j))
	}
}

func addText(c *event.Column, s string) {
	c.Data = append(c.Data, s...)
	c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
}

func lastEnd(e []uint64) uint64 {
	if len(e) == 0 {
		return 0
	}
	return e[len(e)-1]
}

func batch(s *event.Schema, from, to int64) *event.Batch {
	b := event.NewBatch(s, topic)
	for i := from; i < to; i++ {
		addRow(b, i)
	}
	return b
}

func insert(t testing.TB, s *store.Store, token string, b *event.Batch) {
	t.Helper()
	if err := s.Insert(context.Background(), token, b); err != nil {
		t.Fatal(err)
	}
}

func ledgerRow(from, to int64, table string) event.LedgerRow {
	n := to - from
	return event.LedgerRow{
		Topic: topic, From: from, To: to - 1, Records: n, Rows: n, Decoder: 1, Registry: 3,
		Tables:       map[string]int64{table: n},
		Windows:      []event.DirtyWindow{{Kind: event.Features, TableID: 7, Minute: minute / 60_000_000}},
		MaxEventTime: minute + to*1_000_000, MinKnownAt: minute + from*1_000_000 + 500_000, MaxKnownAt: minute + to*1_000_000,
		MinAppended: minute + from*1_000_000 + 500_000, MaxAppended: minute + to*1_000_000,
	}
}
