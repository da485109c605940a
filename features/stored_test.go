package features

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
)

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestJoinStoredRows joins with rows that lie in the engine, in several parts,
// for several kinds of keys.
func TestJoinStoredRows(t *testing.T) {
	st := openStore(t)
	r := rand.New(rand.NewPCG(7, 8))
	for id, keys := range joinKeys {
		s := event.NewSchema(event.Features, "demo", fmt.Sprintf("v%d", id), uint64(100+id), keys, fieldsOf("x Float64", "s String", "l List(Int64)", "unused Bool"))
		rows := randomFacts(r, 200)
		for i := range rows {
			rows[i].keys = randomKey(r, keys)
			if !rows[i].deleted {
				rows[i].values["s"], rows[i].values["l"] = fmt.Sprint(i), []any{int64(i), nil}
			}
		}
		for i := 0; i < len(rows); i += 40 {
			b := event.NewBatch(s, "kedge.demo.features")
			for _, row := range rows[i : i+40] {
				addRow(b, row)
			}
			must(t, st.Insert(t.Context(), fmt.Sprint("t", id, i), b))
		}
		frame, at, asked := event.NewBatch(s, ""), []int64{}, [][]any{}
		for range 300 {
			asked, at = append(asked, randomKey(r, keys)), append(at, r.Int64N(45)-2)
			addRow(frame, factRow{keys: asked[len(asked)-1]})
		}
		rowsOf := st.History(t.Context(), store.HistoryQuery{Schema: s, Columns: []string{"x", "s", "l"}, From: minTime, To: 44, Memory: 1 << 30})
		checkJoinRows(t, s, rows, rowsOf, frame, asked, at, 3, false)
		if ends := firstKeys(keyColumns(frame)[0]); ends != nil { // as of a frame with more than 1,000 keys
			ends = append(slices.Repeat(ends[:1], 1000), ends[len(ends)-1])
			rowsOf = st.History(t.Context(), store.HistoryQuery{Schema: s, Columns: []string{"x", "s", "l"}, From: minTime, To: 44, FirstKeys: ends})
			checkJoinRows(t, s, rows, rowsOf, frame, asked, at, 3, false)
		}
		checkLatest(t, st, s, rows)
	}
}

// Of the keys of a frame the store is told each, or the ends of very many.
func TestFirstKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 1000, 5000} {
		column := newColumn(event.ColumnType{Elem: event.String}, false)
		var all []string
		for range n {
			all = append(all, fmt.Sprint(r.Int64()))
			column.AppendBytes([]byte(all[len(all)-1]))
		}
		slices.Sort(all)
		if got := firstKeys(&column); len(got) != min(n, 1001) || got[0] != all[0] || got[len(got)-1] != all[n-1] || n <= 1000 && !slices.Equal(got, all) {
			t.Errorf("%d keys: %d from %s to %s, want %s to %s", n, len(got), got[0], got[len(got)-1], all[0], all[n-1])
		}
	}
}

func checkLatest(t *testing.T, st *store.Store, s *event.Schema, rows []factRow) {
	t.Helper()
	table := NewTable(s, 0)
	defer table.Close()
	for b, err := range st.Latest(t.Context(), s, 30, 0) {
		must(t, err)
		table.Apply(b, 30)
	}
	for _, r := range rows {
		var mine []factRow
		for _, m := range rows {
			if compareKeys(m.keys, r.keys) == 0 {
				mine = append(mine, m)
			}
		}
		want, status, _ := bruteAsOf(mine, 30, 0, true)
		row, got := readRow(table, r.keys, 30)
		if row.Found() != (status == Present) {
			t.Fatalf("key %q: found %v, want %v", r.keys, row.Found(), status)
		}
		if want != nil && (row.Version() != want.v || !sameValue(got["s"], want.values["s"]) || !sameValue(got["l"], want.values["l"])) {
			t.Fatalf("key %q: %v %v, want %+v", r.keys, row.Version(), got, want)
		}
	}
}
