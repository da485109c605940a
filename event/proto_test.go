package event

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"
)

// published compiles the .proto that is served and returns its message Event.
func published(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{"../proto"}}}
	files, err := c.Compile(context.Background(), "kedge/v1/events.proto")
	if err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv("KEDGE_WRITE_DESCRIPTORS"); path != "" { // for testdata/events.py
		b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(files[0])}})
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return files[0].Messages().ByName("Event")
}

// build fills messages by field names, as Go's protobuf library sees them.
type build struct{ m protoreflect.Message }

func (b build) field(name string) protoreflect.FieldDescriptor {
	return b.m.Descriptor().Fields().ByName(protoreflect.Name(name))
}

func (b build) set(name string, v any) { b.m.Set(b.field(name), protoreflect.ValueOf(v)) }

func (b build) sub(name string) build { return build{b.m.Mutable(b.field(name)).Message()} }

func (b build) float(name string, v *float64) {
	if v != nil {
		b.set(name, *v)
	}
}

func (b build) text(name, v string) {
	if v != "" {
		b.set(name, v)
	}
}

func (b build) entry(name, key string, v protoreflect.Value) {
	b.m.Mutable(b.field(name)).Map().Set(protoreflect.ValueOfString(key).MapKey(), v)
}

func (b build) named(name string, list []NamedValue) {
	for _, v := range list {
		m := b.m.Mutable(b.field(name)).Map()
		item := m.NewValue()
		build{item.Message()}.value(v.Value)
		m.Set(protoreflect.ValueOfString(v.Name).MapKey(), item)
	}
}

func (b build) floats(name string, list []NamedFloat) {
	for _, v := range list {
		b.entry(name, v.Name, protoreflect.ValueOfFloat64(v.Value))
	}
}

func (b build) value(v Value) {
	if v.Type.List {
		list := b.sub("list")
		items := list.m.Mutable(list.field("items")).List()
		for _, e := range v.List {
			build{items.AppendMutable().Message()}.value(e)
		}
		return
	}
	switch v.Type.Elem {
	case Bool:
		b.set("bool", v.Int != 0)
	case Int32, Int64:
		b.set("int", v.Int)
	case Float32, Float64:
		b.set("float", v.Float)
	case String:
		b.set("string", v.Text)
	case Bytes:
		b.set("bytes", []byte(v.Text))
	case Timestamp:
		b.set("timestamp_us", v.Int)
	case JSON:
		b.set("json", v.Text)
	}
}

func marshal(t *rapid.T, m protoreflect.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: rapid.Bool().Draw(t, "sorted")}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "framed") { // as Confluent's serializer writes the first message of a file
		b = append([]byte{0, 0, 0, 0, 42, 0}, b...)
	}
	return b
}

// TestProtobufFeaturesAreTheirJSON holds rows of events written by Go's protobuf
// library against those of the JSON envelope.
func TestProtobufFeaturesAreTheirJSON(t *testing.T) {
	md := published(t)
	rapid.Check(t, func(rt *rapid.T) {
		keys := genFields(rt, "keys", 1, []Type{Bool, Int64, Int32, String, Timestamp, Bytes}, false)
		columns := genFields(rt, "columns", 0, allTypes, true)
		def := CatalogEntry{Kind: FeatureViewKind, Namespace: "default", Name: genName().Draw(rt, "view"), UID: 9,
			Spec: mustSpec(t, ViewSpec{Origin: Declared, Keys: keys, Columns: columns})}
		row := FeatureRow{View: def.Name, Key: genNamed(rt, keys, false), Values: genNamed(rt, columns, true), EventTime: genMicros().Draw(rt, "t"),
			Created: genMicros().Draw(rt, "c"), KnownAt: genMicros().Draw(rt, "k"), ID: genText().Draw(rt, "id"),
			Trace: rapid.StringMatching(`[0-9a-f]{0,32}`).Draw(rt, "trace"), Delete: rapid.Bool().Draw(rt, "del")}
		if row.EventTime == 0 || row.Created == 0 || row.KnownAt == 0 {
			rt.Skip("zero means unstated")
		}
		m := dynamicpb.NewMessage(md)
		f := build{m}.sub("features")
		f.text("view", row.View)
		f.named("key", row.Key)
		f.set("event_time_us", row.EventTime)
		f.set("created_us", row.Created)
		f.set("known_at_us", row.KnownAt)
		f.named("values", row.Values)
		f.text("id", row.ID)
		f.text("trace", row.Trace)
		f.set("delete", row.Delete)
		got := slices.Collect(decodeOne(rt, Features, def, marshal(rt, m)).FeatureRows())
		want := slices.Collect(decodeOne(rt, Features, def, AppendFeatureJSON(nil, row)).FeatureRows())
		if !equal(got, want) {
			rt.Fatalf("\n got %+v\nwant %+v", got, want)
		}
		a, err := AddressOf(marshal(rt, m))
		b, err2 := AddressOf(AppendFeatureJSON(nil, row))
		if err != nil || err2 != nil || a.Kind != b.Kind || string(a.Key) != string(b.Key) {
			rt.Fatalf("address: %+v %v, want %+v %v", a, err, b, err2)
		}
	})
}

