package source

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// foreignRecords are records that other people's libraries wrote; the file says
// which.
type foreignRecords struct {
	Avro struct {
		Schema  json.RawMessage `json:"schema"`
		Records [][]byte        `json:"records"`
	} `json:"avro"`
	Protobuf struct {
		Message     string   `json:"message"`
		Descriptors string   `json:"descriptors"`
		Records     [][]byte `json:"records"`
	} `json:"protobuf"`
	CloudEvents struct {
		Binary struct {
			Headers map[string]string `json:"headers"`
			Value   string            `json:"value"`
		} `json:"binary"`
		Structured string `json:"structured"`
	} `json:"cloudevents"`
}

func readForeign(t testing.TB) foreignRecords {
	t.Helper()
	var f foreignRecords
	b, err := os.ReadFile("testdata/foreign.json")
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const scoredEvents = `
- kind: predictions
  model: shop
  version: {const: "3"}
  id: {expr: 'requestId + "/" + predictions.sku'}
  time: {field: ts, unit: ms}
  inputs: {only: [predictions.price, predictions.channel, user, token], rename: {predictions.price: price, predictions.channel: channel}}
  output: {score: predictions.p}
`

// translated returns the events of records, or the reason of their dead
// letters, one line each.
func translated(t *testing.T, mapping string, schemas map[int]string, records ...Record) (lines []string, u *event.Unit) {
	t.Helper()
	d, err := ParseDefinition([]byte(mapping))
	if err != nil {
		t.Fatal(err)
	}
	tr, err := NewTranslator(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	u = &event.Unit{Topic: d.Topic, Namespace: "default"}
	u.Reset(catalog)
	decoder := event.NewDecoder(event.DefaultDecoderConfig())
	for i, rec := range records {
		r := event.Record{Offset: int64(i), Time: 1772370000000000, Key: rec.Key, Value: rec.Value}
		err := tr.Translate(u, decoder, r, rec.Headers)
		var need *NeedSchemaError
		if errors.As(err, &need) {
			if err := tr.AddSchema(need.ID, schemas[need.ID]); err != nil {
				t.Log(err)
			}
			err = tr.Translate(u, decoder, r, rec.Headers)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := len(u.Dead); n > 0 && u.Dead[n-1].Offset == int64(i) {
			lines = append(lines, "dead: "+string(u.Dead[n-1].Reason))
			continue
		}
		for _, p := range tr.parts {
			lines = append(lines, string(tr.texts[p.from:p.to]))
		}
	}
	return lines, u
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }

func TestAvroAsRegistriesFrameIt(t *testing.T) {
	f := readForeign(t)
	mapping := "topic: shop.scored\nmapping:\n  format: {type: avro}\n  explode: predictions\n  events:" + indent(scoredEvents)
	var records []Record
	for _, b := range f.Avro.Records {
		records = append(records, Record{Value: append([]byte{0, 0, 0, 1, 2}, b...)})
	}
	records = append(records, Record{Value: append([]byte{0, 0, 0, 1, 3}, f.Avro.Records[0]...)}, // a schema nobody has
		Record{Value: records[0].Value[:20]}, Record{Value: []byte(`{"json":1}`)}, Record{Value: append(records[0].Value, 1)}, Record{})
	got, u := translated(t, mapping, map[int]string{258: string(f.Avro.Schema)}, records...)
	expectLines(t, got,
		`{"model":"shop","version":"3","id":"r-1/a","event_time":"2026-03-01T12:00:00.123Z","inputs":{"price":9.5,"channel":"WEB","user":9007199254740993,"token":"AP8="},"output":{"score":0.25}}`,
		`{"model":"shop","version":"3","id":"r-1/b","event_time":"2026-03-01T12:00:00.123Z","inputs":{"price":null,"channel":"APP","user":9007199254740993,"token":"AP8="},"output":{"score":0.75}}`,
		`{"model":"shop","version":"3","id":"r-3/c","event_time":"2026-03-01T12:00:02.123Z","inputs":{"price":0.001,"channel":"WEB","user":7,"token":"aw=="},"output":{"score":"NaN"}}`,
		"dead: schema", "dead: schema", "dead: schema", "dead: schema")
	if c := u.Counts; c.Records != 8 || c.Silent != 2 || c.DeadLetters != 4 {
		t.Errorf("counts %+v: want 8 records, 2 silent (an empty array, a tombstone), 4 dead letters", c)
	}
}

func TestBareAvro(t *testing.T) {
	f := readForeign(t)
	schema, err := json.Marshal(string(f.Avro.Schema))
	if err != nil {
		t.Fatal(err)
	}
	mapping := "topic: shop.scored\nmapping:\n  format: {type: avro, schema: " + string(schema) + "}\n  events:\n" +
		"  - {kind: features, view: r, key: {id: requestId}, time: when, values: [user, tags.x]}"
	got, _ := translated(t, mapping, nil, Record{Value: f.Avro.Records[0]}, Record{Value: f.Avro.Records[1]})
	expectLines(t, got,
		`{"view":"r","key":{"id":"r-1"},"event_time":"2026-03-01T12:00:00.123Z","values":{"user":9007199254740993,"tags.x":1}}`,
		`{"view":"r","key":{"id":"r-2"},"event_time":"2026-03-01T12:00:01.123Z","values":{"user":null,"tags.x":null}}`)
}

func TestProtobuf(t *testing.T) {
	f := readForeign(t)
	mapping := "topic: shop.scored\nmapping:\n  format: {type: protobuf, message: " + f.Protobuf.Message + ", descriptors: " + f.Protobuf.Descriptors + "}\n" +
		"  events:\n  - {kind: features, view: r, key: {user: user}, time: at, values: [request_id, channel, counts.a, counts.z, discount, token, age, items]}"
	want := `{"view":"r","key":{"user":9007199254740993},"event_time":"2026-03-01T12:00:00.123Z","values":{"request_id":"r-1","channel":"APP","counts.a":-2,"counts.z":1,"discount":0.0,"token":"AP8=","age":0,` +
		`"items":[{"sku":"a","score":0.25,"embedding":[0.5,1.0]},{"sku":"b","score":"NaN","embedding":[]}]}}`
	got, _ := translated(t, mapping, nil, Record{Value: f.Protobuf.Records[0]}, Record{Value: f.Protobuf.Records[1]}, Record{Value: []byte{0, 0, 0}}, Record{Value: []byte{0xff}})
	expectLines(t, got, want, want, "dead: schema", "dead: schema")
	bad := strings.Replace(mapping, "shop.v1.Scored", "shop.v1.Nothing", 1)
	if _, err := ParseDefinition([]byte(bad)); err == nil || !strings.Contains(err.Error(), "shop.v1.Nothing") {
		t.Errorf("a message that is not there: %v", err)
	}
}

func TestCloudEvents(t *testing.T) {
	f := readForeign(t)
	mapping := `
topic: shop.events
mapping:
  format: {type: cloudevents}
  events:
  - {kind: features, view: user, id: id, key: {user: data.user}, time: time, values: [data.score, type, subject]}
`
	headers := func(yield func(name, value []byte) bool) {
		for name, value := range f.CloudEvents.Binary.Headers {
			if !yield([]byte(name), []byte(value)) {
				return
			}
		}
	}
	want := `{"view":"user","key":{"user":7},"event_time":"2026-03-01T12:00:00Z","id":"e-1","values":{"data.score":0.5,"type":"shop.scored","subject":"user/7"}}`
	got, _ := translated(t, mapping, nil, Record{Value: []byte(f.CloudEvents.Binary.Value), Headers: headers},
		Record{Value: []byte(f.CloudEvents.Structured)}, Record{Value: []byte(f.CloudEvents.Binary.Value)})
	expectLines(t, got, want, want, "dead: missing")
}

// The changes are written as Debezium's documentation shows them.
func TestDebezium(t *testing.T) {
	mapping := `
topic: pg.public.customers
mapping:
  format: {type: debezium}
  events:
  - {kind: features, view: customer, key: {id: row.id}, time: {field: ts_ms, unit: ms}, values: [row.email, row.plan], delete: deleted}
`
	after := `"before":null,"after":{"id":1004,"email":"a@x","plan":null},"source":{"table":"customers","lsn":24023128},"op":"c","ts_ms":1772366400123`
	got, u := translated(t, mapping, nil,
		Record{Value: []byte(`{` + after + `}`)},
		Record{Value: []byte(`{"schema":{"type":"struct"},"payload":{` + after + `}}`)},
		Record{Value: []byte(`{"before":{"id":1004,"email":"a@x","plan":"p"},"after":null,"op":"d","ts_ms":1772366400124}`)},
		Record{}, // the tombstone after it
		Record{Value: []byte(`{"op":"t","ts_ms":1772366400124,"source":{}}`)},
		Record{Value: []byte(`{"before":null,"after":null,"op":"d","ts_ms":1}`)},
		Record{Value: []byte(`{"id":1}`)}, Record{Value: []byte(`[`)})
	want := `{"view":"customer","key":{"id":1004},"event_time":"2026-03-01T12:00:00.123Z","values":{"row.email":"a@x","row.plan":null}}`
	expectLines(t, got, want, want,
		`{"view":"customer","key":{"id":1004},"event_time":"2026-03-01T12:00:00.124Z","delete":true,"values":{"row.email":"a@x","row.plan":"p"}}`,
		"dead: missing", "dead: missing", "dead: malformed")
	if u.Counts.Silent != 2 {
		t.Errorf("%d silent, want 2", u.Counts.Silent)
	}
}

func TestRecordsOwnKeyAndTime(t *testing.T) {
	mapping := "topic: t\nmapping:\n  events:\n  - {kind: features, view: v, key: {k: _key}, time: {field: _time}, values: {all: true}}"
	got, _ := translated(t, mapping, nil, Record{Key: []byte("K1"), Value: []byte(`{"a":1}`)}, Record{Key: []byte{0xff}, Value: []byte(`{"a":1}`)})
	expectLines(t, got, `{"view":"v","key":{"k":"K1"},"event_time":"2026-03-01T13:00:00Z","values":{"a":1}}`, "dead: mapping")
}

func TestDefinitionFaults(t *testing.T) {
	events := "  events:\n  - {kind: features, view: v, key: {k: k}, time: t, values: [a]}"
	for text, want := range map[string]string{
		"mapping:\n" + events:                                                                                 "topic: state",
		"topic: kedge.x\nmapping:\n" + events:                                                                 "one of Kedge's own",
		"topic: \"a b\"\nmapping:\n" + events:                                                                 "no topic's name",
		"topic: a\nmapping:\n  format: {type: csv}\n" + events:                                                "is for files",
		"topic: a\nmapping:\n  format: {type: xml}\n" + events:                                                "want csv, jsonl or parquet",
		"topic: a\nmapping:\n  format: {type: protobuf}\n" + events:                                           "protobuf needs descriptors",
		"topic: a\nmapping:\n  format: {type: avro, schema: '{'}\n" + events:                                  "schema:",
		"topic: a\nmapping:\n  format: {type: json, schema: x}\n" + events:                                    "schema does not go with",
		"topic: a\nmapping:\n  filter: \"a +\"\n" + events:                                                    "filter",
		"topic: a\nmapping:\n" + strings.Replace(events, "time: t", "time: {start: 2026-01-01, step: 1m}", 1): "",
		"topic: a\nmore: 1\nmapping:\n" + events:                                                              "more",
	} {
		_, err := ParseDefinition([]byte(text))
		if want == "" {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzTranslate: no bytes of a foreign record make any reader panic, and each
// record is accounted for.
func FuzzTranslate(f *testing.F) {
	known := readForeign(f)
	for _, b := range known.Avro.Records {
		f.Add(append([]byte{0, 0, 0, 0, 1}, b...), "")
	}
	for _, b := range known.Protobuf.Records {
		f.Add(b, "")
	}
	f.Add([]byte(known.CloudEvents.Structured), "")
	f.Add([]byte(known.CloudEvents.Binary.Value), "1.0")
	f.Add([]byte(`{"payload":{"op":"d","before":{"a":1}}}`), "")
	event1 := "\n  events:\n  - {kind: features, view: v, key: {k: _key}, time: _time, values: {all: true}}"
	var translators []*Translator
	for _, format := range []string{"json", "avro", "cloudevents", "debezium", "protobuf, message: " + known.Protobuf.Message + ", descriptors: " + base64.StdEncoding.EncodeToString(mustDecode(known.Protobuf.Descriptors))} {
		d, err := ParseDefinition([]byte("topic: t\nmapping:\n  format: {type: " + format + "}" + event1))
		if err != nil {
			f.Fatal(err)
		}
		tr, err := NewTranslator(d, Options{})
		if err != nil {
			f.Fatal(err)
		}
		if err := tr.AddSchema(1, string(known.Avro.Schema)); err != nil {
			f.Fatal(err)
		}
		translators = append(translators, tr)
	}
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		f.Fatal(err)
	}
	decoder := event.NewDecoder(event.DefaultDecoderConfig())
	f.Fuzz(func(t *testing.T, value []byte, specversion string) {
		headers := func(yield func(name, value []byte) bool) {
			if specversion != "" {
				yield([]byte("ce_specversion"), []byte(specversion))
			}
		}
		for _, tr := range translators {
			u := &event.Unit{Topic: "t", Namespace: "default"}
			u.Reset(catalog)
			err := tr.Translate(u, decoder, event.Record{Time: 1772370000000000, Key: []byte("k"), Value: value}, headers)
			var need *NeedSchemaError
			if err != nil && !errors.As(err, &need) {
				t.Fatal(err)
			}
			if c := u.Counts; err == nil && (c.Records != 1 || c.DeadLetters+c.Silent+int64(len(u.Proposals)) == 0) {
				t.Fatalf("a record without a trace: %+v", c)
			}
		}
	})
}

func mustDecode(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
