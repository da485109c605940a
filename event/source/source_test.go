package source

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// mapText maps a file given as text and returns the envelopes, or the errors
// in their place.
func mapText(t *testing.T, name, text, mapping string, o Options) []string {
	t.Helper()
	m, err := Parse([]byte(mapping))
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(name, strings.NewReader(text), int64(len(text)), m)
	if err != nil {
		t.Fatal(err)
	}
	o.File = f
	mp, err := NewMapper(m, o)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for row, err := range f.Rows() {
		var events []Mapped
		if err == nil {
			events, err = mp.Map(row)
		}
		if err != nil {
			out = append(out, "error: "+err.Error())
		}
		for _, e := range events {
			out = append(out, string(e.Key)+" "+string(e.Text))
		}
	}
	return out
}

func expectLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("line %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestMapOneRowToThreeEvents(t *testing.T) {
	mapping := `
filter: country != "XX"
drop: [secret]
hash: [email]
events:
- kind: features
  view: user
  key: {user: user.id}
  id: {expr: 'string(user.id) + "-f"'}
  time: {field: at, unit: ms}
  known_at: {same: true}
  values: {only: [user.age, email, gone], rename: {user.age: age}, add: {adult: {expr: user.age >= 18}, src: {const: web}}}
- kind: predictions
  model: churn
  version: {const: 3}
  id: user.id
  time: {field: at, unit: ms}
  inputs: [user.age, tags]
  output: {score: p, scores: {yes: p, "no": {expr: 1 - p}}}
  segments: {country: country}
- kind: labels
  model: churn
  when: churned != nil
  prediction_id: user.id
  label: churned
  time: {field: at, unit: ms, shift: 1d}
`
	lines := `{"user":{"id":7,"age":20},"at":1772366400123,"email":"a@b.c","secret":"s","p":0.25,"tags":["x"],"churned":true,"country":"DE"}
{"user":{"id":8,"age":3},"at":1772366400123,"p":1,"country":"XX"}
{"user":{"id":9,"age":3},"at":"soon","p":1}
{"user":{"id":10,"age":3},"at":1772366400123,"p":0.5,"churned":null}`
	mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
	mac.Write([]byte("a@b.c"))
	got := mapText(t, "x.jsonl", lines, mapping, Options{HashKey: []byte("0123456789abcdef")})
	expectLines(t, got,
		`{"user":7} {"view":"user","key":{"user":7},"event_time":"2026-03-01T12:00:00.123Z","known_at":"2026-03-01T12:00:00.123Z","id":"7-f","values":{"age":20,"email":"`+hex.EncodeToString(mac.Sum(nil))+`","gone":null,"adult":true,"src":"web"}}`,
		`7 {"model":"churn","version":"3","id":"7","event_time":"2026-03-01T12:00:00.123Z","inputs":{"user.age":20,"tags":["x"]},"output":{"score":0.25,"scores":{"no":0.75,"yes":0.25}},"segments":{"country":"DE"}}`,
		`7 {"model":"churn","prediction_id":"7","label":1.0,"event_time":"2026-03-02T12:00:00.123Z"}`,
		`error: row 2: time: at: time "soon" is not an RFC 3339 time such as 2026-01-02T03:04:05Z`,
		`{"user":10} {"view":"user","key":{"user":10},"event_time":"2026-03-01T12:00:00.123Z","known_at":"2026-03-01T12:00:00.123Z","id":"10-f","values":{"age":3,"email":null,"gone":null,"adult":false,"src":"web"}}`,
		`10 {"model":"churn","version":"3","id":"10","event_time":"2026-03-01T12:00:00.123Z","inputs":{"user.age":3,"tags":null},"output":{"score":0.5,"scores":{"no":0.5,"yes":0.5}}}`)
}

func TestDroppedFieldsAreGone(t *testing.T) {
	mapping := `
drop: [secret]
events:
- {kind: features, view: v, key: {a: a}, time: at, values: {all: true, except: [at], add: {leak: {expr: 'secret'}}}}
`
	got := mapText(t, "x.jsonl", `{"a":1,"secret":"s","at":"2026-01-01T00:00:00Z"}`, mapping, Options{})
	expectLines(t, got, `{"a":1} {"view":"v","key":{"a":1},"event_time":"2026-01-01T00:00:00Z","values":{"a":1,"leak":null}}`)
}