// TestProtobufPredictionsAreTheirJSON is the same for predictions, and for a
// label of each.
func TestProtobufPredictionsAreTheirJSON(t *testing.T) {
	md := published(t)
	rapid.Check(t, func(rt *rapid.T) {
		columns := genFields(rt, "columns", 0, allTypes, true)
		p := Prediction{Model: genName().Draw(rt, "model"), Version: genName().Draw(rt, "version"), ID: genName().Draw(rt, "id"),
			EventTime: testClock - 5, Inputs: genNamed(rt, columns, true), Variant: genText().Draw(rt, "variant"), QueueMS: opt(rt, genFloat()),
			Threshold: opt(rt, genFloat()), GroupID: rapid.StringMatching(`[a-z]{1,3}`).Draw(rt, "group"), GroupPos: rapid.Int32().Draw(rt, "pos"),
			Attributions: genFloats(rt), Weight: genFloat().Draw(rt, "weight"), Key: `{"a":1,"b":"x\"y"}`}
		p.Output = Output{Score: opt(rt, genFloat()), Class: opt(rt, genText()), Value: opt(rt, genFloat()), Scores: genFloats(rt), Quantiles: genFloats(rt), Items: `[{"id":"a"}]`}
		for range rapid.IntRange(0, 3).Draw(rt, "n") {
			p.Output.Vector = append(p.Output.Vector, Float(genFloat().Draw(rt, "element")))
		}
		for _, n := range rapid.SliceOfNDistinct(genText(), 0, 3, rapid.ID).Draw(rt, "segments") {
			p.Segments = append(p.Segments, NamedText{n, genText().Draw(rt, "segment")})
			p.FeatureTimes = append(p.FeatureTimes, NamedTime{n, genMicros().Draw(rt, "ft")})
		}
		m := dynamicpb.NewMessage(md)
		fillPrediction(build{m}.sub("prediction"), p)
		def := CatalogEntry{Kind: ModelKind, Namespace: "default", Name: p.Model, UID: 9,
			Spec: mustSpec(t, ModelSpec{Origin: Declared, Signatures: []SignatureSpec{{ID: 1, Columns: columns, Versions: []string{p.Version}}}})}
		got := slices.Collect(decodeOne(rt, Predictions, def, marshal(rt, m)).Predictions())
		want := slices.Collect(decodeOne(rt, Predictions, def, AppendPredictionJSON(nil, p)).Predictions())
		if !equal(sorted(got), sorted(want)) {
			rt.Fatalf("\n got %s\nwant %s", deref(got), deref(want))
		}
		l := Label{Model: p.Model, PredictionID: p.ID, EventTime: testClock - 4, ID: genText().Draw(rt, "label id"), Weight: 1, Number: opt(rt, genFloat())}
		m = dynamicpb.NewMessage(md)
		b := build{m}.sub("label")
		b.text("model", l.Model)
		b.text("prediction_id", l.PredictionID)
		b.set("event_time_us", l.EventTime)
		b.text("id", l.ID)
		b.sub("label").float("float", l.Number)
		gotLabel := slices.Collect(decodeOne(rt, Labels, def, marshal(rt, m)).Labels())
		wantLabel := slices.Collect(decodeOne(rt, Labels, def, AppendLabelJSON(nil, l)).Labels())
		if !equal(gotLabel, wantLabel) {
			rt.Fatalf("\n got %s\nwant %s", deref(gotLabel), deref(wantLabel))
		}
	})
}

