package features

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// benchServer has one view of 250 floats and 10,000 entities, behind the doors
// that a running Kedge has: a key is looked at, permissions, traces and metrics
// are on. bearer is a header that carries the key.
func benchServer(b testing.TB, sc telemetry.Scope) (h http.Handler, names []string, bearer string) {
	const columns, entities = 250, 10_000
	spec := event.ViewSpec{Origin: event.Declared, Online: true, Keys: []event.FieldSpec{{Name: "entity", Type: event.ColumnType{Elem: event.Int64}}}}
	for i := range columns {
		name := fmt.Sprintf("feature_%d", i)
		spec.Columns = append(spec.Columns, event.FieldSpec{Name: name, Type: event.ColumnType{Elem: event.Float64}})
		names = append(names, "view:"+name)
	}
	raw, err := json.Marshal(spec)
	must(b, err)
	r, err := registry.Open(b.Context(), memlog.New(time.Now))
	must(b, err)
	go func() { _ = r.Run(b.Context()) }()
	_, err = r.Apply(b.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: testNamespace, Name: "view", Op: registry.Put, Spec: raw, Who: "bench"})
	must(b, err)
	o := NewOnline()
	must(b, o.Define(r.State()))
	v := o.View(testNamespace, "view")
	batch := event.NewBatch(v.Schema, "")
	for k := range int64(entities) {
		addRow(batch, factRow{keys: []any{k}, v: Version{EventTime: 1_790_000_000_000_000 + k}, values: benchValues(k, columns)})
	}
	must(b, o.Apply(b.Context(), batch, 1<<60))
	s, err := NewServer(ServerConfig{Scope: sc}, o, nil, nil)
	must(b, err)
	keys := auth.NewKeys(r, nil)
	secret, _, err := keys.Create(b.Context(), auth.Local(testNamespace), "bench", []auth.Grant{{Namespace: testNamespace, Roles: []auth.Role{auth.Viewer}}}, time.Time{})
	must(b, err)
	gate := auth.NewGate(auth.GateConfig{Namespace: testNamespace, Keys: keys})
	mux := web.NewMux(func(pattern string, next http.Handler) http.Handler {
		return gate.Guard(auth.FeatureRead, pattern, next)
	})
	for _, path := range s.Paths() {
		mux.Handle(path, s)
	}
	observed, err := web.Observe(sc, mux)
	must(b, err)
	return web.Secure(web.SameOrigin(false, func(*http.Request, *web.Error) {}, gate.Middleware(observed))), names, "Authorization: Bearer " + secret + "\r\n"
}

func benchValues(k int64, columns int) map[string]any {
	m := map[string]any{}
	for i := range columns {
		m[fmt.Sprintf("feature_%d", i)] = benchValue(k, i)
	}
	return m
}

func benchValue(k int64, i int) float64 { return float64(k*31+int64(i)*7) / 128 }

// bareHandler is what one would write in an hour: encoding/json for the
// request, a Go map for the table, the answer written by hand.
func bareHandler(columns, entities int) http.Handler {
	table := map[int64][]float64{}
	names := map[string]int{}
	for i := range columns {
		names[fmt.Sprintf("view:feature_%d", i)] = i
	}
	for k := range int64(entities) {
		row := make([]float64, columns)
		for i := range row {
			row[i] = benchValue(k, i)
		}
		table[k] = row
	}
	pool := sync.Pool{New: func() any { return new([]byte) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Features []string           `json:"features"`
			Entities map[string][]int64 `json:"entities"`
		}
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		buf := pool.Get().(*[]byte)
		*buf = appendBare((*buf)[:0], table, names, req.Features, req.Entities["entity"])
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(*buf)))
		_, _ = w.Write(*buf)
		pool.Put(buf)
	})
}

func appendBare(out []byte, table map[int64][]float64, names map[string]int, features []string, keys []int64) []byte {
	out = append(out, `{"results":[{"values":[`...)
	for i, k := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, k, 10)
	}
	out = append(out, `]}`...)
	for _, f := range features {
		out = append(out, `,{"values":[`...)
		for i, k := range keys {
			if i > 0 {
				out = append(out, ',')
			}
			out = strconv.AppendFloat(out, table[k][names[f]], 'f', -1, 64)
		}
		for _, tail := range []string{`],"statuses":[`, `],"event_timestamps":[`} {
			out = append(out, tail...)
			word := `"PRESENT"`
			if tail[3] == 'e' {
				word = `"2026-09-21T14:13:20Z"`
			}
			for i := range keys {
				if i > 0 {
					out = append(out, ',')
				}
				out = append(out, word...)
			}
		}
		out = append(out, `]}`...)
	}
	out = append(out, `],"metadata":{"feature_names":["entity"`...)
	for _, f := range features {
		out = append(append(append(out, ',', '"'), f...), '"')
	}
	return append(out, `]}}`...)
}

