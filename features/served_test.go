package features

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// TestServedLogOverKafka asks over HTTP and reads the topic as anyone would:
// exact values, statuses, weights; then a monitor hears the same.
func TestServedLogOverKafka(t *testing.T) {
	h, st := openHouse(t, time.Time{}), openStore(t)
	topic := ServedTopic(testNamespace)
	must(t, h.client.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: topic, Partitions: 2}}))
	p := h.client.Producer(stream.ProducerConfig{})
	defer p.Close()
	log := NewServedLog(ServedConfig{Share: 1, Scope: telemetry.Discard()}, p)
	h.server.cfg.Served = log
	m := NewMonitor(MonitorConfig{Namespaces: []string{testNamespace}, Scope: telemetry.Discard()}, h.online, st)
	for _, run := range []func() error{func() error { return log.Run(t.Context()) }, func() error { return m.Follow(t.Context(), h.client) }} {
		done := make(chan error, 1)
		go func() { done <- run() }()
		t.Cleanup(func() { must(t, <-done) })
	}
	h.view("driver", "0s", fieldsOf("driver_id Int64", "city String"), fieldsOf("n Int64", "f Float64", "s String", "at Timestamp", "l List(Float64)", "b Bool"))
	h.write(`{"view":"driver","key":{"driver_id":9007199254740993,"city":"Rīga \" 1"},"event_time":"2026-01-01T00:00:00.000001Z","values":{"n":9007199254740993,"f":"NaN","s":"é\n","at":"2026-01-01T00:00:00.123456Z","l":[0.1,-0.0],"b":true}}`)
	body := `{"features":["driver:n","driver:f","driver:s","driver:at","driver:l","driver:b"],"entities":{"driver_id":[9007199254740993,1],"city":["Rīga \" 1","x"]}}`
	if status, _, text := h.ask("POST", "/get-online-features", []byte(body)); status != 200 {
		t.Fatal(status, text)
	}
	var got []string
	testenv.Eventually(t, 20*time.Second, func() error {
		if n := log.counts.written.Load(); n != 2 {
			return fmt.Errorf("%d vectors written, want 2", n)
		}
		return nil
	})
	for part := range int32(2) {
		tp := stream.TopicPartition{Topic: topic, Partition: part}
		ends, err := h.client.Offsets(t.Context(), tp)
		must(t, err)
		for b, err := range h.client.FetchRange(t.Context(), tp, 0, ends[tp].Last-1) {
			must(t, err)
			for _, r := range b.Records {
				got = append(got, string(r.Key)+" "+string(r.Value))
			}
			b.Release()
		}
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{
		`{"driver_id":9007199254740993,"city":"Rīga \" 1"} {"view":"driver","key":{"driver_id":9007199254740993,`,
		`"status":"PRESENT","values":{"n":9007199254740993,"f":"NaN","s":"é\u000a","at":"2026-01-01T00:00:00.123456Z","l":[0.1,-0.0],"b":true}`,
		`"event_time":1767225600000001,`, `"sampled_by":"key","weight":1.0}`,
		`"status":"NOT_FOUND","values":{"n":null,"f":null,"s":null,"at":null,"l":null,"b":null}`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the topic lacks %s; it has\n%s", want, all)
		}
	}
	for _, line := range got {
		if _, text, _ := strings.Cut(line, "} "); !json.Valid([]byte(text)) {
			t.Errorf("no JSON: %s", text)
		}
	}
	testenv.Eventually(t, 20*time.Second, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.samples) != 2 {
			return fmt.Errorf("the monitor heard %d vectors", len(m.samples))
		}
		return nil
	})
}

