package source

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// kserve is what KServe's payload logger sends, both types to one topic, mapped row
// by row.
const kserve = `
topic: kserve.log
pair:
  id: id
  request: type == "org.kubeflow.serving.inference.request"
  response: type == "org.kubeflow.serving.inference.response"
  wait: 5m
mapping:
  format: {type: cloudevents}
  explode: request.data.instances
  events:
  - kind: predictions
    model: iris
    version: {const: "1"}
    id: {expr: 'request.id + "/" + string(_index)'}
    time: request.time
    inputs: {add: {length: {expr: "request.data.instances[0]"}, width: {expr: "request.data.instances[1]"}}}
    output: {class: {expr: 'string(response.data.predictions[_index])'}}
    segments: {namespace: request.namespace, via: response._headers.via}
  - kind: features
    view: asked
    key: {who: {expr: 'request._key ?? "nobody"'}}
    time: request._time
    values: {only: [request.source]}
`

func headersOf(kv ...string) func(func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		for i := 0; i < len(kv); i += 2 {
			if !yield([]byte(kv[i]), []byte(kv[i+1])) {
				return
			}
		}
	}
}

func half(t *testing.T, h *HalfReader, topic string, r Record) *Half {
	t.Helper()
	out, err := h.Read(topic, r)
	if err != nil || out == nil {
		t.Fatalf("%v %v", out, err)
	}
	return out
}