func benchRequest(names []string, features, rows, from int) []byte {
	entities := make([]int, rows)
	for i := range entities {
		entities[i] = (from*rows + i*37) % 10_000
	}
	body, _ := json.Marshal(map[string]any{"features": names[:features], "entities": map[string]any{"entity": entities}})
	return body
}

var benchShapes = []struct{ rows, features int }{{1, 50}, {100, 50}, {100, 250}}

// BenchmarkHandler runs the handlers without a network.
func BenchmarkHandler(b *testing.B) {
	kedge, names, bearer := benchServer(b, measured(b))
	handlers := map[string]http.Handler{"kedge": kedge, "bare": bareHandler(250, 10_000)}
	for _, s := range benchShapes {
		for _, name := range []string{"kedge", "bare"} {
			b.Run(fmt.Sprintf("%dx%d/%s", s.rows, s.features, name), func(b *testing.B) {
				body := benchRequest(names, s.features, s.rows, 1)
				w := &sink{header: http.Header{}}
				b.ReportAllocs()
				used := cpuTime()
				for b.Loop() {
					r := httptest.NewRequest(http.MethodPost, "/get-online-features", bytes.NewReader(body))
					r.Header.Set("Authorization", strings.TrimSpace(strings.TrimPrefix(bearer, "Authorization: ")))
					handlers[name].ServeHTTP(w, r)
				}
				b.ReportMetric(float64(cpuTime()-used)/float64(b.N), "cpu-ns/op")
				if w.n == 0 {
					b.Fatal("no answer")
				}
			})
		}
	}
}

// cpuTime is what the process has used of all cores: on a busy machine it says
// more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type sink struct {
	header http.Header
	n      int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(b []byte) (int, error) { s.n += len(b); return len(b), nil }

// BenchmarkLoopback asks over four connections of this machine, client and
// server on the same cores.
func BenchmarkLoopback(b *testing.B) {
	kedge, names, bearer := benchServer(b, measured(b))
	handlers := map[string]http.Handler{"kedge": kedge, "bare": bareHandler(250, 10_000)}
	for _, s := range benchShapes {
		for _, name := range []string{"kedge", "bare"} {
			b.Run(fmt.Sprintf("%dx%d/%s", s.rows, s.features, name), func(b *testing.B) {
				srv := httptest.NewServer(handlers[name])
				defer srv.Close()
				var requests [][]byte
				for i := range 64 {
					body := benchRequest(names, s.features, s.rows, i)
					requests = append(requests, fmt.Appendf(nil, "POST /get-online-features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", bearer, len(body), body))
				}
				b.SetParallelism(4 / min(4, runtime.GOMAXPROCS(0)))
				used := cpuTime()
				b.RunParallel(func(pb *testing.PB) { drive(b, srv.Listener.Addr().String(), requests, pb.Next) })
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
				b.ReportMetric(float64(cpuTime()-used)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// drive is a client that costs little: it finds the answer's end and throws it
// away.
func drive(b *testing.B, addr string, requests [][]byte, next func() bool) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	for i := 0; next(); i++ {
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			b.Error(err)
			return
		}
		if err := discardAnswer(r); err != nil {
			b.Error(err)
			return
		}
	}
}

func discardAnswer(r *bufio.Reader) error {
	length, chunked, first := 0, false, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.Contains(line, []byte(" 200 ")) {
			return fmt.Errorf("answer: %s", line)
		}
		first = false
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(n)))
		}
		chunked = chunked || bytes.HasPrefix(line, []byte("Transfer-Encoding: chunked"))
		if len(line) == 2 {
			break
		}
	}
	if !chunked {
		_, err := r.Discard(length)
		return err
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return err
		}
	}
}

// BenchmarkGet reads one row of 20 floats of a table of a million.
func BenchmarkGet(b *testing.B) {
	table, _ := bigTable(1_000_000)
	defer table.Close()
	st := table.Stats()
	b.Run("serial", func(b *testing.B) {
		var rows Rows
		key, k := []byte(nil), int64(0)
		for b.Loop() {
			k = (k*2862933555777941757 + 3037000493) & (1<<62 - 1)
			key = appendIntKey(key[:0], k%1_000_000)
			rows.Reset()
			table.Get(key, 1<<40, &rows)
		}
		b.ReportMetric(float64(st.Used)/float64(st.Rows), "B/row")
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			var rows Rows
			key, k := []byte(nil), int64(7)
			for pb.Next() {
				k = (k*2862933555777941757 + 3037000493) & (1<<62 - 1)
				key = appendIntKey(key[:0], k%1_000_000)
				rows.Reset()
				table.Get(key, 1<<40, &rows)
			}
		})
	})
}

