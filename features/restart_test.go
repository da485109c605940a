package features

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// TestRestartFromLatestState advances the latest-state table in steps, rows
// coming late, early and in several epochs in between, and wants a table that is
// filled from it to be the one that a scan of the whole history gives.
func TestRestartFromLatestState(t *testing.T) {
	st := openStore(t)
	r := rand.New(rand.NewPCG(21, 22))
	for id, keys := range joinKeys {
		s := event.NewSchema(event.Features, testNamespace, fmt.Sprintf("v%d", id), uint64(300+id), keys, fieldsOf("x Float64", "s String", "l List(Int64)"))
		rows := randomFacts(r, 240)
		for i := range rows {
			rows[i].keys = randomKey(r, keys)
			rows[i].v.Partition, rows[i].v.Offset = int32(i%3), int64(i/3)
			rows[i].v.Epoch = int32(i / 130)
		}
		for step := range 4 {
			part := rows[step*60 : step*60+60]
			b := event.NewBatch(s, FeatureTopic(testNamespace))
			for _, row := range part {
				addRow(b, row)
			}
			must(t, st.Insert(t.Context(), fmt.Sprint("r", id, step), b))
			if step < 3 { // the last part lies beyond the mark
				ends := map[int32]event.EpochRange{}
				for p := range int32(3) {
					next := int64(step*20 + 20 - int(p)) // partitions stand at different offsets
					ends[p] = event.EpochRange{Epoch: int32((int(next-1)*3 + int(p)) / 130), Next: next}
				}
				must(t, st.AdvanceLatest(t.Context(), s, ends, int64(10+step*10)))
			}
		}
		mark, err := st.LatestMark(t.Context(), s)
		must(t, err)
		if mark.At != 30 || len(mark.Ends) != 3 || mark.Ends[1].Next != 59 {
			t.Fatalf("mark %+v", mark)
		}
		for _, now := range []int64{30, 44, 60} {
			table := NewTable(s, 0)
			must(t, applyAll(st.LatestState(t.Context(), s, mark, true, 0), s, func(b *event.Batch) error { return table.apply(t.Context(), b, now) }))
			for _, row := range rows {
				checkLatestRow(t, table, rows, row.keys, now)
			}
			table.Close()
		}
	}
}

func checkLatestRow(t *testing.T, table *Table, rows []factRow, keys []any, now int64) {
	t.Helper()
	want, status, _ := bruteAsOf(ofKey(rows, keys...), now, 0, true)
	row, got := readRow(table, keys, now)
	if row.Found() != (status == Present) {
		t.Fatalf("key %q at %d: found %v, want %v", keys, now, row.Found(), status)
	}
	if want != nil && (row.Version() != want.v || !sameValue(got["x"], want.values["x"])) {
		t.Fatalf("key %q at %d: %+v %v, want %+v", keys, now, row.Version(), got, want)
	}
}
