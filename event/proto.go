package event

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Protobuf envelopes (proto/kedge/v1/events.proto) are rewritten as the JSON
// envelope with the same members, in one pass over the wire format, without
// reflection and into memory that is used again. What decodes and checks
// envelopes is then one piece of code, and both forms give the same rows.

// isProto tells a Protobuf envelope from JSON by its first byte: the tag of one
// of Event's fields, or the zero that begins a schema registry's frame.
func isProto(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] {
	case 0, tagFeatures, tagPrediction, tagLabel:
		return true
	}
	return false
}

const (
	tagFeatures   = 2<<3 | byte(protowire.BytesType)
	tagPrediction = 3<<3 | byte(protowire.BytesType)
	tagLabel      = 5<<3 | byte(protowire.BytesType)
)

// protoText is a writer of JSON envelopes.
type protoText struct {
	out   []byte
	fault string // why the message is none
	depth int
}

// protoKind is how a field is written.
type protoKind uint8

const (
	protoString   protoKind = iota + 1
	protoTime               // µs; 0 is not stated
	protoInt                // 0 is not stated
	protoFlag               // false is not stated
	protoDouble             // has presence
	protoRaw                // JSON text; empty is not stated
	protoOptional           // a string with presence
	protoValue              // a Value
	protoMessage            // of sub
	protoMap                // string → item
	protoDoubles            // a list of doubles, packed or not
)

// protoField says where a field goes.
type protoField struct {
	number protowire.Number
	name   string // of the JSON member
	kind   protoKind
	item   protoKind     // of a map's values
	sub    []*protoField // of a message
	always bool          // written where the message has none: an empty map
}

// protoSchema is what the .proto says, by Event's field.
type protoSchema struct{ features, prediction, label []*protoField }

func newProtoSchema() *protoSchema {
	f := func(n protowire.Number, name string, k protoKind) *protoField {
		return &protoField{number: n, name: name, kind: k}
	}
	m := func(n protowire.Number, name string, item protoKind, always bool) *protoField {
		return &protoField{number: n, name: name, kind: protoMap, item: item, always: always}
	}
	sub := func(n protowire.Number, name string, fields ...*protoField) *protoField {
		return &protoField{number: n, name: name, kind: protoMessage, sub: fields}
	}
	return &protoSchema{
		features: []*protoField{
			f(1, "view", protoString), m(2, "key", protoValue, false), f(3, "event_time", protoTime), m(4, "values", protoValue, true),
			f(5, "id", protoString), f(6, "created", protoTime), f(7, "known_at", protoTime), f(8, "delete", protoFlag),
			f(9, "trace", protoString), f(10, "version", protoInt), f(11, "namespace", protoString),
		},
		prediction: []*protoField{
			f(1, "model", protoString), f(2, "version", protoString), f(3, "id", protoString), f(4, "event_time", protoTime),
			m(5, "key", protoValue, false), m(6, "inputs", protoValue, true),
			sub(7, "output", f(1, "score", protoDouble), f(2, "class", protoOptional), f(3, "value", protoDouble), m(4, "scores", protoDouble, false),
				m(5, "quantiles", protoDouble, false), f(6, "vector", protoDoubles), f(7, "items", protoRaw)),
			m(8, "segments", protoOptional, false), f(9, "variant", protoString), m(10, "feature_times", protoTime, false),
			sub(11, "latency", f(1, "queue", protoDouble), f(2, "features", protoDouble), f(3, "compute", protoDouble)),
			f(12, "threshold", protoDouble), sub(13, "group", f(1, "id", protoString), f(2, "position", protoInt)),
			m(14, "attributions", protoDouble, false), f(15, "weight", protoDouble), f(16, "trace", protoString),
			f(17, "created", protoTime), f(18, "known_at", protoTime), f(19, "namespace", protoString),
		},
		label: []*protoField{
			f(1, "model", protoString), f(2, "prediction_id", protoString), m(3, "key", protoValue, false), f(4, "label", protoValue),
			f(5, "event_time", protoTime), f(6, "id", protoString), f(7, "weight", protoDouble), f(8, "trace", protoString),
			f(9, "created", protoTime), f(10, "known_at", protoTime), f(11, "namespace", protoString),
		},
	}
}

// protoReader rewrites one envelope after the other.
type protoReader struct {
	schema *protoSchema
	w      protoText
}

