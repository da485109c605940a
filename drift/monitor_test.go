package drift_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// stream writes rows of one view into a store, with their ledger rows.
type stream struct {
	t      *testing.T
	store  *store.Store
	schema *event.Schema
	offset int64
	topic  string

	batch   *event.Batch // rows that are not written yet
	minutes map[int64]bool
	held    bool
}

func newStream(t *testing.T) *stream {
	t.Helper()
	float := event.ColumnType{Elem: event.Float64}
	return newStreamOf(t, event.Field{Name: "amount", Type: float}, event.Field{Name: "calm", Type: float})
}

// newStreamOf is a stream of other columns.
func newStreamOf(t *testing.T, columns ...event.Field) *stream {
	t.Helper()
	cfg := store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()}
	st, err := store.OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	schema := event.NewSchema(event.Features, "test", "user", 7, []event.Field{{Name: "id", Type: event.ColumnType{Elem: event.String}}}, columns)
	if err := st.Prepare(t.Context(), []*event.Schema{schema}); err != nil {
		t.Fatal(err)
	}
	return &stream{t: t, store: st, schema: schema, topic: "kedge.test.features"}
}

// together writes what f writes as one insert: an engine's inserts are what
// these tests would wait for.
func (s *stream) together(f func()) {
	s.t.Helper()
	s.held = true
	f()
	s.held = false
	s.flush()
}

// write adds one row per value, spread evenly over a range of event_time.
func (s *stream) write(from time.Time, length time.Duration, amounts, calm []float64) {
	s.t.Helper()
	for i := range amounts {
		s.row(from.Add(length*time.Duration(i)/time.Duration(len(amounts))), func(c *event.Column, column int) {
			c.Nulls = append(c.Nulls, 0)
			c.Float64s = append(c.Float64s, [][]float64{amounts, calm}[column][i])
		})
	}
	if !s.held {
		s.flush()
	}
}

// row adds one row to what the next flush writes; put appends the value of each
// column.
func (s *stream) row(at time.Time, put func(c *event.Column, column int)) {
	if s.batch == nil {
		s.batch, s.minutes = event.NewBatch(s.schema, s.topic), map[int64]bool{}
	}
	s.minutes[at.Unix()/60] = true
	for j, f := range s.schema.Fields {
		c := &s.batch.Columns[j]
		if j >= s.schema.ValueStart() && f.Role == event.ValueRole {
			put(c, j-s.schema.ValueStart())
			continue
		}
		s.system(c, at.UnixMicro())
	}
	s.batch.Rows++
}

func (s *stream) flush() {
	s.t.Helper()
	b := s.batch
	row := event.LedgerRow{Topic: b.Topic, From: s.offset, To: s.offset + int64(b.Rows) - 1, Records: int64(b.Rows)}
	for m := range s.minutes {
		row.Windows = append(row.Windows, event.DirtyWindow{Kind: event.Features, TableID: 7, Minute: m})
	}
	token := fmt.Sprint("unit/", s.offset)
	if err := s.store.Insert(s.t.Context(), token, b); err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.InsertLedger(s.t.Context(), token+"/ledger", row); err != nil {
		s.t.Fatal(err)
	}
	s.offset += int64(b.Rows)
	s.batch = nil
}

// system appends what is no value: the time, or the position.
func (s *stream) system(c *event.Column, at int64) {
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, 0)
	}
	switch c.Type.Elem {
	case event.Timestamp:
		c.Int64s = append(c.Int64s, at)
	case event.Int64:
		c.Int64s = append(c.Int64s, s.offset+int64(s.batch.Rows))
	case event.Int32:
		c.Int32s = append(c.Int32s, 0)
	case event.Bool:
		c.Bools = append(c.Bools, 0)
	default:
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	}
}

