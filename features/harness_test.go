package features

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// house is everything that the online side needs, running: an embedded broker,
// a registry, the tail and the HTTP server.
type house struct {
	t        testing.TB
	registry *registry.Registry
	client   *stream.Client
	online   *Online
	tail     *Tail
	writer   *Writer
	server   *Server
	http     *httptest.Server
	now      int64
	live     bool // the clock runs
}

const testNamespace = "demo"

// openHouse starts a house whose clock stands still; the zero time lets it run.
func openHouse(t testing.TB, now time.Time) *house { return openHouseOver(t, now, NewOnline()) }

func openHouseOver(t testing.TB, now time.Time, online *Online) *house {
	t.Helper()
	h := &house{t: t, online: online, now: now.UnixMicro(), live: now.IsZero()}
	ctx, cancel := context.WithCancel(t.Context())
	b, err := broker.Start(broker.Config{})
	must(t, err)
	h.client, err = stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	must(t, err)
	must(t, h.client.EnsureTopics(ctx, []stream.TopicSpec{{Name: FeatureTopic(testNamespace), Partitions: 4}}))
	h.registry, err = registry.Open(ctx, memlog.New(time.Now))
	must(t, err)
	cfg := TailConfig{Namespaces: []string{testNamespace}, Now: h.clock, Scope: telemetry.Discard(), Decoder: event.DefaultDecoderConfig()}
	cfg.Decoder.FutureBound = 100 * 365 * 24 * time.Hour // recorded times may lie ahead of this machine's clock
	h.tail = NewTail(cfg, h.client, h.registry, h.online)
	p := h.client.Producer(stream.ProducerConfig{})
	h.writer = NewWriter(h.client, p, h.tail)
	h.server, err = NewServer(ServerConfig{Now: h.clock, Scope: telemetry.Discard(), PushWait: 20 * time.Second}, h.online, h.writer, h.tail.Ready)
	must(t, err)
	h.http = httptest.NewServer(auth.Middleware(testNamespace, h.server))
	done := make(chan error, 1)
	go func() { done <- h.registry.Run(ctx) }()
	stop := h.follow(ctx)
	t.Cleanup(func() {
		h.http.Close()
		cancel()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = p.Close()
		_ = h.client.Close()
		b.Close()
	})
	testenv.Eventually(t, 20*time.Second, h.tail.Ready)
	return h
}

// follow runs the tail until what it returns is called.
func (h *house) follow(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.tail.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) clock() int64 {
	if h.live {
		return time.Now().UnixMicro()
	}
	return h.now
}

// define applies a definition and waits until the tables follow it.
func (h *house) define(kind, name string, spec any) {
	h.t.Helper()
	raw, err := json.Marshal(spec)
	must(h.t, err)
	expect := uint64(0)
	if d, ok := h.registry.State().Get(kind, testNamespace, name); ok {
		expect = d.Version
	}
	d, err := h.registry.Apply(h.t.Context(), registry.Entry{Kind: kind, Namespace: testNamespace, Name: name, Op: registry.Put, Expect: expect, Spec: raw, Who: "test"})
	must(h.t, err)
	testenv.Eventually(h.t, 10*time.Second, func() error {
		if at := h.online.defined.Load(); at < d.Offset {
			return fmt.Errorf("tables are at registry offset %d, want %d", at, d.Offset)
		}
		return nil
	})
}

func (h *house) view(name, ttl string, keys, values []event.Field) {
	spec := event.ViewSpec{Origin: event.Declared, Online: true}
	for _, k := range keys {
		spec.Keys = append(spec.Keys, event.FieldSpec{Name: k.Name, Type: k.Type})
	}
	for _, v := range values {
		spec.Columns = append(spec.Columns, event.FieldSpec{Name: v.Name, Type: v.Type})
	}
	d, err := time.ParseDuration(ttl)
	must(h.t, err)
	spec.TTL = event.Duration(d)
	h.define(event.FeatureViewKind, name, spec)
}

// write sends envelopes and waits until they are readable.
func (h *house) write(envelopes ...string) {
	h.t.Helper()
	var msgs []stream.Message
	for _, e := range envelopes {
		var parts struct{ Key json.RawMessage }
		must(h.t, json.Unmarshal([]byte(e), &parts))
		msgs = append(msgs, stream.Message{Key: parts.Key, Value: []byte(e)})
	}
	must(h.t, h.writer.Write(h.t.Context(), testNamespace, msgs, 20*time.Second))
}

// ask sends a request and returns status, content type and body.
func (h *house) ask(method, path string, body []byte) (int, string, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.http.URL+path, bytes.NewReader(body))
	must(h.t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	must(h.t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	must(h.t, err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(out)
}
