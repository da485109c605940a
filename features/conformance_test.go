package features

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// subject is one kind of online table. open gives what several processes, one
// handle each, would see of one view.
type subject struct {
	name string
	open func(s *event.Schema, handles int) []rowTable
}

// subjects are all kinds of online tables that there are.
func subjects(t *testing.T) []subject {
	memory := func(s *event.Schema, handles int) (out []rowTable) {
		table := NewTable(s, 0)
		t.Cleanup(table.Close)
		for range handles {
			out = append(out, table)
		}
		return out
	}
	out := []subject{{"memory", memory}}
	servers := map[string]*testenv.Valkey{"valkey": testenv.StartValkey(t), "valkey cluster": testenv.StartValkey(t, "--cluster-enabled", "yes")}
	if _, ok := testenv.RedisServer(); ok {
		servers["redis"], servers["redis cluster"] = testenv.StartRedis(t), testenv.StartRedis(t, "--cluster-enabled", "yes")
	} else {
		t.Log("no redis-server on this machine (Debian's package, for one): Valkey alone")
	}
	for name, v := range servers {
		stores := []*SharedStore{openShared(t, v), openShared(t, v)}
		var uid atomic.Uint64
		out = append(out, subject{name, func(s *event.Schema, handles int) (out []rowTable) {
			id := uid.Add(1)
			for i := range handles {
				out = append(out, stores[i].table(id, s))
			}
			return out
		}})
	}
	return out
}

// TestOnlineTables holds every kind of online table to the same answers.
func TestOnlineTables(t *testing.T) {
	for _, s := range subjects(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Run("model", func(t *testing.T) { rapid.Check(t, s.againstModel) })
			t.Run("tuples", s.tuples)
			t.Run("ttl", s.ttl)
			t.Run("writers", s.writers)
			t.Run("bad schema", s.badSchema)
		})
	}
}

// againstModel applies random rows in random order, with ties and tombstones
// and schemas that grow meanwhile, and asks at random times.
func (s subject) againstModel(t *rapid.T) {
	keys := rapid.SampledFrom([][]event.Field{
		fieldsOf("a Int64"), fieldsOf("a String"), fieldsOf("a String", "b String"), fieldsOf("a Int64", "b String"), fieldsOf("a Int64", "b Bool"),
	}).Draw(t, "keys")
	var values []event.Field
	for i := range rapid.IntRange(1, 6).Draw(t, "columns") {
		values = append(values, fieldsOf(fmt.Sprintf("c%d %s", i, rapid.SampledFrom(propertyTypes).Draw(t, "type")))...)
	}
	schema := viewSchema(keys, values)
	tables := s.open(schema, 2)
	var all []factRow
	now := int64(6)
	for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
		b := event.NewBatch(schema, "")
		for i := range rapid.IntRange(0, 12).Draw(t, "rows") {
			r := drawRow(t, schema, int64(step*100+i))
			all = append(all, r)
			addRow(b, r)
		}
		if rapid.IntRange(0, 2).Draw(t, "evolve") == 0 {
			schema = evolved(t, schema, step, all)
			for _, table := range tables {
				if err := table.Evolve(schema); err != nil {
					t.Fatal(err)
				}
			}
		}
		writer, reader := tables[step%2], tables[1-step%2]
		if err := writer.apply(t.Context(), b, now); err != nil {
			t.Fatal(err)
		}
		now += rapid.Int64Range(0, 2).Draw(t, "passes")
		for _, table := range tables {
			if err := table.tidy(t.Context(), now, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		checkTable(t, reader, all, now)
	}
}

// checkTable asks for every key that rows were given for, and for one that has
// none, at once.
func checkTable(t *rapid.T, table rowTable, all []factRow, now int64) {
	schema := table.state().Schema()
	rows, err := readAll(t, table, schema, all, now)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		row := rows.Row(i)
		want, ok := modelAnswer(all, r.keys, now)
		if row.Found() != ok {
			t.Fatalf("key %v at %d: found %v, want %v", r.keys, now, row.Found(), ok)
		}
		if !ok {
			continue
		}
		if row.Version() != want.v {
			t.Fatalf("key %v at %d: version %+v, want %+v", r.keys, now, row.Version(), want.v)
		}
		got := valuesOf(row, schema)
		for _, f := range schema.Values() {
			if !sameValue(got[f.Name], want.values[f.Name]) {
				t.Fatalf("key %v column %s %s: %v, want %v", r.keys, f.Name, f.Type, got[f.Name], want.values[f.Name])
			}
		}
	}
}

type contexted interface{ Context() context.Context }

func readAll(t contexted, table rowTable, s *event.Schema, all []factRow, now int64) (*Rows, error) {
	var keys Keys
	var rows Rows
	var round Round
	for _, r := range all {
		keys.Add(encodedKey(s, r.keys))
	}
	table.look(&keys, now, &rows, &round)
	return &rows, round.Do(t.Context(), now)
}