// read returns the JSON of an envelope, valid until the next call, or why there
// is none.
func (r *protoReader) read(b []byte) (text []byte, fault string) {
	if r.schema == nil {
		r.schema = newProtoSchema()
	}
	r.w = protoText{out: r.w.out[:0]}
	r.event(b)
	return r.w.out, r.w.fault
}

func (r *protoReader) event(b []byte) {
	w := &r.w
	b, ok := unframed(b)
	if !ok {
		w.bad("the schema registry's frame is cut off")
		return
	}
	if len(b) == 0 {
		w.bad("the message is empty")
		return
	}
	number, typ, n := protowire.ConsumeTag(b)
	if n < 0 || typ != protowire.BytesType {
		w.bad("it does not begin with a field of kedge.v1.Event")
		return
	}
	body, m := protowire.ConsumeBytes(b[n:])
	if m < 0 || n+m != len(b) {
		w.bad("the message is cut off, or something follows it: a record is one kedge.v1.Event with one event")
		return
	}
	switch number {
	case 2:
		w.message(r.schema.features, body)
	case 3:
		w.message(r.schema.prediction, body)
	case 5:
		w.message(r.schema.label, body)
	default:
		w.bad("it does not begin with a field of kedge.v1.Event")
	}
}

// unframed takes a schema registry's frame away: a zero, the schema's id in four
// bytes, and the list of indexes that names the message.
func unframed(b []byte) ([]byte, bool) {
	if len(b) == 0 || b[0] != 0 {
		return b, true
	}
	if len(b) < 6 {
		return nil, false
	}
	count, n := protowire.ConsumeVarint(b[5:])
	if n < 0 {
		return nil, false
	}
	b = b[5+n:]
	for i := int64(0); i < protowire.DecodeZigZag(count); i++ {
		_, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
	}
	return b, true
}

func (w *protoText) bad(format string, args ...any) bool {
	if w.fault == "" {
		w.fault = "Protobuf: " + fmt.Sprintf(format, args...)
	}
	return false
}

// begin starts a member of the object that is open.
func (w *protoText) begin(name string) {
	if c := w.out[len(w.out)-1]; c != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(append(append(w.out, '"'), name...), '"', ':')
}

// message writes a message as an object. A map's entries must stand together,
// as every encoder writes them.
func (w *protoText) message(fields []*protoField, b []byte) bool {
	w.out = append(w.out, '{')
	var seen uint64
	var open *protoField // the map under way
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return w.bad("a field's tag is cut off")
		}
		size := protowire.ConsumeFieldValue(number, typ, b[n:])
		if size < 0 {
			return w.bad("field %d is cut off", number)
		}
		value := b[n : n+size]
		b = b[n+size:]
		i, f := protoFieldOf(fields, number)
		if open != nil && open != f {
			w.out, open = append(w.out, closing(open)), nil
		}
		if f == nil {
			w.begin("field " + strconv.Itoa(int(number))) // counted as what nobody knows
			w.out = append(w.out, "null"...)
			continue
		}
		more := f.kind == protoMap || f.kind == protoDoubles
		if seen&(1<<i) != 0 && open != f {
			return w.bad("the field %s stands twice", f.name)
		}
		if more && open == nil {
			w.begin(f.name)
			w.out, open = append(w.out, opening(f)), f
		}
		seen |= 1 << i
		if !w.field(f, typ, value) {
			return false
		}
	}
	if open != nil {
		w.out = append(w.out, closing(open))
	}
	for i, f := range fields {
		if f.always && seen&(1<<i) == 0 {
			w.begin(f.name)
			w.out = append(w.out, '{', '}')
		}
	}
	w.out = append(w.out, '}')
	return true
}

func opening(f *protoField) byte {
	if f.kind == protoMap {
		return '{'
	}
	return '['
}

func closing(f *protoField) byte { return opening(f) + 2 } // as ASCII has them

func protoFieldOf(fields []*protoField, number protowire.Number) (int, *protoField) {
	for i, f := range fields {
		if f.number == number {
			return i, f
		}
	}
	return 0, nil
}

// wire is the wire type of a kind.
func (k protoKind) wire() protowire.Type {
	switch k {
	case protoTime, protoInt, protoFlag:
		return protowire.VarintType
	case protoDouble:
		return protowire.Fixed64Type
	}
	return protowire.BytesType
}