// TestServedLogReadsBack wants every value of every type to come back equal.
func TestServedLogReadsBack(t *testing.T) {
	h := openHouse(t, time.Time{})
	h.view("v", "0s", fieldsOf("k String"), fieldsOf("i Int32", "f Float32", "d Float64", "s String", "y Bytes", "j Json", "at Timestamp", "b Bool", "l List(String)", "null Int64"))
	h.write(`{"view":"v","key":{"k":""},"event_time":"2026-01-01T00:00:00Z","values":{"i":-2147483648,"f":0.1,"d":-0.0,"s":"\u0000\ud83d\ude00","y":"AP8=","j":{"a":[1.50,null]},"at":"1900-01-01T00:00:00Z","b":false,"l":["",null,"x"],"null":null}}`)
	v := h.online.View(testNamespace, "v")
	var rows Rows
	key := encodedKey(v.Schema, []any{""})
	must(t, lookUp(t.Context(), v, h.clock(), &rows, key))
	var names []string
	for _, f := range v.Schema.Values() {
		names = append(names, f.Name)
	}
	log := NewServedLog(ServedConfig{Share: 0.25, ByRequest: true}, nil)
	msg, err := log.message(&vector{view: v, at: 1772366400_000001, key: key, row: rows.Row(0), columns: names})
	must(t, err)
	s, err := readServed(h.online.book(testNamespace), msg.Value)
	must(t, err)
	if s.weight != 4 || s.at != 1772366400_000001 || string(s.key) != string(key) || s.version != rows.Row(0).Version() || s.status != Present || len(s.columns) != len(names) {
		t.Fatalf("%+v of %s", s, msg.Value)
	}
	for i, name := range s.columns {
		want := newColumn(s.values[i].Type, true)
		rows.Row(0).AppendTo(&want, rows.Row(0).Column(name))
		if !sameCell(&want, 0, &s.values[i], 0) {
			t.Errorf("%s: %v came back as %v", name, valueAt(&want, 0), valueAt(&s.values[i], 0))
		}
	}
	other := *v
	other.UID++
	if msg, err = log.message(&vector{view: &other, key: key, columns: names}); err != nil {
		t.Fatal(err)
	}
	if s, err := readServed(h.online.book(testNamespace), msg.Value); s != nil || err != nil {
		t.Errorf("a vector of a view that is gone: %v %v", s, err)
	}
	for _, bad := range []string{"", "[]", `{"view":1}`, strings.Replace(string(msg.Value), `"weight"`, `"wait"`, 1), strings.Replace(string(msg.Value), `{"k":""}`, `{"k":1}`, 1)} {
		if _, err := readServed(h.online.book(testNamespace), []byte(strings.Replace(bad, fmt.Sprintf(`"uid":%d`, other.UID), fmt.Sprintf(`"uid":%d`, v.UID), 1))); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestServedSampling: a chosen key is chosen at every read and by every
// process, whole requests are chosen by chance, both at the share that is set.
func TestServedSampling(t *testing.T) {
	const n = 100_000
	byKey, again := NewServedLog(ServedConfig{Share: 0.05}, nil), NewServedLog(ServedConfig{Share: 0.05}, nil)
	byRequest, none := NewServedLog(ServedConfig{Share: 0.05, ByRequest: true}, nil), NewServedLog(ServedConfig{Share: -1}, nil)
	keys, requests := 0, 0
	for i := range int64(n) {
		key := appendIntKey(nil, i)
		chosen := byKey.chooseKey(key)
		if chosen != again.chooseKey(key) || byRequest.chooseKey(key) || none.chooseKey(key) || byKey.chooseRequest() || none.chooseRequest() {
			t.Fatalf("key %d", i)
		}
		keys, requests = keys+b2i(chosen), requests+b2i(byRequest.chooseRequest())
	}
	for name, got := range map[string]int{"keys": keys, "requests": requests} {
		if sd := math.Sqrt(n * 0.05 * 0.95); math.Abs(float64(got)-0.05*n) > 6*sd {
			t.Errorf("%s: %d of %d chosen, want 5 %%", name, got, n)
		}
	}
}

// TestServedLogNeverBlocks fills the log with nobody writing it: what there is
// no room for is dropped and counted, by number and by bytes.
func TestServedLogNeverBlocks(t *testing.T) {
	l := openLibrary(t, 1<<28)
	l.view.Spec.Online, l.view.table = true, NewTable(l.view.Schema, 0)
	for _, c := range []struct {
		cfg  ServedConfig
		held int
	}{{ServedConfig{Share: 1, Held: 10}, 10}, {ServedConfig{Share: 1, HeldBytes: 1000}, 6}} {
		log := NewServedLog(c.cfg, nil)
		a := &answer{served: log}
		for range 100 {
			if !a.req.parse([]byte(`{"features":["driver:x"],"entities":{"driver_id":[1]}}`)) {
				t.Fatal("request")
			}
			must(t, a.make(t.Context(), l.online.book(testNamespace), Limits{}.orDefault(), event.MaxTime))
		}
		if len(log.queue) != c.held || log.counts.dropped.Load() != int64(100-c.held) {
			t.Errorf("%+v: %d held, %d dropped, want %d held", c.cfg, len(log.queue), log.counts.dropped.Load(), c.held)
		}
	}
}
