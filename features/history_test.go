package features

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
)

// library is a History over a store, with two views and what is made of them.
type library struct {
	t       testing.TB
	store   *store.Store
	online  *Online
	history *History
	view    *View // driver
	rows    map[string][]factRow
}

func openLibrary(t testing.TB, memory int64) *library {
	t.Helper()
	r, err := registry.Open(t.Context(), memlog.New(time.Now))
	must(t, err)
	go func() { _ = r.Run(t.Context()) }()
	put := func(kind, name string, spec any) {
		raw, err := json.Marshal(spec)
		must(t, err)
		_, err = r.Apply(t.Context(), registry.Entry{Kind: kind, Namespace: testNamespace, Name: name, Op: registry.Put, Spec: raw, Who: "test"})
		must(t, err)
	}
	view := func(name string, ttl time.Duration, keys, columns []event.Field) {
		spec := event.ViewSpec{Origin: event.Declared, TTL: event.Duration(ttl)}
		for _, f := range keys {
			spec.Keys = append(spec.Keys, event.FieldSpec{Name: f.Name, Type: f.Type})
		}
		for _, f := range columns {
			spec.Columns = append(spec.Columns, event.FieldSpec{Name: f.Name, Type: f.Type})
		}
		put(event.FeatureViewKind, name, spec)
	}
	view("driver", 3*time.Microsecond, fieldsOf("driver_id Int64"), fieldsOf("x Float64", "s String", "l List(Int64)"))
	view("pair", 0, fieldsOf("driver_id Int64", "customer String"), fieldsOf("x Float64", "s String"))
	put(FeatureServiceKind, "svc", ServiceSpec{Features: []string{"driver:x", "pair:s", "twice:double"}})
	put(OnDemandViewKind, "twice", OnDemandSpec{Request: []event.FieldSpec{{Name: "amount", Type: event.ColumnType{Elem: event.Float64}}},
		Features: []OnDemandFeature{{Name: "double", Type: event.ColumnType{Elem: event.Float64}, Expr: "driver.x * 2 + amount"}}})
	l := &library{t: t, store: openStore(t), online: NewOnline(), rows: map[string][]factRow{}}
	must(t, l.online.Define(r.State()))
	l.view = l.online.book(testNamespace).views["driver"]
	l.history = NewHistory(HistoryConfig{Memory: memory}, l.online, l.store)
	return l
}

func (l *library) fill(view string, rows []factRow) {
	s := l.online.book(testNamespace).views[view].Schema
	b := event.NewBatch(s, FeatureTopic(testNamespace))
	for _, r := range rows {
		addRow(b, r)
	}
	must(l.t, l.store.Insert(l.t.Context(), view+fmt.Sprint(len(l.rows[view])), b))
	l.rows[view] = append(l.rows[view], rows...)
}

// TestHistory joins an entity frame of several records with two views and an
// expression, in passes of 1,024 rows, and asks the brute-force rule as well.
func TestHistory(t *testing.T) {
	l := openLibrary(t, 1)
	r := rand.New(rand.NewPCG(9, 10))
	drivers, pairs := randomFacts(r, 120), randomFacts(r, 300)
	for i := range drivers {
		drivers[i].keys = []any{r.Int64N(6)}
	}
	for i := range pairs {
		pairs[i].keys = []any{r.Int64N(6), fmt.Sprint(r.IntN(4))}
		if !pairs[i].deleted {
			pairs[i].values["s"] = fmt.Sprint("p", i)
		}
	}
	l.fill("driver", drivers)
	l.fill("pair", pairs)
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	frame := newEntityFrame(r, mem, 5000)
	var out memoryFrame
	report, err := l.history.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Service: "svc", TimeColumn: "at"}, frame, &out)
	must(t, err)
	if len(frame.records) < 3 || report.Rows != 5000 {
		t.Fatalf("report %+v of %d records", report, len(frame.records))
	}
	notKnown := map[string]int64{}
	for i := range 5000 {
		d, c, at := frame.driver[i], frame.customer[i], frame.at[i]
		x, _, early := bruteAsOf(ofKey(drivers, d), at, 3, false)
		notKnown["driver"] += int64(b2u(early))
		p, _, early := bruteAsOf(ofKey(pairs, d, c), at, 0, false)
		notKnown["pair"] += int64(b2u(early))
		want := []any{d, c, nil, nil, nil}
		if x != nil && x.values["x"] != nil {
			want[2], want[4] = x.values["x"], x.values["x"].(float64)*2+float64(i)
		}
		if p != nil {
			want[3] = p.values["s"]
		}
		got := []any{out.value("driver_id", i), out.value("customer", i), out.value("x", i), out.value("s", i), out.value("double", i)}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("row %d (driver %d customer %s at %d): %v, want %v", i, d, c, at, got, want)
		}
	}
	for v, n := range notKnown {
		if report.Views[v].NotYetKnown != n {
			t.Errorf("view %s: %d rows not known yet, want %d", v, report.Views[v].NotYetKnown, n)
		}
	}
	out.release()
	frame.release()
	mem.AssertSize(t, 0)
}

