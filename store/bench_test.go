package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// twenty is the view of the published numbers: a key and twenty floats.
func twenty() *event.Schema {
	var values []event.Field
	for i := range 20 {
		values = append(values, event.Field{Name: fmt.Sprintf("f%02d", i), Type: scalar(event.Float64)})
	}
	return features(77, values...)
}

// filled is a batch without infinities and with few nulls, keys in no order.
func filled(s *event.Schema, rows int) *event.Batch {
	b := event.NewBatch(s, topic)
	for i := range int64(rows) {
		addRow(b, i)
	}
	key := &b.Columns[s.KeyStart()]
	key.Data, key.StrEnds = key.Data[:0], key.StrEnds[:0]
	for i := range rows {
		addText(key, fmt.Sprintf("user-%05d", i*7919%10007))
	}
	for i := range s.Values() {
		c := &b.Columns[s.ValueStart()+i]
		x := uint64(i + 1)
		for r := range c.Float64s {
			x = x*6364136223846793005 + 1442695040888963407
			c.Float64s[r], c.Nulls[r] = float64(x>>40)/1000, 0
		}
	}
	return b
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// BenchmarkInsert stores blocks of 100,000 rows: encoding, engine, and the
// merges that run meanwhile.
func BenchmarkInsert(b *testing.B) {
	for _, rows := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			s := open(b)
			batch := filled(twenty(), rows)
			insert(b, s, "warm", batch)
			begin, n := cpuSeconds(), 0
			b.ReportAllocs()
			for b.Loop() {
				insert(b, s, fmt.Sprint("unit-", n), batch)
				n++
			}
			b.ReportMetric((cpuSeconds()-begin)/float64(n*rows)*1e6, "cpu-s/Mrow")
			b.ReportMetric(float64(n*rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkEngineOwn is the comparison: the engine reads the same rows from a
// file of JSON lines by itself, into the same table.
func BenchmarkEngineOwn(b *testing.B) {
	const rows = 100_000
	s := open(b)
	insert(b, s, "source", filled(twenty(), rows))
	file := filepath.Join(b.TempDir(), "rows.jsonl")
	run(b, s, "SELECT * FROM features_77 INTO OUTFILE '"+file+"' FORMAT JSONEachRow")
	if st, err := os.Stat(file); err == nil {
		b.Logf("%d bytes a row", st.Size()/rows)
	}
	begin, n := cpuSeconds(), 0
	for b.Loop() {
		run(b, s, fmt.Sprintf("INSERT INTO features_77 SETTINGS insert_deduplication_token = 'own-%d' SELECT * FROM file('%s', 'JSONEachRow')", n, file))
		n++
	}
	b.ReportMetric((cpuSeconds()-begin)/float64(n*rows)*1e6, "cpu-s/Mrow")
}

// BenchmarkDerivation counts a million rows of an hour by twenty columns minute
// by minute, as the monitors do once for what ingest has stored, beside what
// storing them costs.
func BenchmarkDerivation(b *testing.B) {
	const rows, block = 1_000_000, 100_000
	s, schema := open(b), twenty()
	batch := filled(schema, block)
	store100k := func(n int) {
		for i := range block {
			batch.Columns[event.ColEventTime].Int64s[i] = minute + int64((n*block+i)%rows)*3600
			batch.Columns[event.FeatureDelete].Bools[i] = 0
		}
		insert(b, s, fmt.Sprint("unit-", n), batch)
	}
	begin, units := cpuSeconds(), rows/block
	for n := range units {
		store100k(n)
	}
	stored := cpuSeconds() - begin
	sub, from := store.Subject{Kind: event.Features, TableID: schema.TableID}, time.UnixMicro(minute).UTC()
	columns := gridded(b, schema, batch)
	derive := func() error {
		got, err := s.DeriveSummaries(b.Context(), sub, columns, from, from.Add(time.Hour), time.Minute)
		if err == nil && len(got) != 20*60 {
			err = fmt.Errorf("%d windows of columns", len(got))
		}
		return err
	}
	if err := derive(); err != nil {
		b.Fatal(err)
	}
	begin, n := cpuSeconds(), 0
	for b.Loop() {
		if err := derive(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	derived := (cpuSeconds() - begin) / float64(n)
	b.ReportMetric(derived, "cpu-s/Mrow")
	b.ReportMetric(stored, "insert-cpu-s/Mrow")
	b.ReportMetric(derived/stored, "x-insert")
}

// gridded cuts a grid of every column from a batch's first rows.
func gridded(b *testing.B, schema *event.Schema, batch *event.Batch) (out []store.SummaryColumn) {
	b.Helper()
	sample := make([]float64, 20_000)
	for i := range schema.Values() {
		copy(sample, batch.Columns[schema.ValueStart()+i].Float64s)
		g, err := dist.NumericGrid(sample, dist.GridConfig{})
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, store.SummaryColumn{Name: fmt.Sprintf("f%02d", i), Grid: g})
	}
	return out
}

// BenchmarkInsertBesideDerivation stores a million rows of twenty columns, 50,000
// a block and a minute of event_time, in turns alone and while every minute is
// counted as soon as it is there: what monitors do to ingest, which waits for
// nothing of theirs but the processor. Reported: rows stored a second of wall,
// alone and beside, the one in the other, and the share of minutes that were
// counted by the time that the last one was stored.
func BenchmarkInsertBesideDerivation(b *testing.B) {
	const block, blocks = 50_000, 20
	s, schema := open(b), twenty()
	batch := filled(schema, block)
	columns, sub := gridded(b, schema, batch), store.Subject{Kind: event.Features, TableID: schema.TableID}
	var counted atomic.Int64
	stored, counts := 0, int64(0) // minutes that were counted while others were stored
	round := func(beside bool) (wall float64) {
		minutes, done := make(chan time.Time, blocks), make(chan error, 1)
		go func() {
			var failed error
			for at := range minutes {
				if _, err := s.DeriveSummaries(b.Context(), sub, columns, at, at.Add(time.Minute), time.Minute); err != nil {
					failed = err
				}
				counted.Add(1)
			}
			done <- failed
		}()
		begin := time.Now()
		for range blocks {
			at := minute + int64(stored)*60_000_000
			for i := range block {
				batch.Columns[event.ColEventTime].Int64s[i] = at + int64(i)*1000
				batch.Columns[event.FeatureDelete].Bools[i] = 0
			}
			insert(b, s, fmt.Sprint("beside-", stored), batch)
			stored++
			if beside {
				minutes <- time.UnixMicro(at).UTC()
			}
		}
		wall = time.Since(begin).Seconds()
		counts += counted.Load()
		close(minutes)
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		counted.Store(0)
		return wall
	}
	round(true) // the engine's first statements
	counts = 0
	alone, beside, n := 0.0, 0.0, 0
	for b.Loop() {
		alone, beside, n = alone+round(false), beside+round(true), n+1
	}
	rows := float64(n * block * blocks)
	b.ReportMetric(rows/alone, "rows/s-alone")
	b.ReportMetric(rows/beside, "rows/s-beside")
	b.ReportMetric(alone/beside, "x-alone")
	b.ReportMetric(float64(counts)/float64(n*blocks), "counted-meanwhile")
}

func run(t testing.TB, s *store.Store, sql string) {
	t.Helper()
	if err := s.Embedded().Exec(t.Context(), chdb.Statement{SQL: sql}); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