func TestYearsAreSpreadEvenly(t *testing.T) {
	mapping := `
events:
- {kind: features, view: v, key: {a: a}, time: {spread: {year: y}}, values: {only: [a]}}
- {kind: features, view: w, when: a > 2, key: {a: a}, time: {spread: {year: y}}, values: {only: [a]}}
`
	var times []string
	for _, line := range mapText(t, "x.csv", "a,y\n1,2016\n2,2017\n3,2016\n4,2017\n", mapping, Options{}) {
		_, at, _ := strings.Cut(line, `"event_time":"`)
		times = append(times, at[:len("2016-07-02")])
	}
	expectLines(t, times, "2016-01-01", "2017-01-01", "2016-07-02", "2016-07-02", "2017-07-02", "2017-07-02")
}

func TestExplode(t *testing.T) {
	mapping := `
explode: items
events:
- {kind: features, view: item, key: {sku: items.sku}, time: at, values: [items.price]}
`
	text := `{"at":"2026-01-01T00:00:00Z","items":[{"sku":"a","price":1.5},{"sku":"b","price":2}]}
{"at":"2026-01-01T00:00:00Z"}
{"at":"2026-01-01T00:00:00Z","items":[]}
{"at":"2026-01-01T00:00:00Z","items":7}
`
	want := []string{`{"sku":"a"} {"view":"item","key":{"sku":"a"},"event_time":"2026-01-01T00:00:00Z","values":{"items.price":1.5}}`,
		`{"sku":"b"} {"view":"item","key":{"sku":"b"},"event_time":"2026-01-01T00:00:00Z","values":{"items.price":2}}`}
	expectLines(t, mapText(t, "x.jsonl", text, mapping, Options{}), append(want, "error: row 3: items is a Int64 and no array")...)

	top := strings.NewReplacer("explode: items", `explode: "."`, "items.sku", "sku", "items.price", "price").Replace(mapping)
	got := mapText(t, "x.jsonl", `[{"sku":"a","price":1.5,"at":"2026-01-01T00:00:00Z"}]`, top, Options{})
	if len(got) != 1 || !strings.Contains(got[0], `"sku":"a"`) {
		t.Errorf("array record: %v", got)
	}
}

func TestTimes(t *testing.T) {
	for _, x := range []struct{ time, cell, want string }{
		{`at`, `"2026-01-01T01:00:00+01:00"`, "2026-01-01T00:00:00Z"},
		{`{field: at, format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}`, `"01.07.2026 14:30"`, "2026-07-01T12:30:00Z"},
		{`{field: at, format: "2006-01-02"}`, `"2026-07-01"`, "2026-07-01T00:00:00Z"},
		{`{field: at, zone: America/New_York}`, `"2026-01-01 00:00:00.5"`, "2026-01-01T05:00:00.5Z"},
		{`{field: at, unit: s}`, `1772366400.25`, "2026-03-01T12:00:00.25Z"},
		{`{field: at, unit: ns}`, `1772366400000001999`, "2026-03-01T12:00:00.000001Z"},
		{`{field: at, unit: day}`, `20000`, "2024-10-04T00:00:00Z"},
		{`{expr: date("2026-01-01T00:00:00Z")}`, `1`, "2026-01-01T00:00:00Z"},
		{`{start: 2026-01-01T00:00:00Z, step: 1h}`, `1`, "2026-01-01T00:00:00Z"},
		{`{spread: {start: 2026-01-01T00:00:00Z, end: 2026-01-02T00:00:00Z}, shift: -1h}`, `1`, "2025-12-31T23:00:00Z"},
		{`{field: at}`, `1772366400`, "bare number"},
		{`{field: at, unit: s}`, `1e30`, "outside the years"},
		{`{field: at, unit: us}`, `9223372036854775807`, "outside"},
		{`{field: at}`, `null`, "is null"},
		{`{field: at}`, `true`, "no time"},
		{`{field: at, format: "2006-01-02"}`, `"07/01/2026"`, "does not have the form"},
	} {
		mapping := "events: [{kind: features, view: v, key: {k: {const: 1}}, values: {add: {a: {const: 1}}}, time: " + x.time + "}]"
		got := mapText(t, "x.jsonl", `{"at":`+x.cell+`}`, mapping, Options{})
		if len(got) != 1 || !strings.Contains(got[0], x.want) {
			t.Errorf("%s of %s: got %v, want %s", x.time, x.cell, got, x.want)
		}
	}
}