func ofKey(rows []factRow, key ...any) (out []factRow) {
	for _, r := range rows {
		if compareKeys(r.keys, key) == 0 {
			out = append(out, r)
		}
	}
	return out
}

// entityFrame is an entity frame in memory, 700 rows a record.
type entityFrame struct {
	records  []arrow.RecordBatch
	next     int
	driver   []int64
	customer []string
	at       []int64
}

func newEntityFrame(r *rand.Rand, mem memory.Allocator, n int) *entityFrame {
	f := &entityFrame{}
	s := arrow.NewSchema([]arrow.Field{{Name: "driver_id", Type: arrow.PrimitiveTypes.Int64}, {Name: "amount", Type: arrow.PrimitiveTypes.Float64},
		{Name: "customer", Type: arrow.BinaryTypes.String}, {Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond}}}, nil)
	b := array.NewRecordBuilder(mem, s)
	defer b.Release()
	for i := range n {
		f.driver, f.customer, f.at = append(f.driver, r.Int64N(8)), append(f.customer, fmt.Sprint(r.IntN(5))), append(f.at, r.Int64N(50))
		b.Field(0).(*array.Int64Builder).Append(f.driver[i])
		b.Field(1).(*array.Float64Builder).Append(float64(i))
		b.Field(2).(*array.StringBuilder).Append(f.customer[i])
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(f.at[i]))
		if i%700 == 699 || i == n-1 {
			f.records = append(f.records, b.NewRecordBatch())
		}
	}
	return f
}

func (f *entityFrame) Schema() *arrow.Schema { return f.records[0].Schema() }

func (f *entityFrame) Read() (arrow.RecordBatch, error) {
	if f.next == len(f.records) {
		return nil, io.EOF
	}
	f.next++
	return f.records[f.next-1], nil
}

func (f *entityFrame) release() {
	for _, r := range f.records {
		r.Release()
	}
}

// memoryFrame keeps the answer.
type memoryFrame struct {
	schema  *arrow.Schema
	records []arrow.RecordBatch
	closed  bool
}

func (f *memoryFrame) Open(s *arrow.Schema) error { f.schema = s; return nil }
func (f *memoryFrame) Close() error               { f.closed = true; return nil }
func (f *memoryFrame) Write(r arrow.RecordBatch) error {
	r.Retain()
	f.records = append(f.records, r)
	return nil
}

func (f *memoryFrame) release() {
	for _, r := range f.records {
		r.Release()
	}
}

func (f *memoryFrame) value(name string, row int) any {
	at := f.schema.FieldIndices(name)[0]
	for _, r := range f.records {
		if row < int(r.NumRows()) {
			c := r.Column(at)
			if c.IsNull(row) {
				return nil
			}
			return c.GetOneForMarshal(row)
		}
		row -= int(r.NumRows())
	}
	return "no such row"
}

