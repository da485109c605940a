package features

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// everyDriver is a frame that asks for each of n drivers as of a time.
func everyDriver(n int, at int64) *entityFrame {
	f := &entityFrame{}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "driver_id", Type: arrow.PrimitiveTypes.Int64}, {Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond}}}, nil))
	defer b.Release()
	for i := range n {
		f.driver = append(f.driver, int64(i*7919%n))
		b.Field(0).(*array.Int64Builder).Append(f.driver[i])
		b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(at))
	}
	f.records = append(f.records, b.NewRecordBatch())
	return f
}

// runsOnDisk counts what the engine has sorted on disk since it started.
func runsOnDisk(t *testing.T, st *store.Store) int {
	t.Helper()
	var out strings.Builder
	must(t, st.Embedded().Query(t.Context(), chdb.Statement{SQL: "SELECT sum(value) FROM system.events WHERE event = 'ExternalSortWritePart'"}, "TSV", func(b []byte) error { out.Write(b); return nil }))
	n, err := strconv.Atoi(strings.TrimSpace(out.String()))
	must(t, err)
	return n
}

// TestHistorySortsOnDisk asks for the newest rows of every key with much and with
// little memory, of Kedge's own table, whose parts the little cannot hold side by
// side, and of an outside table in another order. Either way the answer is what
// the rows were made to give, and with little memory the engine did sort on disk.
func TestHistorySortsOnDisk(t *testing.T) {
	const keys, times, at = 5_000, 80, 78
	t.Run("own", func(t *testing.T) {
		l := openLibrary(t, 1<<30)
		l.view.Spec.TTL = 0
		for part := range times {
			b := event.NewBatch(l.view.Schema, FeatureTopic(testNamespace))
			for i := range keys {
				addRow(b, factRow{keys: []any{int64(i)}, v: Version{EventTime: int64(part), Offset: int64(part*keys + i)},
					values: map[string]any{"x": float64(part*keys + i), "s": fmt.Sprint(part*keys+i, "!")}})
			}
			must(t, l.store.Insert(t.Context(), fmt.Sprint(part), b))
			if part == 0 { // the table is there: from now on its parts stay as many as they are
				must(t, l.store.Embedded().Exec(t.Context(), chdb.Statement{SQL: "SYSTEM STOP MERGES kedge." + chdb.QuoteIdent(l.view.Schema.Table())}))
			}
		}
		check := func(i int, out *memoryFrame, driver int64) {
			if want := at*keys + driver; out.value("x", i) != float64(want) || out.value("s", i) != fmt.Sprint(want, "!") {
				t.Fatalf("driver %d: %v, %.20v, want %d", driver, out.value("x", i), out.value("s", i), want)
			}
		}
		compareMemories(t, l.store, l.online, []string{"driver:x", "driver:s"}, everyDriver(keys, at), check)
	})
	t.Run("outside", func(t *testing.T) {
		const keys, times, at = 20_000, 40, 38 // of which the ttl leaves thirty times
		cfg := store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()}
		cfg.Outside = []store.OutsideTable{{Name: "warehouse spend", Namespaces: []string{testNamespace}, Database: "warehouse", Table: "spend"}}
		st, err := store.OpenEmbedded(t.Context(), cfg)
		must(t, err)
		t.Cleanup(func() { must(t, st.Close()) })
		for _, sql := range []string{"CREATE DATABASE warehouse",
			"CREATE TABLE warehouse.spend (id UInt32, at DateTime64(6, 'UTC'), loaded Nullable(DateTime64(6, 'UTC')), seen DateTime64(6, 'UTC'), amount Nullable(Decimal(9, 1))) ENGINE = MergeTree ORDER BY at",
			fmt.Sprintf("INSERT INTO warehouse.spend SELECT number * 7919 %% %d AS id, fromUnixTimestamp64Micro(toInt64(intDiv(number, %[1]d))) AS moment, null, moment, intDiv(number, %[1]d) * 100000 + id FROM numbers(%d)", keys, times*keys)} {
			must(t, st.Embedded().Exec(t.Context(), chdb.Statement{SQL: sql}))
		}
		online := NewOnline()
		must(t, online.Define(outsideViews(t)))
		check := func(i int, out *memoryFrame, driver int64) {
			if want := float64(at*100_000 + driver); out.value("x", i) != want {
				t.Fatalf("driver %d: %v, want %v", driver, out.value("x", i), want)
			}
		}
		compareMemories(t, st, online, []string{"spend:x"}, everyDriver(keys, at), check)
	})
}

// compareMemories joins a frame in 1 GiB and in 64 MiB, the least that may be set.
func compareMemories(t *testing.T, st *store.Store, online *Online, features []string, frame *entityFrame, check func(int, *memoryFrame, int64)) {
	t.Helper()
	for _, bound := range []int64{1 << 30, 64 << 20} {
		before := runsOnDisk(t, st)
		h := NewHistory(HistoryConfig{Memory: bound}, online, st)
		var out memoryFrame
		frame.next = 0
		report, err := h.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: features, TimeColumn: "at"}, frame, &out)
		must(t, err)
		if report.Rows != int64(len(frame.driver)) {
			t.Fatalf("%d rows, want %d", report.Rows, len(frame.driver))
		}
		for i, driver := range frame.driver {
			check(i, &out, driver)
		}
		out.release()
		if runs := runsOnDisk(t, st) - before; (runs > 0) != (bound < 1<<30) {
			t.Errorf("in %d MiB %d runs were sorted on disk", bound>>20, runs)
		}
	}
}
