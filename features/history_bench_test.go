package features

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// duckDBJoin is DuckDB's join of the same files, by event time alone.
const duckDBJoin = `
import sys, time
import duckdb
d = sys.argv[1]
begin = time.time()
duckdb.sql(f"""COPY (
  SELECT l.*, f.* EXCLUDE (driver_id, event_time, known_at)
  FROM '{d}/labels.parquet' l ASOF LEFT JOIN '{d}/rows.parquet' f
  ON l.driver_id = f.driver_id AND l.event_timestamp >= f.event_time
) TO '{d}/duckdb.parquet' (FORMAT parquet)""")
took = time.time() - begin
peak = next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM"))
print("\n" + str(took), peak)
`

// BenchmarkPointInTime joins a million labels with ten million rows of twenty
// numbers, 100,000 keys, from a Parquet file to a Parquet file: Kedge without
// leaks (event_time and known_at) from its store, and DuckDB by event time from
// a Parquet file, in turns. KEDGE_DUCKDB is the Python of an environment with
// duckdb==2.0.1. KEDGE_BENCH_ROWS says how many rows.
func BenchmarkPointInTime(b *testing.B) {
	python, rows, dir := os.Getenv("KEDGE_DUCKDB"), 10_000_000, b.TempDir()
	if text := os.Getenv("KEDGE_BENCH_ROWS"); text != "" {
		_, err := fmt.Sscan(text, &rows)
		must(b, err)
	}
	h := timedHistory(b, dir, rows)
	for b.Loop() {
		var used syscall.Rusage
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
		before, begin := used, time.Now()
		report := joinFile(b, h, dir)
		ours := time.Since(begin)
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
		b.ReportMetric(ours.Seconds(), "kedge-s")
		b.ReportMetric(cpuSeconds(&used)-cpuSeconds(&before), "kedge-cpu-s")
		b.ReportMetric(float64(report.Views["driver"].NotYetKnown), "not-yet-known")
		if python == "" {
			continue
		}
		cmd := exec.CommandContext(b.Context(), python, "-c", duckDBJoin, dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("duckdb: %v\n%s", err, out)
		}
		var theirs, peak float64               // s, KiB
		text := strings.TrimSpace(string(out)) // a progress bar stands before
		_, err = fmt.Sscan(text[strings.LastIndexByte(text, '\n')+1:], &theirs, &peak)
		must(b, err)
		child := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		b.ReportMetric(theirs, "duckdb-s")
		b.ReportMetric(cpuSeconds(child), "duckdb-cpu-s")
		b.ReportMetric(peak/1024, "duckdb-MiB")
		b.ReportMetric(ours.Seconds()/theirs, "x-duckdb")
	}
	b.ReportMetric(peakMiB(b), "process-MiB")
	if python == "" {
		b.Log("KEDGE_DUCKDB names no Python with duckdb: Kedge alone")
	}
}

func cpuSeconds(u *syscall.Rusage) float64 {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peakMiB is the most that the process ever held, the filling of the store included.
func peakMiB(b *testing.B) float64 {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Maxrss) / 1024
}

func joinFile(b *testing.B, h *History, dir string) *HistoryReport {
	in, err := os.Open(filepath.Join(dir, "labels.parquet"))
	must(b, err)
	defer in.Close() //nolint:errcheck // it was read
	frame, err := OpenFrame(b.Context(), Parquet, in, dir)
	must(b, err)
	defer frame.Close() //nolint:errcheck // it was read
	file, err := os.Create(filepath.Join(dir, "kedge.parquet"))
	must(b, err)
	out, err := CreateFrame(Parquet, file)
	must(b, err)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("driver:x%d", i))
	}
	report, err := h.Join(b.Context(), HistoryRequest{Namespace: testNamespace, Features: names}, frame, out)
	must(b, err)
	if report.Rows != 1_000_000 {
		b.Fatalf("%d rows, want a million", report.Rows)
	}
	return report
}

// timedHistory is a History over a store that the engine filled by itself, and
// writes the same rows and a million labels into dir.
func timedHistory(b *testing.B, dir string, rows int) *History {
	r, err := registry.Open(b.Context(), memlog.New(time.Now))
	must(b, err)
	go func() { _ = r.Run(b.Context()) }()
	spec := fmt.Sprintf(`{"origin":"declared","keys":[{"name":"driver_id","type":"Int64"}],"columns":[%s]}`, strings.Join(each(20, `{"name":"x%d","type":"Float64"}`), ","))
	_, err = r.Apply(b.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: testNamespace, Name: "driver", Op: registry.Put, Spec: []byte(spec), Who: "bench"})
	must(b, err)
	online := NewOnline()
	must(b, online.Define(r.State()))
	st, err := store.OpenEmbedded(b.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(b), DataDir: b.TempDir()})
	must(b, err)
	b.Cleanup(func() { _ = st.Close() }) // a scratch folder
	schema := online.book(testNamespace).views["driver"].Schema
	must(b, st.Prepare(b.Context(), []*event.Schema{schema}))
	exec := func(sql string) {
		must(b, st.Embedded().Exec(context.Background(), chdb.Statement{SQL: sql}))
	}
	const stride = 2_000_000
	values := strings.Join(each(20, "randNormal(0, 1, %d)"), ", ")
	for done := 0; done < rows; done += stride {
		exec(fmt.Sprintf(`INSERT INTO kedge.%s (k_driver_id, event_time, appended_at, known_at, created, %s)
			SELECT cityHash64(number) %% 100000, fromUnixTimestamp64Micro(toInt64(1767225600000000 + number * 250000), 'UTC') AS t, t, addSeconds(t, cityHash64(number, 1) %% 3600), t, %s
			FROM numbers(%d, %d) SETTINGS max_partitions_per_insert_block = 0`, schema.Table(), strings.Join(each(20, "v_x%d"), ", "), values, done, min(stride, rows-done)))
	}
	exec(fmt.Sprintf(`INSERT INTO FUNCTION file('%s/rows.parquet', Parquet) SELECT k_driver_id AS driver_id, event_time, known_at, %s FROM kedge.%s`,
		dir, strings.Join(each(20, "v_x%[1]d AS x%[1]d"), ", "), schema.Table()))
	exec(fmt.Sprintf(`INSERT INTO FUNCTION file('%s/labels.parquet', Parquet) SELECT toInt64(rand64(1) %% 100000) AS driver_id,
		fromUnixTimestamp64Micro(toInt64(1767225600000000 + rand64(2) %% %d), 'UTC') AS event_timestamp, rand(3) %% 2 AS label FROM numbers(1000000)`, dir, rows*250_000))
	testenv.Eventually(b, 10*time.Minute, func() error {
		var merges strings.Builder
		must(b, st.Embedded().Query(b.Context(), chdb.Statement{SQL: "SELECT count() FROM system.merges"}, "TSV", func(p []byte) error { merges.Write(p); return nil }))
		if n := strings.TrimSpace(merges.String()); n != "0" {
			return fmt.Errorf("the engine still does %s merges", n)
		}
		return nil
	})
	return NewHistory(HistoryConfig{}, online, st)
}

func each(n int, format string) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}
