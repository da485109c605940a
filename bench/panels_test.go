// Package bench measures what crosses rooms. It holds no product code.
package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

const days = 30

// view is a subject whose rows the engine makes by itself.
type view struct {
	name    string
	id      uint64
	columns []string
	rows    int
	window  time.Duration // of a judgement
}

// fill makes a table of normal numbers over thirty days, marks its minutes in the
// ledger, and lets a monitor derive and judge every window of it.
func (v view) fill(b *testing.B, st *store.Store, end time.Time) {
	b.Helper()
	var fields []event.Field
	for _, c := range v.columns {
		fields = append(fields, event.Field{Name: c, Type: event.ColumnType{Elem: event.Float64}})
	}
	schema := event.NewSchema(event.Features, "test", v.name, v.id, []event.Field{{Name: "id", Type: event.ColumnType{Elem: event.String}}}, fields)
	if err := st.Prepare(b.Context(), []*event.Schema{schema}); err != nil {
		b.Fatal(err)
	}
	from := end.Add(-days * 24 * time.Hour)
	names, values := []string{"k_id", "event_time", "appended_at", "known_at", "created"}, []string{"toString(number % 1000)"}
	at := fmt.Sprintf("fromUnixTimestamp64Micro(toInt64(%d + 1000 * intDiv(number * %d, %d)), 'UTC')", from.UnixMicro(), days*24*time.Hour.Milliseconds(), v.rows)
	values = append(values, at, at, at, at)
	for i, c := range v.columns {
		names, values = append(names, "v_"+c), append(values, fmt.Sprintf("randNormal(%d, 1, %d)", i%7, i))
	}
	const stride = 2_000_000
	for done := 0; done < v.rows; done += stride {
		sql := fmt.Sprintf("INSERT INTO kedge.%s (%s) SELECT %s FROM numbers(%d, %d) SETTINGS max_partitions_per_insert_block = 0", table(b, st, v.id), strings.Join(names, ", "), strings.Join(values, ", "), done, min(stride, v.rows-done))
		if err := st.Embedded().Exec(b.Context(), chdb.Statement{SQL: sql}); err != nil {
			b.Fatal(err)
		}
	}
	row := event.LedgerRow{Topic: "kedge.test." + v.name, From: 0, To: int64(v.rows) - 1, Records: int64(v.rows)}
	for m := from.Unix() / 60; m < end.Unix()/60; m++ {
		row.Windows = append(row.Windows, event.DirtyWindow{Kind: event.Features, TableID: v.id, Minute: m})
	}
	if err := st.InsertLedger(b.Context(), "ledger/"+v.name, row); err != nil {
		b.Fatal(err)
	}
	cfg := drift.DefaultMonitorConfig()
	cfg.Namespace, cfg.Name, cfg.Subject = "test", "view/"+v.name, v.name
	cfg.Table, cfg.Columns = store.Subject{Kind: event.Features, TableID: v.id}, drift.Numeric(v.columns...)
	cfg.From, cfg.To, cfg.Window = from, from.Add(14*24*time.Hour), v.window
	m, err := drift.NewMonitor(cfg, st)
	if err != nil {
		b.Fatal(err)
	}
	verdicts := 0
	for now, again := end.Add(cfg.Lateness), true; again; now = now.Add(cfg.Lateness) {
		vs, err := m.Tick(b.Context(), now)
		if err != nil {
			b.Fatal(err)
		}
		verdicts, again = verdicts+len(vs), len(vs) > 0 || verdicts == 0
	}
	if verdicts < 1000 {
		b.Fatalf("%s: %d verdicts: it was not derived", v.name, verdicts)
	}
	b.Logf("%s: %d rows × %d columns, %d verdicts", v.name, v.rows, len(v.columns), verdicts)
}

func table(b *testing.B, st *store.Store, id uint64) string {
	b.Helper()
	var name strings.Builder
	sql := fmt.Sprintf("SELECT name FROM system.tables WHERE database = 'kedge' AND name LIKE 'features_%%%d'", id)
	if err := st.Embedded().Query(b.Context(), chdb.Statement{SQL: sql}, "TSV", func(p []byte) error { name.Write(p); return nil }); err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(name.String())
}

// asked is one panel's question.
type asked struct {
	name string
	ask  func(context.Context) ([]query.Frame, error)
}

// panels are those of the Model and Overview dashboards that read derived state.
func panels(st *store.Store, view string, columns []string, end time.Time) (out []asked) {
	add := func(name string, f func(context.Context, query.Request) ([]query.Frame, error), r query.Request) {
		r.Kind, r.Namespace, r.From, r.To = name, "test", end.Add(-days*24*time.Hour), end
		out = append(out, asked{name, func(ctx context.Context) ([]query.Frame, error) { return f(ctx, r) }})
	}
	add("drift_state", st.DriftState, query.Request{})
	add("drift_share", st.DriftShare, query.Request{})
	add("drift_heatmap", st.DriftHeatmap, query.Request{View: view})
	add("verdicts", st.Verdicts, query.Request{View: view, Limit: 50})
	add("incidents", st.Incidents, query.Request{Limit: 50})
	add("quality", st.Quality, query.Request{View: view})
	add("drift", st.Drift, query.Request{View: view, Columns: columns[:min(10, len(columns))]})
	return out
}

// BenchmarkPanelsOverDerivedState asks every panel about thirty days of a view of
// KEDGE_BENCH_ROWS raw rows (20,000,000), and then a dashboard of twenty panels
// about one of a hundred columns, eight at a time as the plugin asks them. Both
// are made by the engine, derived and judged as in production.
func BenchmarkPanelsOverDerivedState(b *testing.B) {
	rows := 20_000_000
	if text := os.Getenv("KEDGE_BENCH_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	st, err := store.OpenEmbedded(b.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(b), DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // a scratch folder
	end := time.Now().UTC().Truncate(time.Hour)
	large := view{name: "large", id: 7, columns: []string{"x", "y", "z"}, rows: rows, window: time.Hour}
	wide := view{name: "wide", id: 8, rows: 200_000, window: 6 * time.Hour}
	for i := range 100 {
		wide.columns = append(wide.columns, fmt.Sprintf("c%02d", i))
	}
	large.fill(b, st, end)
	wide.fill(b, st, end)
	b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
		all := panels(st, large.name, large.columns, end)
		var took []time.Duration
		each := map[string]time.Duration{} // the slowest of each panel
		for i := 0; b.Loop(); i++ {
			p := all[i%len(all)]
			d := timed(b, p)
			took, each[p.name] = append(took, d), max(each[p.name], d)
		}
		b.Logf("slowest of each: %v", each)
		report(b, took)
	})
	b.Run("dashboard=20×100", func(b *testing.B) {
		var all []asked
		for i := 0; len(all) < 20; i += 10 {
			all = append(all, panels(st, wide.name, wide.columns[i:], end)...)
		}
		all = all[:20]
		alone := map[string]time.Duration{}
		for _, p := range all {
			alone[p.name] = timed(b, p)
		}
		b.Logf("one at a time: %v", alone)
		var took []time.Duration
		for b.Loop() {
			start := time.Now()
			var g errgroup.Group
			g.SetLimit(8)
			for _, p := range all {
				g.Go(func() error { _, err := p.ask(b.Context()); return err })
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		report(b, took)
	})
}

func timed(b *testing.B, p asked) time.Duration {
	start := time.Now()
	f, err := p.ask(b.Context())
	if err != nil || len(f) == 0 {
		b.Fatalf("%s: %d frames, %v", p.name, len(f), err)
	}
	return time.Since(start)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.95), "p95-ms")
}