func fillPrediction(b build, p Prediction) {
	b.text("model", p.Model)
	b.text("version", p.Version)
	b.text("id", p.ID)
	b.set("event_time_us", p.EventTime)
	b.named("key", []NamedValue{{"a", Int(1)}, {"b", Text(`x"y`)}})
	b.named("inputs", p.Inputs)
	out := b.sub("output")
	out.float("score", p.Output.Score)
	if p.Output.Class != nil {
		out.set("class", *p.Output.Class)
	}
	out.float("value", p.Output.Value)
	out.floats("scores", p.Output.Scores)
	out.floats("quantiles", p.Output.Quantiles)
	for _, v := range p.Output.Vector {
		out.m.Mutable(out.field("vector")).List().Append(protoreflect.ValueOfFloat64(v.Float))
	}
	out.text("items_json", p.Output.Items)
	for i, s := range p.Segments {
		b.entry("segments", s.Name, protoreflect.ValueOfString(s.Value))
		b.entry("feature_times_us", s.Name, protoreflect.ValueOfInt64(p.FeatureTimes[i].Time))
	}
	b.text("variant", p.Variant)
	b.sub("latency").float("queue", p.QueueMS)
	b.float("threshold", p.Threshold)
	group := b.sub("group")
	group.text("id", p.GroupID)
	group.set("position", p.GroupPos)
	b.floats("attributions", p.Attributions)
	b.set("weight", p.Weight)
}

// sorted orders what maps of Protobuf leave open, and takes a key's text apart
// from its order.
func sorted(rows []Prediction) []Prediction {
	for i := range rows {
		p := &rows[i]
		for _, list := range [][]NamedFloat{p.Output.Scores, p.Output.Quantiles, p.Attributions} {
			slices.SortFunc(list, func(a, b NamedFloat) int { return strings.Compare(a.Name, b.Name) })
		}
		slices.SortFunc(p.Segments, func(a, b NamedText) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(p.FeatureTimes, func(a, b NamedTime) int { return strings.Compare(a.Name, b.Name) })
		var key map[string]any
		if json.Unmarshal([]byte(p.Key), &key) == nil {
			b, _ := json.Marshal(key)
			p.Key = string(b)
		}
	}
	return rows
}

// TestProtobufGolden reads records that Python's protobuf library wrote
// (testdata/events.py) and wants the rows of the JSON envelopes beside them.
func TestProtobufGolden(t *testing.T) {
	published(t)
	b, err := os.ReadFile("testdata/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Kind, Hex string
			JSON      json.RawMessage
		}
	}
	if err := json.Unmarshal(b, &golden); err != nil || len(golden.Cases) < 6 {
		t.Fatalf("%d cases: %v", len(golden.Cases), err)
	}
	for _, c := range golden.Cases {
		kind, err := ParseKind(c.Kind)
		if err != nil {
			t.Fatal(err)
		}
		record, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		got, want := learnt(t, kind, record), learnt(t, kind, c.JSON)
		if !equal(got, want) {
			t.Errorf("%s\n got %s\nwant %s", c.JSON, deref(got), deref(want))
		}
	}
}

// learnt decodes a record of a subject that defines itself, and shows its row.
func learnt(t *testing.T, kind Kind, record []byte) map[string]string {
	t.Helper()
	w := newWorld(t, kind)
	u := w.decode(string(record))
	if len(u.Dead) > 0 || u.Counts.Rows != 1 || u.Counts.Unknown > 0 {
		t.Fatalf("%x: %+v %+v", record, u.Dead, u.Counts)
	}
	return rowOf(u.Batches[0], 0)
}

// badProtobuf are records that are no Event, or one that cannot be taken.
func badProtobuf() []string {
	return []string{
		"\x12", "\x12\x05\x0a", "\x12\x00\x12\x00", "\x00", "\x00\x00\x00\x00\x2a", "\x00\x00\x00\x00\x2a\x02", "\x00\x00\x00\x00\x2a\x00", "\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
		"\x12\x03\x0a\x01\xff", "\x12\x04\x08\x01\x08\x01", "\x12\x06\x0a\x01a\x0a\x01b", "\x1a\x02\x0a\xff", "\x2a\x04\x22\x02\x3a\x00",
		"\x12\x06\x22\x04\x0a\x00\x12\x7f", "\x12\x0a\x22\x08\x0a\x01a\x12\x03\x3a\x01{",
	}
}