// field writes one field. value is what follows the tag.
func (w *protoText) field(f *protoField, typ protowire.Type, value []byte) bool {
	if f.kind == protoDoubles {
		return w.doubles(typ, value)
	}
	if typ != f.kind.wire() {
		return w.bad("the field %s has another type than the .proto says", f.name)
	}
	switch f.kind {
	case protoMap:
		return w.entry(f, body(value))
	case protoMessage:
		w.begin(f.name)
		return w.message(f.sub, body(value))
	case protoString, protoRaw:
		if len(body(value)) == 0 {
			return true
		}
	case protoTime, protoInt, protoFlag:
		if n, _ := protowire.ConsumeVarint(value); n == 0 {
			return true
		}
	}
	w.begin(f.name)
	return w.scalar(f.kind, f.name, value)
}

// body is what a length-delimited value holds; the length was checked.
func body(value []byte) []byte {
	b, _ := protowire.ConsumeBytes(value)
	return b
}

// entry writes one entry of a map.
func (w *protoText) entry(f *protoField, b []byte) bool {
	var name, item []byte
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return w.bad("an entry of %s is cut off", f.name)
		}
		size := protowire.ConsumeFieldValue(number, typ, b[n:])
		want := protowire.BytesType
		if number == 2 {
			want = f.item.wire()
		}
		if size < 0 || number <= 2 && typ != want {
			return w.bad("an entry of %s is cut off, or of another type than the .proto says", f.name)
		}
		switch number {
		case 1:
			name = body(b[n : n+size])
		case 2:
			item = b[n : n+size]
		}
		b = b[n+size:]
	}
	if !utf8.Valid(name) {
		return w.bad("a name in %s is not UTF-8", f.name)
	}
	if c := w.out[len(w.out)-1]; c != '{' {
		w.out = append(w.out, ',')
	}
	w.out = append(AppendString(w.out, string(name)), ':')
	if item == nil {
		item = zeroOf(f.item)
	}
	return w.scalar(f.item, f.name, item)
}

// zeroOf is the encoding of a default value, which encoders may leave out.
func zeroOf(k protoKind) []byte {
	if k == protoDouble {
		return make([]byte, 8)
	}
	return []byte{0}
}

func (w *protoText) scalar(k protoKind, name string, value []byte) bool {
	switch k {
	case protoString, protoOptional:
		return w.text(name, body(value))
	case protoRaw:
		return w.raw(name, body(value))
	case protoTime:
		n, _ := protowire.ConsumeVarint(value)
		return w.time(name, int64(n))
	case protoInt:
		n, _ := protowire.ConsumeVarint(value)
		w.out = strconv.AppendInt(w.out, int64(n), 10)
	case protoFlag:
		w.out = append(w.out, "true"...)
	case protoDouble:
		n, _ := protowire.ConsumeFixed64(value)
		w.out = AppendFloat(w.out, math.Float64frombits(n))
	case protoValue:
		return w.value(name, body(value))
	}
	return true
}

func (w *protoText) text(name string, b []byte) bool {
	if !utf8.Valid(b) {
		return w.bad("%s is not UTF-8", name)
	}
	w.out = AppendString(w.out, string(b))
	return true
}

func (w *protoText) raw(name string, b []byte) bool {
	if !json.Valid(b) || !utf8.Valid(b) {
		return w.bad("%s is not JSON", name)
	}
	w.out = append(w.out, b...)
	return true
}

func (w *protoText) time(name string, micros int64) bool {
	if micros < MinTime || micros > MaxTime {
		return w.bad("%s: %d µs is out of range", name, micros)
	}
	w.out = appendQuotedTime(w.out, micros)
	return true
}

// doubles writes elements of a list; encoders pack them or not.
func (w *protoText) doubles(typ protowire.Type, value []byte) bool {
	if typ == protowire.BytesType {
		value = body(value)
	} else if typ != protowire.Fixed64Type {
		return w.bad("a vector has another type than the .proto says")
	}
	if len(value)%8 != 0 {
		return w.bad("a vector is cut off")
	}
	for len(value) > 0 {
		n, size := protowire.ConsumeFixed64(value)
		value = value[size:]
		if c := w.out[len(w.out)-1]; c != '[' {
			w.out = append(w.out, ',')
		}
		w.out = AppendFloat(w.out, math.Float64frombits(n))
	}
	return true
}