// TestHistoryFormats sends the same frame through every format and wants the
// same values back.
func TestHistoryFormats(t *testing.T) {
	l := openLibrary(t, 1<<28)
	l.fill("driver", []factRow{{keys: []any{int64(1)}, v: Version{EventTime: 1772366400_000000, Created: 1772366400_000000}, knownAt: 1772366400_000000, values: map[string]any{"x": 1.5, "s": "a,b"}}})
	text := "driver_id,event_timestamp,label\n1,2026-03-01T12:00:00Z,yes\n2,2026-03-01T12:00:00Z,no\n1,2026-03-01 11:59:59.999999,\n1,2026-03-01T12:00:00Z,yes\n"
	want := "driver_id,event_timestamp,label,driver__x,driver__s\n1,T,yes,1.5,\"a,b\"\n2,T,no,,\n1,T,,,\n1,T,yes,1.5,\"a,b\"\n"
	req := HistoryRequest{Namespace: testNamespace, Features: []string{"driver:x", "driver:s"}, FullNames: true}
	input, format := []byte(text), CSV
	for _, to := range []Format{CSV, Arrow, Parquet, CSV} {
		converted := convertFrame(t, input, format, to)
		for _, answer := range []Format{CSV, Parquet, Arrow} {
			in, err := OpenFrame(t.Context(), to, bytes.NewReader(converted), t.TempDir())
			must(t, err)
			var buf bytes.Buffer
			out, err := CreateFrame(answer, &buf)
			must(t, err)
			_, err = l.history.Join(t.Context(), req, in, out)
			must(t, err)
			must(t, in.Close())
			if got := plainTimes(string(convertFrame(t, buf.Bytes(), answer, CSV))); got != want {
				t.Fatalf("%s in, %s out:\n%s\nwant\n%s", to, answer, got, want)
			}
		}
	}
}

// plainTimes replaces the second column: formats print times differently.
func plainTimes(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if parts := strings.SplitN(line, ",", 3); i > 0 && len(parts) == 3 {
			lines[i] = parts[0] + ",T," + parts[2]
		}
	}
	return strings.Join(lines, "\n")
}

func convertFrame(t *testing.T, data []byte, from, to Format) []byte {
	t.Helper()
	in, err := OpenFrame(t.Context(), from, bytes.NewReader(data), t.TempDir())
	must(t, err)
	var buf bytes.Buffer
	out, err := CreateFrame(to, &buf)
	must(t, err)
	must(t, out.Open(in.Schema()))
	for {
		r, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		must(t, out.Write(r))
	}
	must(t, out.Close())
	must(t, in.Close())
	return buf.Bytes()
}