// bigTable has an Int64 key and 20 floats.
func bigTable(rows int64) (*Table, *event.Schema) {
	var columns []string
	for i := range 20 {
		columns = append(columns, fmt.Sprintf("f%d Float64", i))
	}
	s := viewSchema(fieldsOf("k Int64"), fieldsOf(columns...))
	table := NewTable(s, 0)
	for from := int64(0); from < rows; from += 10_000 {
		table.Apply(bigBatch(s, from, 10_000, 1), 1<<40)
	}
	return table, s
}

func bigBatch(s *event.Schema, from, n, at int64) *event.Batch {
	b := event.NewBatch(s, "")
	values := map[string]any{}
	for k := from; k < from+n; k++ {
		for i := range 20 {
			values[fmt.Sprintf("f%d", i)] = float64(k) + float64(i)/16
		}
		addRow(b, factRow{keys: []any{k}, v: Version{EventTime: at, Offset: k}, values: values})
	}
	return b
}

// BenchmarkApply folds batches of 10,000 rows of 20 floats into a table that
// has the keys already.
func BenchmarkApply(b *testing.B) {
	table, s := bigTable(100_000)
	defer table.Close()
	batch := bigBatch(s, 50_000, 10_000, 0)
	at := batch.Columns[event.ColEventTime].Int64s
	now := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		now++
		for i := range at {
			at[i] = now
		}
		table.Apply(batch, 1<<40)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/row")
}

// BenchmarkRestart fills a table of 20 floats from a history of a hundred versions
// of few keys, and of ten of many (a read begins at a price that few keys do not
// spread): from the latest-state table, and by a scan.
func BenchmarkRestart(b *testing.B) {
	for _, shape := range []struct{ keys, versions, together int }{{20_000, 100, 10}, {200_000, 10, 1}} {
		b.Run(fmt.Sprintf("%dx%d", shape.keys, shape.versions), func(b *testing.B) {
			restart(b, shape.keys, shape.versions, shape.together)
		})
	}
}

// restart stores versions of keys, some together in one insert, and fills a table.
func restart(b *testing.B, keys, versions, together int) {
	st := openStore(b)
	_, s := bigTable(0)
	for v := 0; v < versions; v += together {
		batch := bigBatch(s, 0, int64(keys*together), int64(v))
		batch.Topic = FeatureTopic(s.Namespace) // the state is of a view's own topic
		key, at := batch.Columns[s.KeyStart()].Int64s, batch.Columns[event.ColEventTime].Int64s
		for i := range key {
			key[i], at[i] = int64(i%keys), int64(v+i/keys)
		}
		must(b, st.Insert(b.Context(), fmt.Sprint("restart", v), batch))
	}
	now := int64(versions)
	must(b, st.AdvanceLatest(b.Context(), s, map[int32]event.EpochRange{0: {Next: int64(keys * together)}}, now))
	mark, err := st.LatestMark(b.Context(), s)
	must(b, err)
	for name, rows := range map[string]iter.Seq2[*event.Batch, error]{"state": st.LatestState(b.Context(), s, mark, false, 0), "beyond": st.LatestState(b.Context(), s, mark, true, 0), "scan": st.Latest(b.Context(), s, now, 0)} {
		b.Run(name, func(b *testing.B) {
			used := cpuTime()
			for b.Loop() {
				table := NewTable(s, 0)
				must(b, applyAll(rows, s, func(batch *event.Batch) error { return table.apply(b.Context(), batch, now) }))
				if got := table.Stats().Rows; got != keys {
					b.Fatalf("%d keys", got)
				}
				table.Close()
			}
			b.ReportMetric(float64(keys*b.N)/b.Elapsed().Seconds(), "keys/s")
			b.ReportMetric(float64(keys*versions*b.N)/b.Elapsed().Seconds(), "rows-of-history/s")
			b.ReportMetric(float64(cpuTime()-used)/float64(b.N*keys), "cpu-ns/key")
		})
	}
}

// BenchmarkResident holds 10 million rows of 20 floats, every one updated once,
// and reports what the process then takes.
func BenchmarkResident(b *testing.B) {
	const rows, together = 10_000_000, 100_000
	table, s := bigTable(0)
	defer table.Close()
	batch := bigBatch(s, 0, together, 1)
	key, at := batch.Columns[s.KeyStart()].Int64s, batch.Columns[event.ColEventTime].Int64s
	for b.Loop() {
		for round := range int64(2) {
			for from := int64(0); from < rows; from += together {
				for i := range key {
					key[i], at[i] = from+int64(i), round+1
				}
				table.Apply(batch, 1<<40)
			}
		}
	}
	var pages int64
	text, err := os.ReadFile("/proc/self/statm")
	must(b, err)
	_, err = fmt.Sscan(strings.Fields(string(text))[1], &pages)
	must(b, err)
	b.ReportMetric(float64(pages)*float64(os.Getpagesize())/(1<<30), "GiB-resident")
	b.ReportMetric(float64(table.Stats().Rows), "rows")
}
