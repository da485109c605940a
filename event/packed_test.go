package event

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// packedCase is a packed record and the definition that it meets.
type packedCase struct {
	value   []byte
	catalog []CatalogEntry
}

// genPacked draws a record of all types, with texts that JSON escapes and rows
// without values, and a definition that has its inputs, lacks some or has others
// in their place; or none.
func genPacked(t *rapid.T) packedCase {
	names := rapid.SliceOfNDistinct(genName(), 0, 5, rapid.ID).Draw(t, "names")
	rows := rapid.IntRange(0, 4).Draw(t, "rows")
	kind := OutputKind(rapid.IntRange(0, 3).Draw(t, "output"))
	var outputs []string
	width := 1
	if kind >= OutputScores {
		outputs = rapid.SliceOfN(genText(), 1, 3).Draw(t, "outputs")
		width = len(outputs)
	}
	model, version := mostly(t, "m", "", "x\x80"), mostly(t, "1", "2")
	shared := Prediction{
		EventTime: mostly(t, genMicros().Draw(t, "event_time"), testClock+3600_000000, MaxTime+1),
		Variant:   genText().Draw(t, "variant"), QueueMS: opt(t, genFloat()), FeaturesMS: opt(t, genFloat()), ComputeMS: opt(t, genFloat()),
		Threshold: opt(t, genFloat()), Key: mostly(t, `{"b":1,"a":"x"}`, "", `{"a":null}`, `{"a":1},"id":2`, "7"),
		Trace: rapid.SampledFrom([]string{"", "abc", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}).Draw(t, "trace"),
	}
	p := NewPacker(model, version, names, kind, width, outputs)
	b := p.Begin(nil, PackedRows{First: rapid.IntRange(0, 3).Draw(t, "first"), Count: rows, Numbered: rapid.Bool().Draw(t, "numbered"),
		ID: genText().Draw(t, "id"), Suffix: rapid.SampledFrom([]string{"", "/2"}).Draw(t, "suffix")}, &shared)
	var fields []FieldSpec
	for _, name := range names {
		typ := rapid.SampledFrom([]Type{Float32, Float64, Int64, Bool, String}).Draw(t, "type")
		b = genPackedColumn(t, &p, b, typ, rows)
		f := FieldSpec{Name: name, Type: ColumnType{Elem: typ}}
		switch rapid.IntRange(0, 29).Draw(t, "field") {
		case 0:
			continue
		case 1:
			f.Type.Elem = rapid.SampledFrom([]Type{Float64, Int64, String, Unknown, JSON, Timestamp}).Draw(t, "other")
		case 2:
			f.Retired = true
		case 3, 4, 5:
		default:
			if typ == Float32 {
				f.Type.Elem = Float64
			}
		}
		fields = append(fields, f)
	}
	values := rapid.SliceOfN(rapid.Float32(), rows*width, rows*width).Draw(t, "values")
	c := packedCase{value: p.Output(b, values)}
	if rapid.IntRange(0, 9).Draw(t, "known") > 0 {
		spec := &ModelSpec{Origin: rapid.SampledFrom([]Origin{Inferred, Declared}).Draw(t, "origin"),
			Signatures: []SignatureSpec{{ID: 1, Columns: fields, Versions: []string{"1"}}}}
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		c.catalog = []CatalogEntry{{Kind: ModelKind, Namespace: "default", Name: "m", UID: 7, Spec: text}}
	}
	return c
}

// mostly draws the first of some values nine times in ten.
func mostly[T any](t *rapid.T, usual T, others ...T) T {
	if rapid.IntRange(0, 9).Draw(t, "usual") > 0 {
		return usual
	}
	return rapid.SampledFrom(others).Draw(t, "other")
}

