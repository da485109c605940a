package serving

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// weights is a predictor whose answers a test can work out: the weighted sum
// of a row.
type weights []float32

func (w weights) Features() int { return len(w) }
func (w weights) Outputs() int  { return 1 }
func (w weights) Groups() int   { return 1 }

func (w weights) Predict(out, rows []float32) {
	for i := range out {
		out[i] = 0
		for j, x := range rows[i*len(w) : (i+1)*len(w)] {
			out[i] += w[j] * x
		}
	}
}

func (w weights) Contributions(out []float64, rows []float32) {
	for i := range len(rows) / len(w) {
		for j := range w {
			out[i*(len(w)+1)+j] = float64(w[j] * rows[i*len(w)+j])
		}
	}
}

func sum(version string, w ...float32) Model {
	sig := &model.Signature{Format: model.FormatVersion, Kind: model.Linear, Task: model.Regression, Outputs: []model.Output{{Name: "prediction", Width: 1}}}
	for i := range w {
		sig.Inputs = append(sig.Inputs, model.Input{Name: fmt.Sprintf("f%d", i), Type: "Float32"})
	}
	return Model{Name: "fraud", Version: version, Signature: sig, Predictor: weights(w)}
}

// rig is a server with a real broker behind it.
type rig struct {
	t      testing.TB
	s      *Server
	http   struct{ URL string }
	client *stream.Client
	stop   func()
}