func TestCSVTypesAreConservative(t *testing.T) {
	text := "\xef\xbb\xbfzip,n,f,b,mixed,empty,at,note\r\n" +
		"01234,1,1,true,1,,2026-01-01T00:00:00Z,\"a \"\"quoted\"\", one\"\n" +
		"99999,-2,2.5e3,false,x,,2026-01-01T00:00:00Z,\"two\nlines\"\n" +
		"10000,,NA,true,2,,2026-01-01T00:00:00Z,\n"
	mapping := `
format: {nulls: [NA], columns: {b: String}}
events: [{kind: features, view: v, key: {zip: zip}, time: at, values: {all: true, except: [at, zip]}}]
`
	head := `{"view":"v","key":{"zip":`
	mid := `},"event_time":"2026-01-01T00:00:00Z","values":`
	expectLines(t, mapText(t, "x.csv", text, mapping, Options{}),
		`{"zip":"01234"} `+head+`"01234"`+mid+`{"n":1,"f":1.0,"b":"true","mixed":"1","empty":null,"note":"a \"quoted\", one"}}`,
		`{"zip":"99999"} `+head+`"99999"`+mid+`{"n":-2,"f":2500.0,"b":"false","mixed":"x","empty":null,"note":"two\u000alines"}}`,
		`{"zip":"10000"} `+head+`"10000"`+mid+`{"n":null,"f":null,"b":"true","mixed":"2","empty":null,"note":null}}`)
}

func TestBadFilesGiveErrors(t *testing.T) {
	mapping := "events: [{kind: features, view: v, key: {a: a}, time: at, values: [b]}]"
	good := `{"a":1,"b":2,"at":"2026-01-01T00:00:00Z"}`
	for _, x := range []struct{ name, text, want string }{
		{"x.csv", "a,b,at\n1,2\n", "has 2 cells, the header 3"},
		{"x.csv", "a,b,at\n\"1,2\n", "row 0: "},
		{"x.jsonl", "{\"a\":1\n" + good, "row 0: malformed"},
		{"x.jsonl", "nonsense\n" + good, "row 0: malformed"},
		{"x.jsonl", "\xff\xfe\n" + good, "row 0: encoding"},
		{"x.jsonl", "{\"a\":\"" + strings.Repeat("x", 10<<20) + "\"}\n" + good, "row 0: too_large"},
		{"x.jsonl", "{\"a\":" + strings.Repeat("[", 100_000) + "\n" + good, "row 0: malformed"},
		{"x.jsonl", `{"b":1,"at":"2026-01-01T00:00:00Z"}` + "\n" + good, "key.a: is null"},
	} {
		got := mapText(t, x.name, x.text, mapping, Options{})
		if len(got) == 0 || !strings.Contains(got[0], x.want) {
			t.Errorf("%.40q: got %.200v, want %s", x.text, got, x.want)
		}
		if x.name == "x.jsonl" && (len(got) != 2 || !strings.HasPrefix(got[1], `{"a":1}`)) {
			t.Errorf("%.40q: the good line after it is lost: %.200v", x.text, got)
		}
	}
	m, _ := Parse([]byte(mapping))
	for name, text := range map[string]string{"x.csv": "", "x.bin": "x", "x.parquet": "PAR1 but not really PAR1"} {
		if _, err := NewFile(name, strings.NewReader(text), int64(len(text)), m); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestMappingFaultsAreNamedTogether(t *testing.T) {
	for text, wants := range map[string][]string{
		"events: []":   {"at least one"},
		"event: []":    {"unknown field"},
		"events: {a":   {"mapping: "},
		"events: [{}]": {"unknown event kind", "time: state"},
		"events: [{kind: features, time: at, model: m, output: {score: s}}]":                                                             {"view: features need", "key: features need", "values: features need", "output: features have none"},
		"events: [{kind: predictions, model: m, time: at, id: i, version: v, inputs: {all: true, only: [a]}, label: l}]":                 {"all and only", "output: predictions need", "label: predictions have none"},
		"events: [{kind: labels, model: m, time: {field: at, unit: h}}]":                                                                 {"label: labels need", "prediction_id: labels need", `unit "h"`},
		"events: [{kind: labels, model: m, label: l, key: {a: a}, time: {field: at, zone: Mars/Base}}]":                                  {"zone"},
		"events: [{kind: labels, model: m, label: l, key: {a: a}, time: {start: 2026-01-01T00:00:00Z}}]":                                 {"positive step"},
		"events: [{kind: labels, model: m, label: l, key: {a: a}, time: {start: soon, step: 1h}}]":                                       {"soon"},
		"events: [{kind: labels, model: m, label: l, key: {a: a}, time: {field: at, expr: x}}]":                                          {"state one of"},
		"format: {type: xml, comma: ab, columns: {a: List(Int64)}}\nevents: [{kind: labels, model: m, label: l, key: {a: a}, time: at}]": {"xml", "one character", "cannot be read as List(Int64)"},
	} {
		_, err := Parse([]byte(text))
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", text, err, want)
			}
		}
	}
}