// From rows in the store to verdicts in the store: the drifted column is named
// and becomes an incident, the other one stays as it was, and late rows raise
// the revision of the window they reach.
func TestMonitorJudgesWhatTheStoreHolds(t *testing.T) {
	s := newStream(t)
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const windows, rows = 30, 120
	length := 10 * time.Minute
	end := start.Add(windows * length)
	s.together(func() {
		for i := range windows + 4 {
			mean := 0.0
			if i >= windows+2 {
				mean = 2
			}
			s.write(start.Add(length*time.Duration(i)), length, normals(rng, rows, mean), normals(rng, rows, 5))
		}
	})
	cfg := drift.DefaultMonitorConfig()
	cfg.Namespace, cfg.Name, cfg.Subject = "test", "user drift", "user"
	cfg.Table, cfg.Columns = store.Subject{Kind: event.Features, TableID: 7}, drift.Numeric("amount", "calm")
	cfg.From, cfg.To, cfg.Window, cfg.Season = start, end, length, 0
	m, err := drift.NewMonitor(cfg, s.store)
	if err != nil {
		t.Fatal(err)
	}
	now := end.Add(4*length + cfg.Lateness)
	got, err := m.Tick(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(cfg.Lateness) // nothing comes any more: the last window closes
	last, err := m.Tick(t.Context(), now)
	if got = append(got, last...); err != nil || len(got) != 4*9 { // windows × (columns × (three questions, one of slow changes) and the rows)
		t.Fatalf("%d verdicts, want 36 (%v)", len(got), err)
	}
	opened := 0
	for _, v := range got {
		late := !v.Start.Before(end.Add(2 * length))
		if want := late && v.Column == "amount" && v.Detector == "ks"; v.Drifted != want || v.Column != "(rows)" && (v.Rows != rows || v.ReferenceRows != windows*rows) {
			t.Errorf("%+v", v)
		}
		if v.Detector == "psi" && (v.Effect > 0.5) != (late && v.Column == "amount") {
			t.Errorf("psi %+v", v)
		}
		if v.Change == "opened" {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("%d incidents opened, want 1", opened)
	}
	if again, err := m.Tick(t.Context(), now.Add(time.Second)); err != nil || len(again) != 0 {
		t.Errorf("nothing new, yet %d verdicts (%v)", len(again), err)
	}
	s.write(end, length, normals(rng, 40, 0), normals(rng, 40, 5))
	revised, err := m.Tick(t.Context(), now.Add(2*time.Second))
	if err != nil || len(revised) != 7 || revised[0].Rows != rows+40 || !revised[0].Start.Equal(end) {
		t.Errorf("late rows gave %+v (%v)", revised, err)
	}
	checkStored(t, s.store, end, now)
	checkKinds(t, s.store, m, end.Add(2*length), end.Add(4*length))
}

// checkKinds asks for the series, the quality and the distribution of the
// drifted windows.
func checkKinds(t *testing.T, st *store.Store, m *drift.Monitor, from, to time.Time) {
	t.Helper()
	r := query.Request{Namespace: "test", View: "user", From: from, To: to, Columns: []string{"amount"}, Detector: "ks"}
	series, err := st.Drift(t.Context(), r)
	if err != nil || len(series) != 1 || series[0].Rows() != 2 || series[0].Columns[1].Values.([]float64)[0] < 0.3 {
		t.Errorf("drift %+v (%v)", series, err)
	}
	quality, err := st.Quality(t.Context(), r)
	if err != nil || len(quality) != 1 || quality[0].Rows() != 2*20 { // columns × minutes
		t.Errorf("quality %+v (%v)", quality, err)
	}
	bins, err := m.Distribution(t.Context(), r)
	if err != nil || len(bins) != 1 || bins[0].Rows() != 10 {
		t.Fatalf("distribution %+v (%v)", bins, err)
	}
	sums := [3]float64{}
	for i := range sums {
		for _, v := range bins[0].Columns[i+1].Values.([]float64) {
			sums[i] += v
		}
		if math.Abs(sums[i]-1) > 1e-9 {
			t.Errorf("%s adds up to %v", bins[0].Columns[i+1].Name, sums[i])
		}
	}
}

// checkStored asks for the verdicts as a panel would.
func checkStored(t *testing.T, st *store.Store, from, to time.Time) {
	t.Helper()
	frames, err := st.Verdicts(t.Context(), query.Request{Namespace: "test", View: "user", From: from, To: to})
	if err != nil || frames[0].Rows() != 36 {
		t.Fatalf("stored verdicts: %d rows (%v)", frames[0].Rows(), err)
	}
	drifted, told := 0, ""
	for _, c := range frames[0].Columns {
		switch c.Name {
		case "drifted":
			for _, d := range c.Values.([]bool) {
				if d {
					drifted++
				}
			}
		case "sentence":
			told = strings.Join(c.Values.([]string), "\n")
		}
	}
	if drifted != 2 || !strings.Contains(told, "amount moved: distance") {
		t.Errorf("%d drifted; %s", drifted, told)
	}
}

func TestMonitorConfigNamesEveryFault(t *testing.T) {
	cfg := drift.DefaultMonitorConfig()
	cfg.Window, cfg.Sample = 90*time.Second, 0
	err := cfg.Validate()
	for _, want := range []string{"name", "columns", "range", "whole minutes", "sample"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the faults %v do not mention %q", err, want)
		}
	}
}
