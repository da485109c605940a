package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fuzzDefs declares a view and a model with every column type, so that texts
// meet them; other names are inferred.
func fuzzDefs() []CatalogEntry {
	columns := []FieldSpec{{Name: "gone", Type: ColumnType{Elem: Int64}, Retired: true}}
	for _, t := range []Type{Bool, Int32, Int64, Float32, Float64, String, Timestamp, Bytes, JSON} {
		n := strings.ToLower(t.String())
		columns = append(columns, FieldSpec{Name: n, Aliases: []string{n + "_old"}, Type: ColumnType{Elem: t}},
			FieldSpec{Name: n + "s", Type: ColumnType{t, true}})
	}
	view, _ := json.Marshal(ViewSpec{Origin: Declared, Columns: columns,
		Keys: []FieldSpec{{Name: "a", Type: ColumnType{Elem: Int64}}, {Name: "b", Type: ColumnType{Elem: String}, Aliases: []string{"bb"}}}})
	model, _ := json.Marshal(ModelSpec{Origin: Declared, Signatures: []SignatureSpec{{ID: 1, Columns: columns, Versions: []string{"1"}}}})
	return []CatalogEntry{
		{Kind: FeatureViewKind, Namespace: "default", Name: "all", UID: 1, Spec: view},
		{Kind: ModelKind, Namespace: "default", Name: "all", UID: 2, Spec: model},
	}
}

var fuzzBase = sync.OnceValue(func() *Catalog {
	c, err := NewCatalog(fuzzDefs())
	if err != nil {
		panic(err)
	}
	return c
})

// compare holds one record against the reference decoder.
func compare(t *testing.T, kind Kind, text string) {
	t.Helper()
	w := newWorld(t, kind)
	w.defs, w.cat = fuzzDefs(), fuzzBase()
	u := w.decode(text)
	ref := &reference{specs: map[string]json.RawMessage{}, row: map[string]string{}, limits: DefaultDecoderConfig(), at: testClock}
	for _, d := range w.defs {
		ref.specs[d.Kind+"/"+d.Name] = d.Spec
	}
	if n := ref.parse([]byte(text)); n != nil && n.kind == '{' {
		switch kind {
		case Features:
			ref.features(n)
		case Predictions:
			ref.predictions(n)
		case Labels:
			ref.labels(n)
		}
	}
	for _, b := range w.unit.plans {
		for i := range b.batch.Columns {
			if c := &b.batch.Columns[i]; c.Len() != b.batch.Rows || c.Items != nil && int(lastOf(c.Ends)) != c.Items.Len() {
				t.Fatalf("%q: column %s has %d rows, the batch %d", text, b.schema.Fields[i].ColumnName(), c.Len(), b.batch.Rows)
			}
		}
	}
	switch {
	case len(u.Dead) == 1 && u.Counts.Rows == 0:
		if !slices.Contains(ref.reasons, u.Dead[0].Reason) {
			t.Fatalf("%q: refused (%s: %s), the reference says %v %v", text, u.Dead[0].Reason, u.Dead[0].Detail, ref.reasons, ref.row)
		}
	case len(u.Dead) == 0 && u.Counts.Rows == 1:
		got := rowOf(u.Batches[0], 0)
		if len(ref.reasons) > 0 || !maps.Equal(got, ref.row) {
			t.Fatalf("%q:\n got %v\nwant %v %v", text, got, ref.row, ref.reasons)
		}
	default:
		t.Fatalf("%q: %d rows and %d dead letters", text, u.Counts.Rows, len(u.Dead))
	}
}