func TestExpressionsAreBounded(t *testing.T) {
	base := "events: [{kind: features, view: v, key: {a: a}, time: at, values: {add: {x: {expr: %q}}}}]"
	compiles := func(e string) error {
		m, err := Parse(fmt.Appendf(nil, base, e))
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewMapper(m, Options{})
		return err
	}
	for _, e := range []string{"now()", "a +", strings.Repeat("a+", 200) + "a", `env("HOME")`, "os.Exit(1)+"} {
		if compiles(e) == nil {
			t.Errorf("%.40s compiles", e)
		}
	}
	for e, want := range map[string]string{
		"a + 1":                         `"x":8`,
		"sum(map(1..100, # * #))":       `"x":338350`,
		"len(map(1..1000000, 1..1000))": "memory budget",
		"missing.deep":                  "error: row 0",
		"missing":                       `"x":null`,
		"[a, a]":                        `"x":[7,7]`,
		`{"k": a}`:                      `"x":{"k":7}`,
		"a / 0.0":                       `"x":"Infinity"`,
		`"\xff" + string(a)`:            `"x":`,
	} {
		got := mapText(t, "x.jsonl", `{"a":7,"at":"2026-01-01T00:00:00Z"}`, fmt.Sprintf(base, e), Options{})
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %v, want %s", e, got, want)
		}
	}
}