func newRig(t testing.TB) *rig {
	t.Helper()
	b, err := broker.Start(broker.Config{Addr: "127.0.0.1:0", DefaultPartitions: 2, AutoCreateTopics: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureTopics(context.Background(), []stream.TopicSpec{{Name: "kedge.default.predictions", Partitions: 2}}); err != nil {
		t.Fatal(err)
	}
	p := c.Producer(stream.ProducerConfig{})
	s := NewServer(DefaultConfig(), p, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &rig{t: t, s: s, client: c}
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() { r.stop(); p.Close(); c.Close(); b.Close() })
	r.http.URL = "http://" + serve(t, s)
	return r
}

// serve answers a server's routes on a loopback port, as Kedge's own port does.
func serve(t testing.TB, s *Server) (addr string) {
	t.Helper()
	mux := http.NewServeMux()
	for _, r := range Routes(s) {
		mux.Handle(r.Pattern, r.Handler)
	}
	return listen(t, mux, PlainPaths())
}

// listen serves until the test ends.
func listen(t testing.TB, h http.Handler, plain []string) (addr string) {
	t.Helper()
	ln, err := web.Listen("HTTP", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- web.Serve(ctx, ln, h, web.Limits{Header: time.Minute, Body: time.Minute, Write: time.Minute, Plain: plain}, time.Minute, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func (r *rig) post(path, body string, header ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest("POST", r.http.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(out), res.Header
}

func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	res, err := http.Get(r.http.URL + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	out, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(out)
}

// recorded reads the predictions topic back once n records are in it.
func (r *rig) recorded(n int) []map[string]any {
	r.t.Helper()
	ctx := context.Background()
	parts := []stream.TopicPartition{{Topic: "kedge.default.predictions", Partition: 0}, {Topic: "kedge.default.predictions", Partition: 1}}
	var out []map[string]any
	testenv.Eventually(r.t, 10*time.Second, func() error {
		offsets, err := r.client.Offsets(ctx, parts...)
		if err != nil {
			return err
		}
		out = out[:0]
		for _, tp := range parts {
			if offsets[tp].Last == 0 {
				continue
			}
			for b, err := range r.client.FetchRange(ctx, tp, 0, offsets[tp].Last-1) {
				if err != nil {
					return err
				}
				for _, rec := range b.Records {
					rows, err := rowsOf(rec)
					if err != nil {
						return err
					}
					out = append(out, rows...)
				}
				b.Release()
			}
		}
		if len(out) < n {
			return fmt.Errorf("%d of %d predictions are recorded", len(out), n)
		}
		return nil
	})
	return out
}

// rowsOf reads the predictions of a record, packed or not, whose ids must begin
// with its key.
func rowsOf(rec stream.Record) ([]map[string]any, error) {
	texts := [][]byte{rec.Value}
	if event.IsPacked(rec.Value) {
		var err error
		if texts, err = event.UnpackPredictions(rec.Value); err != nil {
			return nil, err
		}
	}
	var out []map[string]any
	for _, text := range texts {
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, err
		}
		if id := m["id"].(string); id != string(rec.Key) && !strings.HasPrefix(id, string(rec.Key)+"/") {
			return nil, fmt.Errorf("key %q of prediction %v", rec.Key, id)
		}
		out = append(out, m)
	}
	return out, nil
}

func TestInferAndRecord(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	status, body, header := r.post("/v2/models/fraud/infer", `{"id":"p1","inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[3,0.5]}]}`)
	want := `{"model_name":"fraud","model_version":"1","id":"p1","parameters":{"prediction_id":"p1","variant":"champion"},"outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"data":[8.0]}]}`
	if status != 200 || body != want || header.Get("Kedge-Variant") != "champion" {
		t.Fatalf("%d %s\nwant %s", status, body, want)
	}
	status, body, _ = r.post("/v2/models/fraud/infer", `{"inputs":[{"name":"f1","shape":[2],"datatype":"FP32","data":[1,2]},{"name":"f0","shape":[2,1],"datatype":"FP32","data":["NaN",4]}],"outputs":[{"name":"prediction"}]}`)
	if status != 200 || !strings.Contains(body, `"data":["NaN",24.0]`) {
		t.Fatalf("one tensor an input: %d %s", status, body)
	}
	got := r.recorded(3)
	byID := map[string]map[string]any{}
	for _, p := range got {
		byID[p["id"].(string)] = p
	}
	first := byID["p1"]
	if first == nil || fmt.Sprint(first["inputs"]) != "map[f0:3 f1:0.5]" || fmt.Sprint(first["output"]) != "map[value:8]" || first["version"] != "1" || first["variant"] != "champion" {
		t.Errorf("the record of p1: %v", first)
	}
	if len(byID) != 3 {
		t.Errorf("%d ids for 3 rows", len(byID))
	}
	if c := r.s.Records(); c.Recorded != 3 || c.Dropped+c.Failed+c.Sampled != 0 {
		t.Errorf("counts: %+v", c)
	}
}

func TestBinaryInfer(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	head := `{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}`
	body := []byte(head)
	for _, v := range []float32{3, 0.5} {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
	}
	status, out, header := r.post("/v2/models/fraud/infer", string(body), headerLength, fmt.Sprint(len(head)))
	var n int
	fmt.Sscan(header.Get(headerLength), &n)
	if status != 200 || n == 0 || math.Float32frombits(binary.LittleEndian.Uint32([]byte(out[n:]))) != 8 {
		t.Errorf("%d, header %q: %q", status, header.Get(headerLength), out)
	}
}

// TestRefusalsOverHTTP holds the status and a word of each refusal.
func TestRefusalsOverHTTP(t *testing.T) {
	r := newRig(t)
	m := sum("1", 1, 10)
	if err := r.s.Load(m); err != nil {
		t.Fatal(err)
	}
	cat := sum("1", 1)
	cat.Name, cat.Signature.Inputs = "cat", []model.Input{{Name: "c", Type: "String", Categories: []string{"a", "b"}}}
	if err := r.s.Load(cat); err != nil {
		t.Fatal(err)
	}
	in := func(name, shape, datatype, data string) string {
		return fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":%q,"data":%s}]}`, name, shape, datatype, data)
	}
	for _, c := range []struct {
		path, body string
		status     int
		word       string
	}{
		{"/v2/models/nope/infer", in("x", "[1]", "FP32", "[1]"), 404, "not found"},
		{"/v2/models/fraud/versions/9/infer", in("x", "[1]", "FP32", "[1]"), 404, "no version"},
		{"/v2/models/fraud/infer", `{`, 400, "malformed"},
		{"/v2/models/fraud/infer", in("input", "[1,3]", "FP32", "[1,2,3]"), 400, "want [rows, 2]"},
		{"/v2/models/fraud/infer", in("input", "[1,2]", "INT64", "[1,2]"), 400, "FP32 or FP64"},
		{"/v2/models/fraud/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP32","data":[1]},{"name":"zz","shape":[1],"datatype":"FP32","data":[1]}]}`, 400, "unexpected input"},
		{"/v2/models/fraud/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP32","data":[1]},{"name":"f1","shape":[2],"datatype":"FP32","data":[1,2]}]}`, 400, "has 2 rows"},
		{"/v2/models/cat/infer", in("c", "[1]", "BYTES", `["z"]`), 400, "never met"},
		{"/v2/models/cat/infer", in("c", "[1]", "FP32", `[1]`), 400, "takes BYTES"},
		{"/v2/models/fraud/infer", strings.Replace(in("input", "[1,2]", "FP32", "[1,2]"), "{", `{"outputs":[{"name":"other"}],`, 1), 400, "unexpected output"},
		{"/v2/models/fraud/infer", strings.Replace(in("input", "[1,2]", "FP32", "[1,2]"), "{", `{"parameters":{"timeout":1},"pad":"`+strings.Repeat("x", 3<<20)+`",`, 1), 504, "deadline"},
		{"/v2/models/fraud/infer", strings.Repeat(" ", 17<<20), 413, "more than"},
	} {
		if c.status == 504 {
			continue // timing belongs to TestGate
		}
		status, body, _ := r.post(c.path, c.body)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || !strings.Contains(e.Error, c.word) {
			t.Errorf("%s %.60s\n got %d %s\nwant %d …%s…", c.path, c.body, status, body, c.status, c.word)
		}
	}
	if status, body, _ := r.post("/v2/models/fraud/infer", "x", "Content-Encoding", "gzip"); status != 400 {
		t.Errorf("gzip: %d %s", status, body)
	}
}

func TestMetadata(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/v2":                               `"name":"kedge"`,
		"/v2/health/live":                   `{"live":true}`,
		"/v2/health/ready":                  `"ready":true`,
		"/v2/models/fraud":                  `{"name":"fraud","versions":["1"],"platform":"kedge_linear-json","inputs":[{"name":"input","datatype":"FP32","shape":[-1,2]}],"outputs":[{"name":"prediction","datatype":"FP32","shape":[-1]}]}`,
		"/v2/models/fraud/versions/1/ready": `{"name":"fraud","ready":true}`,
		"/v2/models/fraud/config":           `"data_type":"TYPE_FP32"`,
		"/v2/models/fraud/stats":            `"inference_count":0`,
		"/v2/models/stats":                  `"model_stats":[{"name":"fraud"`,
	} {
		status, body := r.get(path)
		if status != 200 || !strings.Contains(body, want) || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := r.get("/v2/models/nope/ready"); status != 404 {
		t.Errorf("unknown model: %d %s", status, body)
	}
	if status, body, _ := r.post("/v2/repository/index", ""); status != 200 || body != `[{"name":"fraud","version":"1","state":"READY"}]` {
		t.Errorf("index: %d %s", status, body)
	}
}

// TestSwapUnderLoad replaces the champion a hundred times while requests run:
// none fails, and each answer belongs to the version that it names.
func TestSwapUnderLoad(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("0", 0, 1)); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var served atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				status, body, _ := r.post("/v2/models/fraud/infer", `{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[1,0]}]}`)
				var a struct {
					Version string `json:"model_version"`
					Outputs []struct{ Data []float64 }
				}
				if err := json.Unmarshal([]byte(body), &a); status != 200 || err != nil || a.Version != fmt.Sprint(a.Outputs[0].Data[0]) {
					t.Errorf("%d %s", status, body)
					return
				}
				served.Add(1)
			}
		})
	}
	for v := 1; v <= 100; v++ {
		at := served.Load()
		if err := r.s.Load(sum(fmt.Sprint(v), float32(v), 1)); err != nil {
			t.Fatal(err)
		}
		if err := r.s.SetRouting("fraud", Routing{Champion: fmt.Sprint(v)}, Block); err != nil {
			t.Fatal(err)
		}
		if err := r.s.Unload("fraud", fmt.Sprint(v-1)); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			if served.Load() == at && !t.Failed() {
				return fmt.Errorf("no request since swap %d", v)
			}
			return nil
		})
	}
	stop.Store(true)
	wg.Wait()
	if err := r.s.Unload("fraud", "100"); err == nil {
		t.Error("the champion was unloaded")
	}
	t.Logf("%d requests over 100 swaps", served.Load())
}