// TestPairOfKServe maps a request and its response, in CloudEvents' two modes, to
// a prediction per instance.
func TestPairOfKServe(t *testing.T) {
	d, err := ParseDefinition([]byte(kserve))
	if err != nil {
		t.Fatal(err)
	}
	if d.Pair.WaitMicros() != (5*time.Minute).Microseconds() || d.Maps("default", "iris") != "kedge.default.iris.pairs" || !IsPairsTopic(d.Maps("default", "iris")) {
		t.Errorf("%+v", d.Pair)
	}
	h, err := NewHalfReader(d)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	request := half(t, h, d.Topic, Record{Key: []byte("k"), Time: at, Value: []byte(`{"instances":[[6.8,2.8],[6.0,3.4]]}`),
		Headers: headersOf("ce_specversion", "1.0", "ce_id", "7", "ce_type", "org.kubeflow.serving.inference.request", "ce_time", "2026-05-01T00:00:00Z",
			"ce_source", "http://localhost:9081/", "ce_namespace", "default", "content-type", "application/json")})
	response := half(t, h, d.Topic, Record{Time: at, Headers: headersOf("via", "b", "bin", "\xff"),
		Value: []byte(`{"specversion":"1.0","id":"7","type":"org.kubeflow.serving.inference.response","data":{"predictions":[1,2]}}`)})
	if request.Response || !response.Response || request.ID != "7" || response.ID != "7" {
		t.Fatalf("%+v %+v", request, response)
	}
	tr, err := NewTranslator(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := tr.Events(Record{Key: []byte("7"), Time: at, Value: AppendPair(nil, request, response)})
	if err != nil || len(events) != 4 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	want := []string{
		`{"model":"iris","version":"1","id":"7/0","event_time":"2026-05-01T00:00:00Z","inputs":{"length":6.8,"width":2.8},"output":{"class":"1"},"segments":{"namespace":"default","via":"b"}}`,
		`{"view":"asked","key":{"who":"k"},"event_time":"2026-05-01T00:00:00Z","id":"7/1/0","values":{"request.source":"http://localhost:9081/"}}`,
		`{"model":"iris","version":"1","id":"7/1","event_time":"2026-05-01T00:00:00Z","inputs":{"length":6.0,"width":3.4},"output":{"class":"2"},"segments":{"namespace":"default","via":"b"}}`,
		`{"view":"asked","key":{"who":"k"},"event_time":"2026-05-01T00:00:00Z","id":"7/1/1","values":{"request.source":"http://localhost:9081/"}}`,
	}
	for i, e := range events {
		var a, b any
		if json.Unmarshal(e.Text, &a) != nil || json.Unmarshal([]byte(want[i]), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("event %d: %s\nwant %s", i, e.Text, want[i])
		}
	}
	for name, text := range map[string]string{
		"another type": `{"specversion":"1.0","id":"7","type":"org.kubeflow.serving.inference.feedback"}`,
	} {
		if out, err := h.Read(d.Topic, Record{Value: []byte(text)}); out != nil || err != nil {
			t.Errorf("%s: %v %v", name, out, err)
		}
	}
	for text, reason := range map[string]event.Reason{
		`{"specversion":"1.0","type":"org.kubeflow.serving.inference.request"}`: event.ReasonMissing,
		`{"type":"org.kubeflow.serving.inference.request"}`:                     event.ReasonMissing,
		`[1]`:  event.ReasonType,
		`{"a"`: event.ReasonMalformed,
	} {
		_, err := h.Read(d.Topic, Record{Value: []byte(text)})
		if r, _ := event.IsRefused(err); r.Reason != reason {
			t.Errorf("%s: %v, want %s", text, err, reason)
		}
	}
	if out, err := h.Read(d.Topic, Record{}); out != nil || err != nil {
		t.Errorf("a tombstone: %v %v", out, err)
	}
	if _, err := tr.Events(Record{Value: []byte(`{"specversion":"1.0"}`)}); err == nil {
		t.Error("a record that is no pair was mapped")
	}
}

// TestPairSides tells requests from responses by their topics, and by conditions
// within them.
func TestPairSides(t *testing.T) {
	d, err := ParseDefinition([]byte(strings.Replace(kserve, "pair:\n  id: id\n  request: type == \"org.kubeflow.serving.inference.request\"\n  response: type == \"org.kubeflow.serving.inference.response\"\n",
		"pair:\n  topic: kserve.answers\n  id: {expr: 'id ?? _headers.rid'}\n  request: kind != \"ping\"\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	d.Mapping.Format = Format{}
	h, err := NewHalfReader(d)
	if err != nil {
		t.Fatal(err)
	}
	if r := half(t, h, "kserve.log", Record{Value: []byte(`{"id":12345678901}`)}); r.Response || r.ID != "12345678901" {
		t.Errorf("%+v", r)
	}
	if r := half(t, h, "kserve.answers", Record{Value: []byte(`{}`), Headers: headersOf("rid", "x")}); !r.Response || r.ID != "x" {
		t.Errorf("%+v", r)
	}
	if r, err := h.Read("kserve.log", Record{Value: []byte(`{"id":1,"kind":"ping"}`)}); r != nil || err != nil {
		t.Errorf("%+v %v", r, err)
	}
}

// TestPairFaults refuses what cannot be a pair, with what to do.
func TestPairFaults(t *testing.T) {
	for old, c := range map[string][2]string{
		"  id: id\n":  {"", "id: state the field"},
		"wait: 5m":    {"wait: 25h", "wait: 25h0m0s is not between"},
		"  request: ": {"  requests: ", "requests"},
		"  response: type == \"org.kubeflow.serving.inference.response\"\n": {"", "state which records are a request"},
		"pair:\n":                         {"pair:\n  topic: kserve.log\n", "leave it out"},
		"  wait: 5m\n":                    {"  wait: 5m\n  topic: kedge.default.labels\n", "one of Kedge's own"},
		"explode: request.data.instances": {`explode: "."`, "a pair is an object"},
		`== "org.kubeflow.serving.inference.request"`: {"==", "request: "},
	} {
		if _, err := ParseDefinition([]byte(strings.Replace(kserve, old, c[0], 1))); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%q for %q: %v, want %q", c[0], old, err, c[1])
		}
	}
	for _, name := range []string{"a.b", "a b", strings.Repeat("x", 240)} {
		if CheckPairsTopic("default", name) == nil {
			t.Errorf("a source of pairs may be named %.20q", name)
		}
	}
	if err := CheckPairsTopic("default", "shop_1-a"); err != nil {
		t.Error(err)
	}
}