// FuzzProtobuf wants of every record a row or a dead letter with the record as
// it was, columns of one length, and JSON that is JSON.
func FuzzProtobuf(f *testing.F) {
	md := published(f)
	for _, s := range badProtobuf() {
		f.Add([]byte(s))
	}
	m := dynamicpb.NewMessage(md)
	b := build{m}.sub("features")
	b.text("view", "all")
	b.named("key", []NamedValue{{"a", Int(1)}, {"b", Text("x")}})
	b.set("event_time_us", int64(testClock))
	b.named("values", []NamedValue{{"float64", Float(math.NaN())}, {"json", Value{Type: ColumnType{Elem: JSON}, Text: "[1]"}}})
	good, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, record []byte) {
		if !isProto(record) {
			return
		}
		var r protoReader
		if text, fault := r.read(record); fault == "" && !json.Valid(text) {
			t.Fatalf("%x gave %q", record, text)
		}
		for _, kind := range []Kind{Features, Predictions, Labels} {
			u := &Unit{Namespace: "default", Kind: kind, Catalog: fuzzBase()}
			NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Time: testClock, Value: record})
			if len(u.Dead)+int(u.Counts.Rows)+len(u.Proposals) != 1 || len(u.Dead) == 1 && string(u.Dead[0].Value) != string(record) {
				t.Fatalf("%x: %+v %+v", record, u.Counts, u.Dead)
			}
			for _, b := range u.Batches {
				for i := range b.Columns {
					if b.Columns[i].Len() != b.Rows {
						t.Fatalf("%x: column %d has %d rows of %d", record, i, b.Columns[i].Len(), b.Rows)
					}
				}
			}
		}
		_, _ = AddressOf(record)
	})
}

// TestBadProtobuf: each is a dead letter that says so.
func TestBadProtobuf(t *testing.T) {
	for _, s := range badProtobuf() {
		u := &Unit{Namespace: "default", Kind: Features, Catalog: fuzzBase()}
		NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Time: testClock, Value: []byte(s)})
		if len(u.Dead) != 1 || u.Dead[0].Reason != ReasonMalformed && u.Dead[0].Reason != ReasonMissing {
			t.Errorf("%x: %+v", s, u.Dead)
		}
	}
}

// BenchmarkProtobuf decodes predictions of 20 floats in both forms.
func BenchmarkProtobuf(b *testing.B) {
	md := published(b)
	var inputs []NamedValue
	var columns []FieldSpec
	for _, c := range "abcdefghijklmnopqrst" {
		inputs = append(inputs, NamedValue{"input_" + string(c), Float(1234.5678 + float64(c))})
		columns = append(columns, FieldSpec{Name: "input_" + string(c), Type: ColumnType{Elem: Float64}})
	}
	score := 0.25
	p := Prediction{Model: "m", Version: "1", ID: "request-000001", EventTime: testClock, Inputs: inputs, Output: Output{Score: &score}, Weight: 1, Key: `{"a":1,"b":"x\"y"}`}
	m := dynamicpb.NewMessage(md)
	fillPrediction(build{m}.sub("prediction"), p)
	binary, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	spec, err := json.Marshal(ModelSpec{Origin: Declared, Signatures: []SignatureSpec{{ID: 1, Columns: columns, Versions: []string{"1"}}}})
	if err != nil {
		b.Fatal(err)
	}
	cat, err := NewCatalog([]CatalogEntry{{Kind: ModelKind, Namespace: "default", Name: "m", UID: 9, Spec: spec}})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		record []byte
	}{{"json", AppendPredictionJSON(nil, p)}, {"protobuf", binary}} {
		b.Run(c.name, func(b *testing.B) {
			u, d := &Unit{Namespace: "default", Kind: Predictions, Catalog: cat}, NewDecoder(DefaultDecoderConfig())
			b.ReportAllocs()
			b.ReportMetric(float64(len(c.record)), "bytes/event")
			for i := range b.N {
				if i%1000 == 0 {
					u.Reset(cat)
				}
				d.Decode(u, Record{Offset: int64(i), Time: testClock, Value: c.record})
			}
			if len(u.Dead) > 0 {
				b.Fatal(u.Dead[0].Detail)
			}
		})
	}
}
