package app

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// newDoor is the door for events with a broker in memory behind it.
func newDoor(t *testing.T) (*eventsDoor, *stream.Client) {
	t.Helper()
	b, err := broker.Start(broker.Config{Addr: "127.0.0.1:0", DefaultPartitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	client, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	var specs []stream.TopicSpec
	for _, k := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		specs = append(specs, stream.TopicSpec{Name: TopicName("default", k), Partitions: 2})
	}
	if err := client.EnsureTopics(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	producer := client.Producer(stream.ProducerConfig{})
	t.Cleanup(func() { producer.Close() })
	return &eventsDoor{producer: producer, maxLine: 1000, maxBody: 50_000, batchSize: 10}, client
}

// stored counts what the broker has of a stream.
func stored(t *testing.T, c *stream.Client, kind event.Kind) (n int64) {
	t.Helper()
	topic := TopicName("default", kind)
	offsets, err := c.Offsets(t.Context(), stream.TopicPartition{Topic: topic}, stream.TopicPartition{Topic: topic, Partition: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets {
		n += o.Last
	}
	return n
}

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s)) // memory
	_ = w.Close()
	return b.String()
}

const (
	aView  = `{"view":"v","key":1,"event_time":"2026-01-01T00:00:00Z","values":{}}`
	aModel = `{"model":"m","version":"1","id":"p","event_time":"2026-01-01T00:00:00Z","inputs":{},"output":{"score":1}}`
	aLabel = `{"model":"m","prediction_id":"p","label":1,"event_time":"2026-01-01T00:00:00Z"}`
)

func TestEventsDoor(t *testing.T) {
	many := strings.Repeat(aView+"\n", 95)
	for name, c := range map[string]struct {
		body, encoding, media         string
		status, accepted, rejected    int
		features, predictions, labels int64
		says                          string
	}{
		"all three kinds":   {aView + "\n" + aModel + "\n" + aLabel, "", "application/x-ndjson", 200, 3, 0, 1, 1, 1, ""},
		"blank lines, CRLF": {"\n" + aView + "\r\n\r\n \n" + aLabel + "\n", "", "", 200, 2, 0, 1, 0, 1, ""},
		"gzip":              {zipped(many), "gzip", "", 200, 95, 0, 95, 0, 0, ""},
		"nothing":           {"", "", "", 200, 0, 0, 0, 0, 0, ""},
		"one bad line":      {aView + "\n{nonsense\n" + aModel, "", "", 207, 2, 1, 1, 1, 0, `"line":2,"code":"malformed"`},
		"all bad":           {"x\n{}\n", "", "", 400, 0, 2, 0, 0, 0, `"line":2,"code":"missing"`},
		"long line":         {aView + "\n" + strings.Repeat("x", 5000) + "\n" + aView, "", "", 207, 2, 1, 2, 0, 0, `"line":2,"code":"too_large"`},
		"foreign namespace": {strings.Replace(aView, `"view"`, `"namespace":"other","view"`, 1), "", "", 400, 0, 1, 0, 0, 0, `"code":"namespace"`},
		"body too large":    {strings.Repeat(aView+"\n", 2000), "", "", 413, -1, 0, -1, 0, 0, "too_large"},
		"zip bomb":          {zipped(strings.Repeat("\n", 10<<20)), "gzip", "", 413, -1, 0, 0, 0, 0, "too_large"},
		"not gzip":          {aView, "gzip", "", 400, -1, 0, 0, 0, 0, "not gzip"},
		"cut gzip":          {zipped(many)[:40], "gzip", "", 400, -1, 0, -1, 0, 0, "body ends"},
		"unknown encoding":  {aView, "br", "", 415, -1, 0, 0, 0, 0, "unsupported_media_type"},
		"unknown media":     {aView, "", "image/png", 415, -1, 0, 0, 0, 0, "unsupported_media_type"},
	} {
		t.Run(name, func(t *testing.T) {
			door, client := newDoor(t)
			req := httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(c.body))
			req.Header.Set("Content-Encoding", c.encoding)
			if c.media != "" {
				req.Header.Set("Content-Type", c.media)
			}
			rec := httptest.NewRecorder()
			door.ServeHTTP(rec, req.WithContext(auth.WithCaller(t.Context(), auth.Local("default"))))
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) {
				t.Fatalf("got %d %s, want %d and %q", rec.Code, rec.Body, c.status, c.says)
			}
			var a EventsAnswer
			if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
			if c.accepted >= 0 && (a.Accepted != c.accepted || a.Rejected != c.rejected) {
				t.Errorf("accepted %d, rejected %d", a.Accepted, a.Rejected)
			}
			got := [3]int64{stored(t, client, event.Features), stored(t, client, event.Predictions), stored(t, client, event.Labels)}
			if c.features >= 0 && got != [3]int64{c.features, c.predictions, c.labels} {
				t.Errorf("the broker has %v", got)
			}
		})
	}
}

// An answer must never claim what the broker does not have.
func TestEventsDoorWithoutABroker(t *testing.T) {
	door, _ := newDoor(t)
	ctx, cancel := context.WithCancel(auth.WithCaller(t.Context(), auth.Local("default")))
	cancel()
	req := httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(aView))
	rec := httptest.NewRecorder()
	door.ServeHTTP(rec, req.WithContext(ctx))
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "0 of this request are stored") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

// The producer's trace must travel with its events.
func TestEventsDoorCarriesTheTrace(t *testing.T) {
	door, client := newDoor(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := auth.WithCaller(telemetry.ContextFrom(t.Context(), parent, ""), auth.Local("default"))
	rec := httptest.NewRecorder()
	door.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(aView)).WithContext(ctx))
	for p := range int32(2) {
		tp := stream.TopicPartition{Topic: TopicName("default", event.Features), Partition: p}
		offsets, err := client.Offsets(t.Context(), tp)
		if err != nil || offsets[tp].Last == 0 {
			continue
		}
		for b, err := range client.FetchRange(t.Context(), tp, 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if got := string(b.Records[0].TraceParent()); got != parent {
				t.Errorf("traceparent %q, want %q", got, parent)
			}
			b.Release()
		}
		return
	}
	t.Fatalf("no record: %s", rec.Body)
}