func TestHashNeedsKey(t *testing.T) {
	m, err := Parse([]byte("hash: [a]\nevents: [{kind: features, view: v, key: {a: a}, time: at, values: [a]}]"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMapper(m, Options{HashKey: []byte("short")}); !errors.Is(err, ErrNoHashKey) {
		t.Fatalf("got %v", err)
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	start := Instant(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	m := &Mapping{Explode: "x", Drop: []string{"d"}, Format: Format{Type: "csv", Columns: map[string]event.ColumnType{"a": {Elem: event.Float64}}},
		Events: []Event{{Kind: "predictions", Model: "m", Version: Value{Const: "3"}, ID: Value{Field: "i"}, Time: Time{Start: &start, Step: event.Duration(90 * time.Minute)},
			Inputs: Select{All: true, Except: []string{"a"}, Rename: map[string]string{"b": "c"}}, Output: Output{Score: Value{Expr: "a + 1"}}}}}
	text, err := m.YAML()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(m, back) {
		t.Errorf("got %+v\nwant %+v\nfrom\n%s", back, m, text)
	}
	if strings.Contains(string(text), "known_at") {
		t.Errorf("zero members are written:\n%s", text)
	}
}

// rowsOf reads a file given as text.
func rowsOf(t *testing.T, name, text string) (*File, []Row) {
	t.Helper()
	f, err := NewFile(name, strings.NewReader(text), int64(len(text)), &Mapping{})
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	for r, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, Row{Index: r.Index, Fields: append([]event.NamedValue(nil), r.Fields...)})
	}
	return f, rows
}

func TestDraftIsAcceptedByCheck(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for _, x := range []struct {
		text string
		want []string // in the drafted YAML
		kind event.Kind
		n    int64
	}{
		{"ts,user_id,amount\n1772366400,a,1.5\n1772366460,a,2\n", []string{"unit: s", "user_id: user_id", "kind: features"}, event.Features, 2},
		{"id,created,proba,x,target\n1,2026-03-01T00:00:00Z,0.5,a,1\n2,2026-03-01T00:00:01Z,0.6,b,\n", []string{"kind: predictions", "score: proba", "id: id", "label: target"}, event.Predictions, 2},
		{"a,b\n1,2\n3,4\n", []string{"no field looks like a time", "no field looks like an entity"}, event.Features, 2},
	} {
		f, rows := rowsOf(t, "x.csv", x.text)
		m, err := Draft("thing", rows)
		if err != nil {
			t.Fatal(err)
		}
		text, err := m.YAML()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range x.want {
			if !strings.Contains(string(text), w) {
				t.Errorf("%q is not in\n%s", w, text)
			}
		}
		mp, err := NewMapper(m, Options{File: f})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Check(mp, f.Rows(), 1000, now)
		if err != nil || r.Rejected != 0 || r.Events[x.kind] != x.n {
			t.Errorf("%v %+v\n%s", err, r, text)
		}
	}
}

func TestCheckReportsRejects(t *testing.T) {
	m, err := Parse([]byte("events: [{kind: features, view: v, key: {a: a}, time: at, values: [b]}]"))
	if err != nil {
		t.Fatal(err)
	}
	text := `{"a":1,"b":2,"at":"2026-01-01T00:00:00Z"}
{"a":1,"b":"x","at":"2026-01-01T00:00:00Z"}
{"a":1,"b":2,"at":"2036-01-01T00:00:00Z"}
{"a":null,"b":2,"at":"2026-01-01T00:00:00Z"}
{broken
`
	f, err := NewFile("x.jsonl", strings.NewReader(text), int64(len(text)), m)
	if err != nil {
		t.Fatal(err)
	}
	mp, err := NewMapper(m, Options{File: f})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Check(mp, f.Rows(), 1000, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, x := range r.Rejections {
		fmt.Fprintf(&got, "%d %s\n", x.Row, x.Reason)
	}
	if want := "3 type\n4 malformed\n1 type\n2 future\n"; got.String() != want || r.Events[event.Features] != 1 || r.RejectRate() != 0.8 {
		t.Errorf("got %s, want %s; %+v", got.String(), want, r)
	}
}

// TestWholeNumbersThatDoNotFit: an unsigned number above 2^63-1 never turns
// negative on its way through a mapping.
func TestWholeNumbersThatDoNotFit(t *testing.T) {
	m, err := Parse([]byte("events: [{kind: features, view: v, key: {k: {const: 18446744073709551615}}, time: at, values: {all: true}}]"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMapper(m, Options{}); err == nil || !strings.Contains(err.Error(), "beyond the range of Int64") {
		t.Errorf("a constant above 2^63-1 is taken: %v", err)
	}
	for value, want := range map[string]string{
		"{const: 9223372036854775807}": `"a":9223372036854775807`,
		"{expr: int(u)}":               "beyond the range of Int64",
		"{expr: n + 1}":                "beyond the range of Int64",
		"{expr: u}":                    `"a":18446744073709552000`,
	} {
		mapping := "events: [{kind: features, view: v, key: {k: {const: 1}}, values: {add: {a: " + value + "}}, time: {start: 2026-01-01T00:00:00Z, step: 1s}}]"
		got := mapText(t, "x.jsonl", `{"u":18446744073709551615,"n":9223372036854775807}`, mapping, Options{})
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %v, want %s", value, got, want)
		}
	}
}
