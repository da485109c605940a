package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpecsAreStrictInBothForms(t *testing.T) {
	asYAML := `
origin: declared
owner: fraud
tags: {cost: a}
ttl: 7d
online: true
keys: [{name: user, type: Int64}]
columns:
- {name: amount, type: Float64, aliases: [amt]}
- {name: tags, type: List(String)}
`
	v, err := ParseView([]byte(asYAML))
	if err != nil {
		t.Fatal(err)
	}
	if v.Owner != "fraud" || v.Tags["cost"] != "a" || time.Duration(v.TTL) != 7*24*time.Hour || v.Columns[1].Type != (ColumnType{String, true}) {
		t.Errorf("%+v", v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseView(text)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(v) || !strings.Contains(string(text), `"ttl":"7d"`) {
		t.Errorf("%v: %s", err, text)
	}
	for text, want := range map[string]string{
		`{"origin":"declared","keys":[{"name":"a","type":"Int64"}],"columns":[],"colums":[]}`: "colums",
		`{"origin":"declared","keys":[],"columns":[]} {}`:                                     "bytes after",
		"origin: !0000 00000":                                        "",
		"origin: declared\nkeyz: []":                                 "keyz",
		`{"origin":"declared","keys":[{"name":"a","type":"Int63"}]}`: "Int63",
		`{"origin":"declared","ttl":"7x"}`:                           "7x",
	} {
		if _, err := ParseView([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", text, err, want)
		}
	}
}

func TestValidateJoinsAllFaults(t *testing.T) {
	f := func(name string, ct ColumnType, aliases ...string) FieldSpec {
		return FieldSpec{Name: name, Type: ct, Aliases: aliases}
	}
	num := ColumnType{Elem: Float64}
	v := ViewSpec{Origin: "guessed", TTL: -1, Keys: []FieldSpec{f("k", num)},
		Columns: []FieldSpec{f("", num), f("a", num, "b"), f("b", num), f("m", ColumnType{Elem: FloatMap}), f("x\n", num), f(strings.Repeat("n", 201), num)}}
	err := v.Validate()
	for _, want := range []string{"origin \"guessed\"", "ttl", `keys: "k" has type Float64`, "name is empty", `"b" stands for two`, "FloatMap", "control character", "201 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	m := ModelSpec{Origin: Declared, Signatures: []SignatureSpec{{ID: 0}, {ID: 1, Versions: []string{"1", "1"}}, {ID: 1, Columns: []FieldSpec{f("u", ColumnType{})}}}}
	err = m.Validate()
	for _, want := range []string{"signatures: 0: ids", `version "1" is listed twice`, "signatures: 1: ids", `"u": has no type`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "36h": 36 * time.Hour, "90s": 90 * time.Second, "-1d": -24 * time.Hour, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v %v", text, time.Duration(d), err)
		}
		out, _ := d.MarshalText()
		var back Duration
		if err := back.UnmarshalText(out); err != nil || back != d {
			t.Errorf("%s is written %s", text, out)
		}
	}
	for _, bad := range []string{"7", "d", "7dd", "7d3h", "999999999999d", ""} {
		if err := new(Duration).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a duration", bad)
		}
	}
}

// columnsOf shows a view's columns after decoding texts one unit after the other.
func columnsOf(t *testing.T, units ...[]string) (string, *world) {
	t.Helper()
	w := newWorld(t, Features)
	for _, texts := range units {
		w.decode(texts...)
	}
	spec, err := ParseView(w.defs[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range spec.Columns {
		s := c.Name + " " + c.Type.String()
		if c.Fixed {
			s += " fixed"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", "), w
}

func TestInference(t *testing.T) {
	one := func(values ...string) (list []string) {
		for _, v := range values {
			list = append(list, feature(v))
		}
		return list
	}
	for _, x := range []struct {
		units [][]string
		want  string
		dead  int64 // in the last unit
	}{
		{[][]string{one(`{"a":null,"b":1}`)}, "a Unknown, b Int64", 0},
		{[][]string{one(`{"a":null,"b":1}`), one(`{"b":2,"c":"x","a":[]}`), one(`{"a":[true]}`)}, "a List(Bool), b Int64, c String", 0},
		{[][]string{one(`{"a":1}`), one(`{"a":1.5}`)}, "a Float64", 0},
		{[][]string{one(`{"a":1}`), one(`{"a":"NaN"}`)}, "a Float64", 0},
		{[][]string{one(`{"a":1.5}`), one(`{"a":"x"}`)}, "a Float64", 1},
		{[][]string{one(`{"a":"NaN"}`, `{"a":"x"}`)}, "a String", 0},
		{[][]string{one(`{"a":"NaN"}`), one(`{"a":"x"}`)}, "a Float64", 1},
		{[][]string{one(`{"a":1}`, `{"a":"x"}`, `{"a":true}`)}, "a Int64", 2},
		{[][]string{one(`{"a":9007199254740993}`, `{"a":1.5}`)}, "a Int64 fixed", 1},
		{[][]string{one(`{"a":9007199254740994}`, `{"a":1.5}`)}, "a Float64", 0},
		{[][]string{one(`{"a":18446744073709551616}`)}, "a Float64", 0},
		{[][]string{one(`{"a":[1,2]}`), one(`{"a":[1.5]}`)}, "a List(Float64)", 0},
		{[][]string{one(`{"a":[]}`), one(`{"a":1}`)}, "a List(Unknown)", 1},
		{[][]string{one(`{"a":[1,"x"]}`), one(`{"a":7}`)}, "a Json", 0},
		{[][]string{one(`{"a":{"b":1}}`), one(`{"a":null}`)}, "a Json", 0},
	} {
		got, w := columnsOf(t, x.units...)
		if got != x.want || w.unit.Counts.DeadLetters != x.dead {
			t.Errorf("%v: got %s with %d dead, want %s with %d", x.units, got, w.unit.Counts.DeadLetters, x.want, x.dead)
		}
	}
}

func TestTooManyColumnsAreRefusedNotLooped(t *testing.T) {
	wide := func(from, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"c%d":1`, from+i)
		}
		return feature("{" + b.String()[1:] + "}")
	}
	w := newWorld(t, Features)
	u := w.decode(wide(0, 600), wide(600, 400), wide(1000, 1), wide(0, 1001))
	if got := deadReasons(u); !slices.Equal(got, []string{"2 limit", "3 limit"}) || u.Counts.Rows != 2 {
		t.Errorf("%v %+v", got, u.Counts)
	}
}

func TestVersionsShareASignatureWhenInputsAgree(t *testing.T) {
	p := func(version, inputs string) string {
		return fmt.Sprintf(`{"model":"m","version":%q,"id":"p","event_time":"2026-03-01T11:00:00Z","inputs":%s,"output":{"score":1}}`, version, inputs)
	}
	w := newWorld(t, Predictions)
	w.decode(p("1", `{"a":1,"b":"x"}`))
	w.decode(p("2", `{"b":"y","a":0.5}`), p("3", `{"a":1}`), p("4", `{"a":"text","b":"x"}`), p("1", `{"a":1,"b":null,"c":true}`))
	spec, err := ParseModel(w.defs[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range spec.Signatures {
		line := fmt.Sprint(s.ID, s.Versions)
		for _, c := range s.Columns {
			line += " " + c.Name + ":" + c.Type.String()
		}
		got = append(got, line)
	}
	want := []string{"1 [1 2] a:Float64 b:String c:Bool", "2 [3] a:Int64", "3 [4] a:String b:String"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if w.cat.Model("default", "m", "2").TableID != 1001 || w.cat.Model("default", "m", "3").Table() != "predictions_1002" || w.cat.Labels("default", "m").Table() != "labels_1" {
		t.Errorf("tables: %v", w.cat.Schemas())
	}
}

func TestDeclaredModelKeepsItsShape(t *testing.T) {
	w := newWorld(t, Predictions, fuzzDefs()...)
	u := w.decode(strings.Replace(wrap(Predictions, `{"int64":1,"other":"x"}`), `"version":"1"`, `"version":"2"`, 1))
	spec, _ := ParseModel(w.defs[1].Spec)
	if len(spec.Signatures) != 1 || !slices.Equal(spec.Signatures[0].Versions, []string{"1", "2"}) {
		t.Errorf("%+v", spec.Signatures)
	}
	if got := u.Batches[0].Columns[ColOverflow].text(0); got != `{"other":"x"}` || u.Counts.Overflow != 1 {
		t.Errorf("overflow %s, %+v", got, u.Counts)
	}
}

func TestDeclaredOnlyInfersNothing(t *testing.T) {
	cfg := DefaultDecoderConfig()
	cfg.DeclaredOnly = true
	w := newWorld(t, Features)
	w.decode(feature(`{"a":1,"n":null}`))
	w.d = NewDecoder(cfg)
	u := w.decode(feature(`{"a":1.5}`), feature(`{"a":2,"n":3,"b":{}}`), strings.Replace(feature("{}"), "user", "nobody", 1))
	if got := deadReasons(u); !slices.Equal(got, []string{"0 type", "2 undefined"}) {
		t.Errorf("%v", u.Dead)
	}
	if got := u.Batches[0].Columns[ColOverflow].text(0); got != `{"n":3,"b":{}}` {
		t.Errorf("overflow %s", got)
	}
}

func TestRetiredTakesNothing(t *testing.T) {
	w := newWorld(t, Features)
	w.decode(feature(`{"a":1}`))
	w.defs[0].Spec = json.RawMessage(strings.Replace(string(w.defs[0].Spec), `"online":true`, `"retired":true`, 1))
	w.reload()
	if got := deadReasons(w.decode(feature(`{"a":1}`))); !slices.Equal(got, []string{"0 deprecated"}) {
		t.Errorf("%v", got)
	}
}

// TestProposalsOfTwoPartitionsMerge folds what two consumers saw at once.
func TestProposalsOfTwoPartitionsMerge(t *testing.T) {
	seen := func(types ...Evidence) Proposal {
		return Proposal{Kind: FeatureViewKind, Name: "v", Keys: []Evidence{{Name: "k", Type: ColumnType{Elem: String}}}, Columns: types}
	}
	whole, fraction := ColumnType{Elem: Int64}, ColumnType{Elem: Float64}
	for _, x := range []struct {
		a, b Evidence
		want FieldSpec
	}{
		{Evidence{Type: whole}, Evidence{Type: fraction}, FieldSpec{Type: fraction}},
		{Evidence{Type: fraction}, Evidence{Type: whole, Exact: true}, FieldSpec{Type: fraction}},
		{Evidence{Type: whole}, Evidence{Type: whole, Exact: true}, FieldSpec{Type: whole, Fixed: true}},
		{Evidence{Type: whole, Exact: true}, Evidence{Type: fraction}, FieldSpec{Type: whole, Fixed: true}},
		{Evidence{Type: ColumnType{Elem: Bool}}, Evidence{Type: fraction}, FieldSpec{Type: ColumnType{Elem: Bool}}},
		{Evidence{}, Evidence{Type: ColumnType{List: true}}, FieldSpec{Type: ColumnType{List: true}}},
		{Evidence{Type: ColumnType{List: true}}, Evidence{Type: ColumnType{Float64, true}}, FieldSpec{Type: ColumnType{Float64, true}}},
		{Evidence{Type: ColumnType{Elem: JSON}}, Evidence{}, FieldSpec{Type: ColumnType{Elem: JSON}}},
	} {
		x.a.Name, x.b.Name, x.want.Name = "c", "c", "c"
		_, _, _, spec, err := Merge(nil, []Proposal{seen(x.a)})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, spec, err = Merge(spec, []Proposal{seen(x.b)})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := ParseView(spec); err != nil || len(v.Columns) != 1 || fmt.Sprint(v.Columns[0]) != fmt.Sprint(x.want) {
			t.Errorf("%+v then %+v: got %s, %v", x.a, x.b, spec, err)
		}
	}
}

func TestMergeRefusesWhatItCannotFold(t *testing.T) {
	view := Proposal{Kind: FeatureViewKind, Namespace: "n", Name: "v", Keys: []Evidence{{Name: "k", Type: ColumnType{Elem: String}}}}
	other := view
	other.Name = "w"
	for _, x := range []struct {
		current string
		ps      []Proposal
		want    string
	}{
		{"", nil, "none"}, {"", []Proposal{view, other}, "two subjects"}, {"{", []Proposal{view}, "n/v"}, {"", []Proposal{{Kind: "Source"}}, "unknown kind"},
	} {
		var current json.RawMessage
		if x.current != "" {
			current = json.RawMessage(x.current)
		}
		if _, _, _, _, err := Merge(current, x.ps); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: got %v", x, err)
		}
	}
	kind, ns, name, spec, err := Merge(nil, []Proposal{view, view})
	if err != nil || kind != FeatureViewKind || ns != "n" || name != "v" {
		t.Fatal(kind, ns, name, err)
	}
	declared := strings.Replace(string(spec), "inferred", "declared", 1)
	view.Columns = []Evidence{{Name: "new", Type: ColumnType{Elem: Bool}}}
	if _, _, _, got, err := Merge(json.RawMessage(declared), []Proposal{view}); err != nil || string(got) != declared {
		t.Errorf("a declared view changed to %s, %v", got, err)
	}
}

func TestNewCatalogNamesTheFault(t *testing.T) {
	_, err := NewCatalog([]CatalogEntry{{Kind: FeatureViewKind, Namespace: "n", Name: "v", Spec: json.RawMessage(`{"origin":"x"}`)}})
	if err == nil || !strings.Contains(err.Error(), "FeatureView n/v") {
		t.Errorf("%v", err)
	}
	c, err := NewCatalog([]CatalogEntry{{Kind: "Source", Name: "s"}})
	if err != nil || len(c.Schemas()) != 0 || c.View("n", "v") != nil || c.Model("n", "m", "1") != nil || c.Labels("n", "m") != nil {
		t.Errorf("%v %v", c, err)
	}
}
