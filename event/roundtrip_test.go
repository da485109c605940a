package event

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genName draws names that need escapes, too.
func genName() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-zA-Z_"\\é/ ]{1,8}`)
}

func genText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[a-z"\\\x00-\x1f]{0,6}`), rapid.SampledFrom([]string{"", "é", "日本", "\U0001F600", "\u2028", "NaN"}), rapid.String())
}

func genFloat() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, 1e300, 5e-324, math.Inf(1), math.Inf(-1), math.NaN()}))
}

func genMicros() *rapid.Generator[int64] { return rapid.Int64Range(MinTime, testClock) }

func genScalar(t *rapid.T, elem Type) Value {
	v := Value{Type: ColumnType{Elem: elem}}
	switch elem {
	case Bool:
		v.Int = rapid.Int64Range(0, 1).Draw(t, "bool")
	case Int32:
		v.Int = int64(rapid.Int32().Draw(t, "int32"))
	case Int64:
		v.Int = rapid.Int64().Draw(t, "int64")
	case Float32:
		v.Float = float64(rapid.Float32().Draw(t, "float32"))
	case Float64:
		v.Float = genFloat().Draw(t, "float64")
	case Timestamp:
		v.Int = rapid.Int64Range(MinTime, MaxTime).Draw(t, "time")
	case JSON:
		v.Text = rapid.SampledFrom([]string{`{"a":[1,2.5,null]}`, `[]`, `"x"`, `7`, `true`}).Draw(t, "json")
	case Bytes:
		v.Text = string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	default:
		v.Text = genText().Draw(t, "text")
	}
	return v
}

func genValue(t *rapid.T, ct ColumnType) Value {
	if !ct.List {
		if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
			return Value{}
		}
		return genScalar(t, ct.Elem)
	}
	v := Value{Type: ct}
	for range rapid.IntRange(0, 3).Draw(t, "n") {
		e := genScalar(t, ct.Elem)
		if rapid.IntRange(0, 4).Draw(t, "null element") == 0 {
			e = Value{}
		}
		v.List = append(v.List, e)
	}
	return v
}

func genFields(t *rapid.T, label string, minimum int, types []Type, lists bool) []FieldSpec {
	names := rapid.SliceOfNDistinct(genName(), minimum, 5, rapid.ID).Draw(t, label)
	fields := []FieldSpec{}
	for _, n := range names {
		ct := ColumnType{Elem: rapid.SampledFrom(types).Draw(t, "type"), List: lists && rapid.Bool().Draw(t, "list")}
		fields = append(fields, FieldSpec{Name: n, Type: ct})
	}
	return fields
}

var allTypes = []Type{Bool, Int32, Int64, Float32, Float64, String, Timestamp, Bytes, JSON}

func genNamed(t *rapid.T, fields []FieldSpec, null bool) []NamedValue {
	list := []NamedValue{}
	for _, f := range fields {
		v := genValue(t, f.Type)
		for !null && v.IsNull() {
			v = genScalar(t, f.Type.Elem)
		}
		list = append(list, NamedValue{f.Name, v})
	}
	return list
}

func mustSpec(t testing.TB, spec any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// equal compares rows with NaN equal to itself.
func equal(a, b any) bool { return fmt.Sprintf("%#v", deref(a)) == fmt.Sprintf("%#v", deref(b)) }

// deref shows pointers by what they point to.
func deref(v any) any {
	b, err := json.Marshal(v)
	if err == nil {
		return string(b)
	}
	return showFloats(reflect.ValueOf(v))
}

func showFloats(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "nil"
		}
		return showFloats(v.Elem())
	case reflect.Struct:
		s := ""
		for i := range v.NumField() {
			s += v.Type().Field(i).Name + ":" + showFloats(v.Field(i)) + ","
		}
		return "{" + s + "}"
	case reflect.Slice:
		s := ""
		for i := range v.Len() {
			s += showFloats(v.Index(i)) + ";"
		}
		return "[" + s + "]"
	case reflect.Float64:
		return fmt.Sprint(math.Float64bits(v.Float()))
	}
	return fmt.Sprintf("%#v", v.Interface())
}

// decodeOne decodes one text with one definition, which must suffice.
func decodeOne(t *rapid.T, kind Kind, def CatalogEntry, text []byte) *Batch {
	cat, err := NewCatalog([]CatalogEntry{def})
	if err != nil {
		t.Fatal(err)
	}
	u := &Unit{Namespace: "default", Kind: kind, Epoch: 2, Catalog: cat}
	NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Partition: 1, Offset: 5, Time: testClock, Value: text})
	if len(u.Dead) > 0 || len(u.Proposals) > 0 || len(u.Batches) != 1 {
		t.Fatalf("%s\ndead %+v proposals %+v", text, u.Dead, u.Proposals)
	}
	return u.Batches[0]
}

func TestFeatureRowsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := genFields(rt, "keys", 1, []Type{Bool, Int64, Int32, String, Timestamp, Bytes}, false)
		columns := genFields(rt, "columns", 0, allTypes, true)
		def := CatalogEntry{Kind: FeatureViewKind, Namespace: "default", Name: genName().Draw(rt, "view"), UID: 9,
			Spec: mustSpec(t, ViewSpec{Origin: Declared, Keys: keys, Columns: columns})}
		want := FeatureRow{Position: Position{1, 5, 0, 2}, View: def.Name, Key: genNamed(rt, keys, false), Values: genNamed(rt, columns, true),
			EventTime: genMicros().Draw(rt, "t"), Created: genMicros().Draw(rt, "c"), KnownAt: genMicros().Draw(rt, "k"),
			ID: genText().Draw(rt, "id"), Trace: rapid.StringMatching(`[0-9a-f]{0,32}`).Draw(rt, "trace"), Delete: rapid.Bool().Draw(rt, "del")}
		if want.Created == 0 || want.KnownAt == 0 {
			rt.Skip("zero means unstated")
		}
		if rapid.Bool().Draw(rt, "over") && !slices.ContainsFunc(columns, func(f FieldSpec) bool { return f.Name == "zzzzzzzzz" }) && !(want.Delete && len(columns) == 0) {
			want.Overflow = `{"zzzzzzzzz":[1]}`
		}
		got := slices.Collect(decodeOne(rt, Features, def, AppendFeatureJSON(nil, want)).FeatureRows())
		if len(got) != 1 || !equal(got[0], want) {
			rt.Fatalf("\n got %+v\nwant %+v\nas %s", got, want, AppendFeatureJSON(nil, want))
		}
	})
}

func opt[T any](t *rapid.T, g *rapid.Generator[T]) *T {
	if rapid.Bool().Draw(t, "stated") {
		v := g.Draw(t, "v")
		return &v
	}
	return nil
}

func genFloats(t *rapid.T) []NamedFloat {
	var list []NamedFloat
	for _, n := range rapid.SliceOfNDistinct(genText(), 0, 3, rapid.ID).Draw(t, "names") {
		list = append(list, NamedFloat{n, genFloat().Draw(t, "f")})
	}
	return list
}

func TestPredictionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		columns := genFields(rt, "columns", 0, allTypes, true)
		def := CatalogEntry{Kind: ModelKind, Namespace: "default", Name: genName().Draw(rt, "model"), UID: 9}
		want := Prediction{Position: Position{1, 5, 0, 2}, Model: def.Name, Version: genName().Draw(rt, "version"), ID: genName().Draw(rt, "id"),
			EventTime: genMicros().Draw(rt, "t"), Created: testClock - 1, KnownAt: testClock - 2, Key: rapid.SampledFrom([]string{"", `{"a":1,"b":"x\"y"}`}).Draw(rt, "key"),
			Inputs: genNamed(rt, columns, true), Variant: genText().Draw(rt, "variant"), QueueMS: opt(rt, genFloat()), FeaturesMS: opt(rt, genFloat()),
			ComputeMS: opt(rt, genFloat()), Threshold: opt(rt, genFloat()), GroupID: genText().Draw(rt, "group"), GroupPos: rapid.Int32().Draw(rt, "pos"),
			Attributions: genFloats(rt), Weight: genFloat().Draw(rt, "weight")}
		want.Output = Output{Score: opt(rt, genFloat()), Class: opt(rt, genText()), Value: opt(rt, genFloat()), Scores: genFloats(rt), Quantiles: genFloats(rt),
			Items: rapid.SampledFrom([]string{"", "[]", `[{"id":"a"}]`}).Draw(rt, "items")}
		for range rapid.IntRange(0, 3).Draw(rt, "n") {
			want.Output.Vector = append(want.Output.Vector, genValue(rt, ColumnType{Elem: Float64}))
		}
		for _, n := range rapid.SliceOfNDistinct(genText(), 0, 3, rapid.ID).Draw(rt, "segments") {
			want.Segments = append(want.Segments, NamedText{n, genText().Draw(rt, "segment")})
			want.FeatureTimes = append(want.FeatureTimes, NamedTime{n, genMicros().Draw(rt, "ft")})
		}
		if o := want.Output; o.Score == nil && o.Class == nil && o.Value == nil && o.Scores == nil && o.Quantiles == nil && o.Vector == nil && o.Items == "" {
			want.Output.Items = "[1]"
		}
		def.Spec = mustSpec(t, ModelSpec{Origin: Declared, Signatures: []SignatureSpec{{ID: 1, Columns: columns, Versions: []string{want.Version}}}})
		got := slices.Collect(decodeOne(rt, Predictions, def, AppendPredictionJSON(nil, want)).Predictions())
		if len(got) != 1 || !equal(got[0], want) {
			rt.Fatalf("\n got %s\nwant %s\nas %s", deref(got), deref(want), AppendPredictionJSON(nil, want))
		}
	})
}

func TestLabelsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		def := CatalogEntry{Kind: ModelKind, Namespace: "default", Name: genName().Draw(rt, "model"), UID: 9, Spec: mustSpec(t, ModelSpec{Origin: Declared})}
		want := Label{Position: Position{1, 5, 0, 2}, Model: def.Name, PredictionID: genText().Draw(rt, "pid"), EventTime: genMicros().Draw(rt, "t"), Created: 7, KnownAt: 8,
			ID: genText().Draw(rt, "id"), Weight: genFloat().Draw(rt, "w")}
		if want.PredictionID == "" {
			want.Key = `{"k":"v"}`
		}
		if rapid.Bool().Draw(rt, "class") {
			want.Class = opt(rt, genText().Filter(func(s string) bool { _, word := floatWord([]byte(s)); return !word }))
		} else {
			want.Number = opt(rt, genFloat())
		}
		got := slices.Collect(decodeOne(rt, Labels, def, AppendLabelJSON(nil, want)).Labels())
		if len(got) != 1 || !equal(got[0], want) {
			rt.Fatalf("\n got %s\nwant %s\nas %s", deref(got), deref(want), AppendLabelJSON(nil, want))
		}
	})
}