// badTexts are inputs that once broke somebody's decoder.
func badTexts() []string {
	good := feature(`{"a":1}`)
	list := []string{
		"", " ", "null", "[]", "7", `"x"`, "{", "{}", `{"view":`, `{"view":"user"`, good + " x", good + good, "\xef\xbb\xbf" + good,
		strings.Replace(good, "user", "us\xffer", 1), strings.Replace(good, "user", `us\ud800er`, 1),
		strings.Replace(good, "user", `us\ud83d\ude00er`, 1), strings.Replace(good, "user", `us\u00`, 1),
		strings.Replace(good, "user", `us\ud83d\u0041er`, 1), strings.Replace(good, "user", `us\udc00er`, 1), strings.Replace(good, "user", `us\ud83d\n`, 1),
		strings.Replace(good, `"view"`, `"id":"a","id":"a","view"`, 1), strings.Replace(good, `"view"`, `"id":null,"id":"a","view"`, 1),
		strings.Replace(good, `{"id":7}`, "null", 1), strings.Replace(good, `{"id":7}`, `{"id":null}`, 1),
		strings.Replace(good, `{"id":7}`, "{}", 1), strings.Replace(good, `{"id":7}`, "1.5", 1),
		strings.Replace(good, `"2026-03-01T11:00:00Z"`, "1772366400", 1),
		strings.Replace(good, "view", "View", 1), strings.Replace(good, `"values":`, `"values":1,"values":`, 1),
		feature(strings.Repeat("[", 100000)), feature(`{"a":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + "}"),
		feature(`{"a":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + "}"),
		feature(`{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + "}"),
		feature("null"), feature("[]"), feature(`{"a":1,"a":2}`), feature(`{"":1}`), feature(`{"a":1,}`), feature(`{"a":01}`),
		feature(`{"a":1.}`), feature(`{"a":.5}`), feature(`{"a":1e}`), feature(`{"a":-}`), feature(`{"a":+1}`), feature(`{"a":NaN}`),
		feature(`{"a":1e400}`), feature(`{"a":1e-400}`), feature("{\"a\":\"x\ty\"}"), feature(`{"a":tru}`), feature(`{"a":"` + strings.Repeat("é", 50) + `"}`),
		feature(`{"a\u0022:1,\u0022b":1}`), feature(`{"a":9223372036854775807,"b":-9223372036854775808,"c":9223372036854775808}`),
	}
	for _, at := range []string{"2026-03-01T12:10:00.000001Z", "2026-03-01T12:10:00Z", "9999-01-01T00:00:00Z", "1899-12-31T23:59:59Z", "1900-01-01T00:00:00Z",
		"2299-12-31T23:59:59.9999999Z", "2026-02-29T00:00:00Z", "2024-02-29T24:00:00Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00", "2026-01-01 00:00:00+02:30",
		"2026-01-01t00:00:00.123456789z", "2026-1-1T00:00:00Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00,5Z", "", "0000-01-01T00:00:00Z"} {
		list = append(list, strings.Replace(good, "2026-03-01T11:00:00Z", at, 1))
	}
	return list
}

// typedTexts tries every kind of value in every type of column.
func typedTexts(kind Kind) []string {
	var list []string
	values := []string{"null", "true", "0", "-0", "1", "-1.5", "3.0", "1e3", "2147483648", "9007199254740993", "9223372036854775808", "1e39", `"NaN"`, `"Infinity"`,
		`"x"`, `"2026-01-02T03:04:05+01:00"`, `"aGk="`, `"aGk"`, `{"z":[1]}`, "[]", "[1,null,2.5]", `["x"]`, "[[1]]", "[true]", `["NaN"]`, "0.1", "16777217.0", "1.00000017881393432617187499"}
	fields := fuzzDefs()[0].Spec
	spec, _ := ParseView(fields)
	for _, f := range spec.Columns {
		for _, v := range values {
			list = append(list, wrap(kind, fmt.Sprintf(`{%q:%s}`, f.Name, v)))
		}
	}
	return append(list, wrap(kind, `{"int64":1,"int64_old":2}`), wrap(kind, `{"nobody":{"x":1},"nó\t":2}`), wrap(kind, `{"gone":null}`))
}

func wrap(kind Kind, values string) string {
	switch kind {
	case Predictions:
		return `{"model":"all","version":"1","id":"p","event_time":"2026-03-01T11:00:00Z","inputs":` + values + `,"output":{"score":1}}`
	case Labels:
		return `{"model":"all","prediction_id":"p","event_time":"2026-03-01T11:00:00Z","label":` + values + `}`
	}
	return `{"view":"all","key":{"b":"x","a":1},"event_time":"2026-03-01T11:00:00Z","values":` + values + `}`
}

func moreTexts() []string {
	p := `{"model":"m","version":"1","id":"p","event_time":"2026-03-01T11:00:00Z","inputs":{"a":1},"output":%s}`
	var list []string
	for _, o := range []string{"null", "{}", "7", `{"score":null}`, `{"score":0.5,"class":true}`, `{"class":3}`, `{"class":1.5}`, `{"scores":{"a":1,"b":null}}`,
		`{"scores":{"a":1,"a":2}}`, `{"quantiles":{"0.5":"NaN"}}`, `{"vector":[1,null]}`, `{"vector":[]}`, `{"items":[{"id":1}]}`, `{"items":{}}`, `{"score":1,"other":2}`,
		`{"score":1,"score":1}`, `{"value":"x"}`} {
		list = append(list, fmt.Sprintf(p, o))
	}
	return append(list,
		`{"output":{"value":1},"inputs":{"b":null},"segments":{"c":"DE","n":1,"t":true,"x":null},"variant":"A","feature_times":{"a":"2026-03-01T11:00:00.5Z"},`+
			`"latency":{"queue":1,"features":2.5,"compute":null,"x":1},"threshold":0.5,"group":{"id":9,"position":3},"attributions":{"a":-1e-7},"weight":2,`+
			`"trace":"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01","key":{"z":"\u00e9\"","a":12},"id":17,"version":4,"model":"m","event_time":"2026-03-01T11:00:00Z","known_at":"2026-03-01T10:00:00Z","created":"2026-03-01T12:00:00Z","namespace":"default"}`,
		`{"model":"m","version":"1","id":"","event_time":"2026-03-01T11:00:00Z","inputs":{},"output":{"score":1}}`,
		`{"model":"m","key":"k","event_time":"2026-03-01T11:00:00Z","label":"NaN"}`,
		`{"model":"m","key":{"k":1,"k":2},"event_time":"2026-03-01T11:00:00Z","label":"x"}`,
		`{"model":"m","key":{"k":1.0},"prediction_id":7,"event_time":"2026-03-01T11:00:00Z","label":false,"weight":0}`,
		`{"model":"m","prediction_id":"","event_time":"2026-03-01T11:00:00Z","label":1}`,
		`{"model":"m","prediction_id":"p","event_time":"2026-03-01T11:00:00Z"}`,
		`{"model":"m","prediction_id":"p","event_time":"2026-03-01T11:00:00Z","label":null,"namespace":"other"}`,
		`{"view":"v","key":"x","event_time":"2026-03-01T11:00:00Z","delete":true}`,
		`{"view":"v","key":{"b":1,"a":true},"event_time":"2026-03-01T11:00:00Z","delete":false,"values":{},"nobody":[{}]}`,
		`{"values":{"a":[1,2],"b":[],"c":[null],"d":[1,"x"],"e":"NaN"},"event_time":"2026-03-01T11:00:00Z","key":{"k":"x"},"view":"v"}`)
}

func seeds() (list []string) {
	list = append(badTexts(), moreTexts()...)
	for _, k := range []Kind{Features, Predictions, Labels} {
		list = append(list, typedTexts(k)...)
	}
	return list
}

func TestDecodeAgainstReference(t *testing.T) {
	for _, kind := range []Kind{Features, Predictions, Labels} {
		for _, s := range seeds() {
			compare(t, kind, s)
		}
	}
}

func fuzzKind(f *testing.F, kind Kind) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { compare(t, kind, text) })
}

func FuzzDecodeFeatures(f *testing.F)    { fuzzKind(f, Features) }
func FuzzDecodePredictions(f *testing.F) { fuzzKind(f, Predictions) }
func FuzzDecodeLabels(f *testing.F)      { fuzzKind(f, Labels) }
