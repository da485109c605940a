package features

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// bruteAsOf is the contract's sentence, row by row: the largest by the
// comparator among rows with event_time ≤ T and known_at ≤ T, then ttl.
func bruteAsOf(rows []factRow, t, ttl int64, leaky bool) (best *factRow, status Status, early bool) {
	var anyTime *factRow
	for i := range rows {
		r := &rows[i]
		if r.v.EventTime > t {
			continue
		}
		if anyTime == nil || newer(r.v, anyTime.v) {
			anyTime = r
		}
		if !leaky && r.knownAt > t {
			continue
		}
		if best == nil || newer(r.v, best.v) {
			best = r
		}
	}
	early = best != anyTime
	switch {
	case best == nil, best.deleted:
		return nil, NotFound, early
	case ttl > 0 && best.v.EventTime < t-ttl:
		return nil, OutsideMaxAge, early
	}
	return best, Present, early
}

// newer is the comparator written out once more.
func newer(a, b Version) bool {
	switch {
	case a.EventTime != b.EventTime:
		return a.EventTime > b.EventTime
	case a.Created != b.Created:
		return a.Created > b.Created
	case a.Epoch != b.Epoch:
		return a.Epoch > b.Epoch
	case a.Partition != b.Partition:
		return a.Partition > b.Partition
	case a.Offset != b.Offset:
		return a.Offset > b.Offset
	}
	return a.Index > b.Index
}

// randomFacts has ties in every part of the comparator, tombstones, nulls,
// exact duplicates of values and rows that become known late.
func randomFacts(r *rand.Rand, n int) []factRow {
	rows := make([]factRow, n)
	for i := range rows {
		e := r.Int64N(20)
		rows[i] = factRow{
			v: Version{EventTime: e, Created: r.Int64N(3), Epoch: r.Int32N(2), Partition: r.Int32N(2), Offset: int64(i), Index: r.Int32N(2)},
			// before its time, at once, late, or by a backfill long after
			knownAt: []int64{e - r.Int64N(5), e, e + r.Int64N(6), e + 10 + r.Int64N(20)}[r.IntN(4)],
			deleted: r.IntN(8) == 0,
			values:  map[string]any{"x": nil},
		}
		if !rows[i].deleted && r.IntN(5) > 0 {
			rows[i].values["x"] = float64(r.IntN(4))
		}
	}
	return rows
}

// TestAsOfAgainstBruteForce asks 100,000 random questions.
func TestAsOfAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for asked := 0; asked < 100_000; {
		rows := randomFacts(r, r.IntN(12))
		ttl, leaky := []int64{0, 0, 3, 7}[r.IntN(4)], r.IntN(4) == 0
		a := &asOf{ttl: ttl, leaky: leaky}
		for i := range rows {
			a.add(fact{v: rows[i].v, known: rows[i].knownAt, deleted: rows[i].deleted, row: i})
		}
		// prepare sorts; rows are found again by their offset
		pruned := int64(minTime)
		for q := int64(-2); q < 50; q++ {
			if r.IntN(10) == 0 {
				a.prune(q)
				pruned = q
			}
			want, status, early := bruteAsOf(rows, q, ttl, leaky)
			got := a.at(q)
			asked++
			if got.status != status || got.early != (early && !leaky) || status == Present && rows[got.row].v != want.v {
				t.Fatalf("at %d (ttl %d, leaky %v, pruned at %d): got row %d %v early %v, want %+v %v early %v\nof %+v",
					q, ttl, leaky, pruned, got.row, got.status, got.early, want, status, early, rows)
			}
		}
	}
}

// TestOnlineIsHistory: what the table holds at T is what the join answers at T,
// when the table is given the rows in the order in which they become known:
// 100,000 questions.
func TestOnlineIsHistory(t *testing.T) {
	s := viewSchema(fieldsOf("k Int64"), fieldsOf("x Float64"))
	r := rand.New(rand.NewPCG(3, 4))
	for asked := 0; asked < 100_000; {
		rows := randomFacts(r, 1+r.IntN(12))
		table := NewTable(s, 5*time.Microsecond)
		for now := int64(-5); now < 50; now++ {
			applyKnown(table, rows, now)
			for ask := range 2 {
				asked++
				row, got := readRow(table, []any{int64(1)}, now)
				want, status, _ := bruteAsOf(rows, now, 5, false)
				state := NotFound
				if row.Found() {
					state = Present
					if table.Expired(row.Version().EventTime, now) {
						state = OutsideMaxAge
					}
				}
				if state != status || status == Present && (row.Version() != want.v || !sameValue(got["x"], want.values["x"])) {
					t.Fatalf("at %d (asked %d): %v %v, want %+v %v", now, ask, state, got, want, status)
				}
			}
		}
		table.Close()
	}
}

// applyKnown gives the table the rows that become known at a moment.
func applyKnown(table *Table, rows []factRow, now int64) {
	b := event.NewBatch(table.Schema(), "")
	for _, r := range rows {
		if r.knownAt == now || now == -5 && r.knownAt <= now {
			r.keys = []any{int64(1)}
			addRow(b, r)
		}
	}
	table.Apply(b, now)
}