// TestHistoryRefuses names what is wrong with a frame.
func TestHistoryRefuses(t *testing.T) {
	l := openLibrary(t, 1<<28)
	for _, c := range []struct{ features, frame, want string }{
		{"nope:x", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n", "Feature view nope does not exist in project demo"},
		{"driver:nope", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n", "Feature nope not found in projection driver"},
		{"driver", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n", "Invalid feature reference 'driver'"},
		{"driver:x", "driver,event_timestamp\n1,2026-03-01T12:00:00Z\n", `no column "driver_id", a join key`},
		{"driver:x", "driver_id,at\n1,2026-03-01T12:00:00Z\n", `no column "event_timestamp"`},
		{"driver:x", "driver_id,event_timestamp\n1,1772366400\n", "row 0: 1772366400 (int64) is no time"},
		{"driver:x", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n,2026-03-01T12:00:00Z\n", "row 1: join key driver_id is null"},
		{"driver:x", "driver_id,event_timestamp\nabc,2026-03-01T12:00:00Z\n", "row 0: join key driver_id: abc (utf8) is no Int64"},
		{"driver:x", "driver_id,event_timestamp,x\n1,2026-03-01T12:00:00Z,3\n", "two columns of the answer are named x"},
		{"twice:double", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n", "Required request data source features ['amount'] not found"},
		{"driver:l", "driver_id,event_timestamp\n1,2026-03-01T12:00:00Z\n", "which CSV cannot hold"},
		{"driver:x", "", "head line"},
	} {
		in, err := OpenFrame(t.Context(), CSV, strings.NewReader(c.frame), "")
		if err == nil {
			out, _ := CreateFrame(CSV, io.Discard)
			_, err = l.history.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{c.features}}, in, out)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrRequest) && !errors.Is(err, ErrUnknown) {
			t.Errorf("%s of %q: %v, want %q", c.features, c.frame, err, c.want)
		}
	}
}

// TestHistoricalFeaturesHTTP asks over HTTP, right and wrong.
func TestHistoricalFeaturesHTTP(t *testing.T) {
	l := openLibrary(t, 1<<28)
	l.fill("driver", []factRow{
		{keys: []any{int64(1)}, v: Version{EventTime: 1772366400_000000}, knownAt: 1772366400_000000, values: map[string]any{"x": 1.5}},
		{keys: []any{int64(1)}, v: Version{EventTime: 1772366400_000001}, knownAt: 1772366400_000009, values: map[string]any{"x": 2.5}},
	})
	srv := httptest.NewServer(auth.Middleware(testNamespace, &HistoryHandler{History: l.history, MaxBody: 1000, Scope: telemetry.Discard()}))
	defer srv.Close()
	ask := func(query, body string) (int, string, string) {
		resp, err := http.Post(srv.URL+HistoryPath+"?"+query, "text/csv", strings.NewReader(body))
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(text), resp.Trailer.Get(ReportTrailer)
	}
	frame := "driver_id,event_timestamp\n1,2026-03-01T12:00:00.000002Z\n"
	for query, want := range map[string]string{"features=driver:x": "1.5", "features=driver:x&known_at=ignore": "2.5"} {
		status, text, report := ask(query, frame)
		if status != 200 || !strings.HasSuffix(strings.TrimSpace(text), ","+want) || !strings.Contains(report, `"rows":1`) {
			t.Errorf("%s: %d %s, report %s", query, status, text, report)
		}
	}
	for _, c := range []struct {
		query, body, want string
		status            int
	}{
		{"features=driver:nope", frame, "Feature nope not found", 400},
		{"feature_service=nope", frame, "does not exist", 404},
		{"features=driver:x&nope=1", frame, "unknown parameter", 400},
		{"features=driver:x&known_at=x", frame, "respect", 400},
		{"features=driver:x", frame + strings.Repeat("1,2026-03-01T12:00:00Z\n", 100), "larger than 1000 bytes", 413},
		{"features=driver:x", "driver_id,event_timestamp\n1,soon\n", "no time", 400},
	} {
		if status, text, _ := ask(c.query, c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %d %q", c.query, status, text, c.status, c.want)
		}
	}
}

// TestAnswersWithoutRows: a table of nothing has its columns all the same.
func TestAnswersWithoutRows(t *testing.T) {
	l := openLibrary(t, 1<<28)
	for _, format := range []Format{CSV, Parquet, Arrow} {
		var out bytes.Buffer
		in, err := OpenFrame(t.Context(), CSV, strings.NewReader("driver_id,at\n"), t.TempDir())
		must(t, err)
		w, err := CreateFrame(format, &out)
		must(t, err)
		report, err := l.history.Join(t.Context(), HistoryRequest{Namespace: testNamespace, Features: []string{"driver:x", "driver:s"}, TimeColumn: "at"}, in, w)
		must(t, err)
		must(t, in.Close())
		back, err := OpenFrame(t.Context(), format, bytes.NewReader(out.Bytes()), t.TempDir())
		if err != nil {
			t.Errorf("%s: %v in %q", format, err, out.String())
			continue
		}
		if got := frameNames(back.Schema()); report.Rows != 0 || fmt.Sprint(got) != "[driver_id at x s]" {
			t.Errorf("%s: %d rows, columns %v in %q", format, report.Rows, got, out.String())
		}
		must(t, back.Close())
	}
}
