package drift_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

const (
	wideRows  = 1_500 // of a window of 15 minutes
	wideTable = 9
)

// wide is a view of many numbers and of dimensions with 20, 20 and 7 frequent
// values: with the rest of each, 50 segments.
type wide struct {
	b      *testing.B
	store  *store.Store
	schema *event.Schema
	rng    *rand.Rand
	offset int64
}

func wideDimensions() map[string]int { return map[string]int{"a": 24, "b": 24, "c": 7} }

func newWide(b *testing.B, columns int) *wide {
	b.Helper()
	st, err := store.OpenEmbedded(b.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(b), DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	text, float := event.ColumnType{Elem: event.String}, event.ColumnType{Elem: event.Float64}
	fields := []event.Field{{Name: "a", Type: text}, {Name: "b", Type: text}, {Name: "c", Type: text}}
	for i := range columns {
		fields = append(fields, event.Field{Name: fmt.Sprintf("x%03d", i), Type: float})
	}
	schema := event.NewSchema(event.Features, "test", "wide", wideTable, []event.Field{{Name: "id", Type: text}}, fields)
	if err := st.Prepare(b.Context(), []*event.Schema{schema}); err != nil {
		b.Fatal(err)
	}
	return &wide{b: b, store: st, schema: schema, rng: rand.New(rand.NewPCG(8, 9))}
}

// window writes a window's rows.
func (w *wide) window(start time.Time) {
	w.b.Helper()
	batch := event.NewBatch(w.schema, "kedge.test.features")
	dims := wideDimensions()
	row := event.LedgerRow{Topic: batch.Topic, From: w.offset, To: w.offset + wideRows - 1, Records: wideRows}
	for i := range wideRows {
		at := start.Add(15 * time.Minute * time.Duration(i) / wideRows)
		for j, f := range w.schema.Fields {
			w.value(&batch.Columns[j], at.UnixMicro(), dims[f.Name])
		}
		batch.Rows++
		if m := at.Unix() / 60; len(row.Windows) == 0 || row.Windows[len(row.Windows)-1].Minute != m {
			row.Windows = append(row.Windows, event.DirtyWindow{Kind: event.Features, TableID: wideTable, Minute: m})
		}
	}
	token := fmt.Sprint("wide/", w.offset)
	if err := w.store.Insert(w.b.Context(), token, batch); err != nil {
		w.b.Fatal(err)
	}
	if err := w.store.InsertLedger(w.b.Context(), token+"/ledger", row); err != nil {
		w.b.Fatal(err)
	}
	w.offset += wideRows
}

func (w *wide) value(c *event.Column, at int64, values int) {
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, 0)
	}
	switch c.Type.Elem {
	case event.Timestamp:
		c.Int64s = append(c.Int64s, at)
	case event.Int64:
		c.Int64s = append(c.Int64s, w.offset)
	case event.Int32:
		c.Int32s = append(c.Int32s, 0)
	case event.Bool:
		c.Bools = append(c.Bools, 0)
	case event.Float64:
		c.Float64s = append(c.Float64s, w.rng.NormFloat64())
	default:
		if values > 0 {
			c.Data = append(c.Data, fmt.Sprint("v", w.rng.IntN(values))...)
		}
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	}
}

// cpuSeconds are those of this process, the engine in it included.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// memory reads a line of /proc/self/status, in MiB.
func memory(b *testing.B, line string) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"+line+":"))
	kb, err := strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}

// A monitor of columns by 50 segments, every 15 minutes: what it costs to learn,
// and what a window costs, beside the same columns without segments. These are
// the constants of [drift.Cost].
func BenchmarkMonitorBy50Segments(b *testing.B) {
	for _, columns := range []int{60, 300} {
		for _, segments := range [][]string{nil, {"a", "b", "c"}} {
			b.Run(fmt.Sprintf("columns=%d/dimensions=%d", columns, len(segments)), func(b *testing.B) {
				for b.Loop() {
					measureWide(b, columns, segments)
				}
			})
		}
	}
}

func measureWide(b *testing.B, columns int, segments []string) {
	w := newWide(b, columns)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const learnt, judged = 24, 3
	for i := range learnt {
		w.window(begin.Add(time.Duration(i) * 15 * time.Minute))
	}
	end := begin.Add(learnt * 15 * time.Minute)
	cfg := drift.DefaultMonitorConfig()
	cfg.Namespace, cfg.Name, cfg.Subject = "test", "wide", "wide"
	cfg.Table, cfg.Segments = store.Subject{Kind: event.Features, TableID: wideTable}, segments
	for i := range columns {
		cfg.Columns = append(cfg.Columns, drift.Numeric(fmt.Sprintf("x%03d", i))...)
	}
	cfg.From, cfg.To, cfg.Window, cfg.Season = begin, end, 15*time.Minute, 0
	m, err := drift.NewMonitor(cfg, w.store)
	if err != nil {
		b.Fatal(err)
	}
	tick := func(at time.Time) {
		b.Helper()
		if _, err := m.Tick(b.Context(), at); err != nil {
			b.Fatal(err)
		}
	}
	before, began := memory(b, "VmRSS"), cpuSeconds(b)
	tick(end.Add(6 * time.Minute)) // the reference is learnt once late rows of it had their time
	b.ReportMetric(cpuSeconds(b)-began, "cpu-s/learn")
	spent := 0.0
	for i := range judged {
		w.window(end.Add(time.Duration(i) * 15 * time.Minute))
		began := cpuSeconds(b)
		tick(end.Add(time.Duration(i+1)*15*time.Minute + 6*time.Minute))
		if i > 0 { // the first one brings what ticks share
			spent += cpuSeconds(b) - began
		}
	}
	b.ReportMetric(spent/(judged-1), "cpu-s/window")
	b.ReportMetric(memory(b, "VmHWM")-before, "MiB-more")
	frames, err := w.store.Disk(b.Context(), query.Request{})
	if err != nil {
		b.Fatal(err)
	}
	bytes, rows := frames[0].Columns[1].Values.([]int64), frames[0].Columns[2].Values.([]int64)
	for i, table := range frames[0].Columns[0].Values.([]string) {
		if table == "summaries" || table == "verdicts" || table == "segment_verdicts" {
			b.ReportMetric(float64(rows[i])/judged, table+"-rows/window")
			b.ReportMetric(float64(bytes[i])/max(float64(rows[i]), 1), table+"-bytes/row")
		}
	}
}
