package event

import (
	"encoding/base64"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Values of Protobuf envelopes, which have any type.

// maxProtoDepth bounds lists in lists; columns have none, JSON may.
const maxProtoDepth = 32

// value writes a Value: what its last kind says, as oneofs are read; null
// without one.
func (w *protoText) value(name string, b []byte) bool {
	if w.depth++; w.depth > maxProtoDepth {
		return w.bad("%s: lists in lists are too deep", name)
	}
	defer func() { w.depth-- }()
	start, wrote := len(w.out), false
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		size := -1
		if n >= 0 {
			size = protowire.ConsumeFieldValue(number, typ, b[n:])
		}
		if size < 0 {
			return w.bad("a value of %s is cut off", name)
		}
		item := b[n : n+size]
		b = b[n+size:]
		if number < 1 || number > 8 {
			continue
		}
		w.out, wrote = w.out[:start], true
		if !w.kind(name, number, typ, item) {
			return false
		}
	}
	if !wrote {
		w.out = append(w.out, "null"...)
	}
	return true
}

func (w *protoText) kind(name string, number protowire.Number, typ protowire.Type, item []byte) bool {
	want := protowire.BytesType
	switch number {
	case 1, 2, 6:
		want = protowire.VarintType
	case 3:
		want = protowire.Fixed64Type
	}
	if typ != want {
		return w.bad("a value of %s has another type than the .proto says", name)
	}
	switch number {
	case 1:
		n, _ := protowire.ConsumeVarint(item)
		w.out = strconv.AppendBool(w.out, n != 0)
	case 2:
		n, _ := protowire.ConsumeVarint(item)
		w.out = strconv.AppendInt(w.out, int64(n), 10)
	case 3:
		return w.scalar(protoDouble, name, item)
	case 4:
		return w.text(name, body(item))
	case 5:
		w.out = append(base64.StdEncoding.AppendEncode(append(w.out, '"'), body(item)), '"')
	case 6:
		n, _ := protowire.ConsumeVarint(item)
		return w.time(name, int64(n))
	case 7:
		return w.raw(name, body(item))
	case 8:
		return w.list(name, body(item))
	}
	return true
}

func (w *protoText) list(name string, b []byte) bool {
	w.out = append(w.out, '[')
	for first := true; len(b) > 0; first = false {
		number, typ, n := protowire.ConsumeTag(b)
		size := -1
		if n >= 0 {
			size = protowire.ConsumeFieldValue(number, typ, b[n:])
		}
		if size < 0 || number == 1 && typ != protowire.BytesType {
			return w.bad("a list of %s is cut off", name)
		}
		item := b[n : n+size]
		b = b[n+size:]
		if number != 1 {
			continue
		}
		if !first {
			w.out = append(w.out, ',')
		}
		if !w.value(name, body(item)) {
			return false
		}
	}
	w.out = append(w.out, ']')
	return true
}