func (s subject) tuples(t *testing.T) {
	schema := viewSchema(fieldsOf("a String", "b String"), fieldsOf("x Float64"))
	table := s.open(schema, 1)[0]
	b := event.NewBatch(schema, "")
	addRow(b, factRow{keys: []any{"1", "23"}, v: Version{EventTime: 1, Offset: 1}, values: map[string]any{"x": 111.0}})
	addRow(b, factRow{keys: []any{"12", "3"}, v: Version{EventTime: 2, Offset: 2}, values: map[string]any{"x": 222.0}})
	addRow(b, factRow{keys: []any{"}{", ":*\x00"}, v: Version{EventTime: 2, Offset: 3}, values: map[string]any{"x": 333.0}})
	must(t, table.apply(t.Context(), b, 10))
	asked := []factRow{{keys: []any{"1", "23"}}, {keys: []any{"12", "3"}}, {keys: []any{"123", ""}}, {keys: []any{"}{", ":*\x00"}}, {keys: []any{"1", "23"}}}
	rows, err := readAll(t, table, schema, asked, 10)
	must(t, err)
	for i, want := range []any{111.0, 222.0, nil, 333.0, 111.0} {
		if got := valuesOf(rows.Row(i), schema); got["x"] != want {
			t.Errorf("key %q: %v, want %v", asked[i].keys, got["x"], want)
		}
	}
}

// ttl: T-ttl is in, one microsecond earlier is out; the ttl may change.
func (s subject) ttl(t *testing.T) {
	schema := viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64"))
	table := s.open(schema, 1)[0]
	now := time.Now().UnixMicro()
	table.state().SetTTL(5 * time.Second)
	b := event.NewBatch(schema, "")
	for k, age := range []time.Duration{0, 5 * time.Second, 5*time.Second + time.Microsecond} {
		addRow(b, factRow{keys: []any{int64(k)}, v: Version{EventTime: now - age.Microseconds(), Offset: int64(k)}, values: map[string]any{"x": int64(k)}})
	}
	must(t, table.apply(t.Context(), b, now))
	for k, want := range []Status{Present, Present, OutsideMaxAge} {
		rows, err := readAll(t, table, schema, []factRow{{keys: []any{int64(k)}}}, now)
		must(t, err)
		row := rows.Row(0)
		if !row.Found() || table.state().Expired(row.Version().EventTime, now) != (want == OutsideMaxAge) {
			t.Errorf("key %d: found %v, want %v", k, row.Found(), want)
		}
	}
}

// writers lets two processes apply the same rows in different orders at once;
// what is read afterwards is the model's answer.
func (s subject) writers(t *testing.T) {
	if at, want, got := s.race(t); at != nil {
		t.Fatalf("key %v: %v, want %v", at, got, want)
	}
}

// race returns the first key that ended otherwise than the model has it.
func (s subject) race(t *testing.T) (at []any, want, got any) {
	schema := viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64"))
	tables := s.open(schema, 2)
	r := rand.New(rand.NewPCG(1, 2))
	var all []factRow
	for i := range int64(3000) {
		all = append(all, factRow{keys: []any{r.Int64N(40)}, v: Version{EventTime: r.Int64N(30) - 15, Created: r.Int64N(3), Partition: r.Int32N(2), Offset: i},
			values: map[string]any{"x": i}})
	}
	var busy sync.WaitGroup
	for n, table := range tables {
		rows := append([]factRow(nil), all...)
		rand.New(rand.NewPCG(uint64(n), 3)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		busy.Go(func() {
			for from := 0; from < len(rows); from += 50 {
				b := event.NewBatch(schema, "")
				for _, row := range rows[from : from+50] {
					addRow(b, row)
				}
				if err := table.apply(t.Context(), b, 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
	busy.Wait()
	asked := all[:0:0]
	for k := range int64(40) {
		asked = append(asked, factRow{keys: []any{k}})
	}
	rows, err := readAll(t, tables[0], schema, asked, 100)
	must(t, err)
	for i, r := range asked {
		want, _ := modelAnswer(all, r.keys, 100)
		if got := valuesOf(rows.Row(i), schema); got["x"] != want.values["x"] {
			return r.keys, want.values["x"], got["x"]
		}
	}
	return nil, nil, nil
}

func (s subject) badSchema(t *testing.T) {
	table := s.open(viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64")), 1)[0]
	before := table.state().Schema()
	if err := table.Evolve(viewSchema(fieldsOf("a String"), fieldsOf("x Int64"))); err == nil || !reflect.DeepEqual(table.state().Schema(), before) {
		t.Fatalf("a key of another type was taken: %v", err)
	}
}