func genPackedColumn(t *rapid.T, p *Packer, b []byte, typ Type, rows int) []byte {
	var nulls []bool
	if rapid.Bool().Draw(t, "null") {
		nulls = rapid.SliceOfN(rapid.Bool(), rows, rows).Draw(t, "nulls")
	}
	b = p.Column(b, typ, nulls)
	for range rows {
		switch typ {
		case Float32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(genFloat32(t)))
		case Float64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(genFloat().Draw(t, "v")))
		case Int64:
			b = binary.LittleEndian.AppendUint64(b, rapid.Uint64().Draw(t, "v"))
		case Bool:
			b = append(b, byte(rapid.IntRange(0, 1).Draw(t, "v")))
		case String:
			b = AppendPackedText(b, []byte(rapid.SampledFrom([]string{"", "a", `q"\`, "\u00e9", "\x80"}).Draw(t, "v")))
		}
	}
	return b
}

func genFloat32(t *rapid.T) float32 {
	return rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{0, 0.1, -7, 1048576.25, float32(math.NaN()), float32(math.Inf(-1)), float32(math.Copysign(0, -1))})).Draw(t, "v")
}

// TestPackedIsItsTexts holds a packed record against the envelopes that it stands
// for, decoded one by one: the same rows under the same places, the same dead
// letters, counts and proposals.
func TestPackedIsItsTexts(t *testing.T) {
	straight := 0
	check := func(t *rapid.T) {
		c := genPacked(t)
		catalog, err := NewCatalog(c.catalog)
		if err != nil {
			t.Skip(err)
		}
		units := [2]*Unit{}
		ids := [2]map[string]bool{{}, {}}
		for i := range units {
			units[i] = &Unit{Topic: "kedge.default.predictions", Namespace: "default", Kind: Predictions, Epoch: 1, Catalog: catalog}
			units[i].Seen = func(_ *Schema, id []byte, _ int64, _ int32) bool {
				seen := ids[i][string(id)]
				ids[i][string(id)] = true
				return seen
			}
		}
		texts, err := UnpackPredictions(c.value)
		if err != nil {
			t.Fatal(err)
		}
		d, one := NewDecoder(DefaultDecoderConfig()), NewDecoder(DefaultDecoderConfig())
		for offset := range int64(2) { // the second are duplicates
			r := Record{Partition: 3, Offset: offset, Time: testClock, Key: []byte("k"), Value: c.value, Trace: "t"}
			d.Decode(units[0], r)
			units[1].Begin(r, 0)
			for row, text := range texts {
				one.DecodePart(units[1], r, int32(row), text)
			}
		}
		if d.packedPlan(units[0], Record{Time: testClock}) && units[0].Counts.Rows > 0 {
			straight++
		}
		if got, want := brought(units[0]), brought(units[1]); got != want {
			t.Fatalf("packed:\n%s\none by one:\n%s\ntexts: %s", got, want, texts)
		}
	}
	const enough = 50
	for range 20 { // a hundred draws have some seventeen of them, and seldom less than ten
		if rapid.Check(t, check); straight >= enough {
			return
		}
	}
	t.Errorf("%d records went straight into columns: too few to say anything", straight)
}

// brought prints all that a unit collected; NaN is equal to NaN there.
func brought(u *Unit) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%+v\n%+v\n%+v\n%v %v %v %v %v\n%+v\n", u.Counts, u.Dead, u.Proposals, u.MaxEventTime, u.MinKnownAt, u.MaxKnownAt, u.MinAppended, u.MaxAppended, u.Windows())
	for _, b := range u.Batches {
		fmt.Fprintln(&s, b.Schema.Table(), b.Rows)
		for i := range b.Columns {
			c := &b.Columns[i]
			fmt.Fprintf(&s, "%s %v %v %v %v %v %v %q %v %v", b.Schema.Fields[i].Name, c.Nulls, c.Bools, c.Int32s, c.Int64s, c.Float32s, c.Float64s, c.Data, c.StrEnds, c.Ends)
			if c.Items != nil {
				fmt.Fprintf(&s, " %v %q", c.Items.Float64s, c.Items.Data)
			}
			if c.Names != nil {
				fmt.Fprintf(&s, " %q", c.Names.Data)
			}
			s.WriteByte('\n')
		}
	}
	return s.String()
}

// TestPackedDefinesItself lets a packed record meet no definition, as the first of a
// model does, and go straight into columns once there is one.
func TestPackedDefinesItself(t *testing.T) {
	w := newWorld(t, Predictions)
	p := NewPacker("m", "1", []string{"a", "b"}, OutputScore, 1, nil)
	b := p.Begin(nil, PackedRows{First: 64, Count: 2, Numbered: true, ID: "p"}, &Prediction{EventTime: testClock})
	for _, column := range [][2]float32{{0.1, 2}, {3, 4}} {
		b = p.Column(b, Float32, nil)
		for _, v := range column {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	b = p.Output(b, []float32{0.5, 0.25})
	u := w.decode(string(b))
	if u.Counts != (Counts{Records: 1, Rows: 2}) || !w.d.packedPlan(u, Record{Time: testClock}) {
		t.Fatalf("%+v, dead %+v", u.Counts, u.Dead)
	}
	i := 0
	for r := range u.Batches[0].Predictions() {
		want := []string{"p/64 0 0.1 3 0.5", "p/65 1 2 4 0.25"}[i]
		if got := fmt.Sprint(r.ID, " ", r.Index, " ", r.Inputs[0].Value.Float, " ", r.Inputs[1].Value.Float, " ", *r.Output.Score); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
		i++
	}
}

// TestPackedFaults cuts and changes a record at every byte: what cannot be read is
// one dead letter, whole.
func TestPackedFaults(t *testing.T) {
	value := somePacked(3, 2)
	d := NewDecoder(DefaultDecoderConfig())
	for n := len(packedMagic); n < len(value); n++ {
		u := &Unit{Namespace: "default", Kind: Predictions, Catalog: &Catalog{}}
		d.Decode(u, Record{Time: testClock, Value: value[:n]})
		if len(u.Dead) != 1 || u.Dead[0].Reason != ReasonMalformed || u.Dead[0].Size != int64(n) || u.Counts.Records != 1 {
			t.Fatalf("cut to %d bytes: %+v", n, u.Dead)
		}
		for _, x := range []byte{1, 0x80, 0xff} {
			bad := append([]byte(nil), value...)
			bad[n] ^= x
			u := &Unit{Namespace: "default", Kind: Predictions, Catalog: &Catalog{}}
			d.Decode(u, Record{Time: testClock, Value: bad})
			if u.Counts.Records != 1 {
				t.Fatalf("byte %d changed: %+v", n, u.Counts)
			}
		}
	}
	shared := NewPacker("m", "1", nil, OutputScore, 1, nil)
	b := shared.Begin(nil, PackedRows{Count: MaxPackedRows, ID: strings.Repeat("x", 8<<10)}, &Prediction{EventTime: testClock})
	if _, err := UnpackPredictions(shared.Output(b, make([]float32, MaxPackedRows))); err == nil {
		t.Error("rows that share 32 MB were taken")
	}
}

func somePacked(rows, inputs int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var names []string
	for i := range inputs {
		names = append(names, fmt.Sprintf("feature_%d", i))
	}
	p := NewPacker("fraud", "1", names, OutputScore, 1, nil)
	ms := 0.25
	b := p.Begin(nil, PackedRows{Count: rows, Numbered: rows > 1, ID: "0b8a3c7e-8f6d-4f0e-9a51-6a1b7b2f1c11"},
		&Prediction{EventTime: testClock, Variant: "champion", QueueMS: &ms, ComputeMS: &ms})
	for range inputs {
		b = p.Column(b, Float32, nil)
		for range rows {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(rng.NormFloat64())))
		}
	}
	return p.Output(b, make([]float32, rows))
}

// TestShortest holds it against the texts, over all magnitudes and what people
// write.
func TestShortest(t *testing.T) {
	check := func(v float32) {
		want, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		if got := shortest(v); err == nil && got != want && !(got != got && want != want) {
			t.Fatalf("%v (%08x): %v, want %v", v, math.Float32bits(v), got, want)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2_000_000 {
		check(math.Float32frombits(rng.Uint32()))
		check(float32(rng.IntN(1<<24)) / float32(math.Pow10(rng.IntN(9))))
		check(float32(rng.NormFloat64()))
		check(float32(rng.IntN(1<<23)) + float32(rng.IntN(8))/8)
	}
	for _, v := range []float32{0, 0.1, 1, 1048576.25, 8388607.5, 1e-3, float32(math.Inf(1)), float32(math.NaN()), math.MaxFloat32} {
		check(v)
	}
}

func FuzzPacked(f *testing.F) {
	f.Add(somePacked(2, 2))
	f.Add([]byte(packedMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		value := append([]byte(packedMagic), b...)
		texts, err := UnpackPredictions(value)
		u := &Unit{Namespace: "default", Kind: Predictions, Catalog: &Catalog{}}
		NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Time: testClock, Value: value})
		if c := u.Counts; err == nil && len(u.Dead) == 0 && len(texts) > 0 && reflect.DeepEqual(c, Counts{Records: 1}) && len(u.Proposals) == 0 {
			t.Fatalf("%d rows vanished", len(texts))
		}
	})
}

// BenchmarkUnpack is the decoder's time for a prediction of 30 inputs, packed with
// others and alone, and as JSON.
func BenchmarkUnpack(b *testing.B) {
	for _, rows := range []int{1, 64} {
		packed := somePacked(rows, 30)
		texts, err := UnpackPredictions(packed)
		if err != nil {
			b.Fatal(err)
		}
		for name, values := range map[string][][]byte{"packed": {packed}, "json": texts} {
			b.Run(fmt.Sprint(name, "/", rows), func(b *testing.B) {
				w := newWorld(b, Predictions)
				w.decode(string(packed))
				size := 0
				for _, v := range values {
					size += len(v)
				}
				began := cpuTime()
				for b.Loop() {
					w.unit.Reset(w.cat)
					for i, v := range values {
						w.d.Decode(w.unit, Record{Offset: int64(i), Time: testClock, Value: v})
					}
				}
				b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N*rows), "cpu-ns/row")
				b.ReportMetric(float64(size)/float64(rows), "B/row")
			})
		}
	}
}