// TestShadowsAndPins holds that a shadow is recorded and never answers.
func TestShadowsAndPins(t *testing.T) {
	r := newRig(t)
	for v, w := range map[string]float32{"1": 1, "2": 2} {
		if err := r.s.Load(sum(v, w, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.s.SetRouting("fraud", Routing{Champion: "1", Shadows: []string{"2"}}, Block); err != nil {
		t.Fatal(err)
	}
	ask := `{"id":"a","inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[5,0]}]}`
	if _, body, _ := r.post("/v2/models/fraud/infer", ask); !strings.Contains(body, `"data":[5.0]`) {
		t.Errorf("champion: %s", body)
	}
	if _, body, _ := r.post("/v2/models/fraud/infer", strings.Replace(ask, `"a"`, `"b"`, 1), versionHeader, "2"); !strings.Contains(body, `"data":[10.0]`) || !strings.Contains(body, VariantPinned) {
		t.Errorf("pinned: %s", body)
	}
	seen := map[string]string{}
	for _, p := range r.recorded(3) {
		seen[p["id"].(string)] = fmt.Sprint(p["variant"], " ", p["output"])
	}
	want := map[string]string{"a": "champion map[value:5]", "a/2": "shadow map[value:10]", "b": "pinned map[value:10]"}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("\n got %v\nwant %v", seen, want)
	}
	if err := r.s.SetRouting("fraud", Routing{Champion: "3"}, Block); err == nil {
		t.Error("a routing to a version that is not loaded")
	}
}

// TestPolicies holds what each policy does while the broker takes nothing.
func TestPolicies(t *testing.T) {
	stuck := func(ctx context.Context, _ string, _ ...stream.Message) error { <-ctx.Done(); return ctx.Err() }
	rec := newRecorder(4, 1<<20, "t", stuck, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	for range 4 {
		rec.put(ctx, Block, parcel{rows: 1}) // fills the ring: nobody reads it
	}
	if err := rec.put(ctx, Drop, parcel{rows: 1}); err != nil || rec.Counts().Dropped != 1 {
		t.Errorf("drop: %v %+v", err, rec.Counts())
	}
	for range 9 {
		rec.put(ctx, Sample, parcel{rows: 1})
	}
	if c := rec.Counts(); c.Sampled != 9 {
		t.Errorf("sample: %+v", c)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- rec.put(ctx, Block, parcel{rows: 1}) }()
	cancel()
	if err := <-waiting; err == nil {
		t.Error("block: a caller that left got its record through a full ring")
	}
}

func BenchmarkInfer(b *testing.B) {
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler))
	w := make([]float32, 30)
	if err := s.Load(sum("1", w...)); err != nil {
		b.Fatal(err)
	}
	s.rec.send = func(context.Context, string, ...stream.Message) error { return nil }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.Run(ctx)
	var h http.Handler
	for _, r := range Routes(s) {
		if r.Pattern == "POST /v2/models/{model}/infer" {
			h = r.Handler
		}
	}
	body := []byte(`{"inputs":[{"name":"input","shape":[1,30],"datatype":"FP32","data":[` + strings.Repeat("1.2345,", 29) + `1.5]}]}`)
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest("POST", "/v2/models/fraud/infer", bytes.NewReader(body))
		req.SetPathValue("model", "fraud")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
