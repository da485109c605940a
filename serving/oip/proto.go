package oip

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the protocol's messages (open_inference_grpc.proto).
const (
	inferModel, inferVersion, inferID, inferParams, inferTensors, inferOutputs, inferRaw = 1, 2, 3, 4, 5, 6, 7
	tensorName, tensorDatatype, tensorShape, tensorParams, tensorContents                = 1, 2, 3, 4, 5
	answerTensors, answerRaw                                                             = 5, 6
	paramBool, paramInt, paramString                                                     = 1, 2, 3
)

// Contents fields, by value family and width.
const (
	contentsBool = iota + 1
	contentsInt32
	contentsInt64
	contentsUint32
	contentsUint64
	contentsFP32
	contentsFP64
	contentsBytes
)

// fields calls each for every field of a message; v is the value without its
// tag: a varint or fixed number in n, or bytes.
func fields(b []byte, each func(num protowire.Number, typ protowire.Type, n uint64, v []byte) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return invalid("malformed message: %v", protowire.ParseError(size))
		}
		b = b[size:]
		var n uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var f uint32
			f, size = protowire.ConsumeFixed32(b)
			n = uint64(f)
		case protowire.Fixed64Type:
			n, size = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return invalid("malformed message: %v", protowire.ParseError(size))
		}
		b = b[size:]
		if err := each(num, typ, n, v); err != nil {
			return err
		}
	}
	return nil
}

// ParseProto reads a ModelInferRequest into r, which it resets first, and
// returns the model and version that it names.
func (r *Request) ParseProto(b []byte, lim Limits) (model, version string, err error) {
	r.Reset()
	var raw [][]byte
	err = fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) error {
		switch num {
		case inferModel:
			model = string(v)
		case inferVersion:
			version = string(v)
		case inferID:
			r.ID = string(v)
		case inferParams:
			return r.protoParam(v)
		case inferTensors:
			return r.protoInput(v, lim)
		case inferOutputs:
			return r.protoOutput(v)
		case inferRaw:
			raw = append(raw, v)
		}
		return nil
	})
	if err == nil {
		err = r.protoContents(raw, lim)
	}
	return model, version, err
}

// protoContents checks that each tensor has its values, from its own contents
// or from the raw ones: a request uses one form throughout.
func (r *Request) protoContents(raw [][]byte, lim Limits) error {
	if len(r.Inputs) == 0 {
		return invalid("no inputs: send at least one tensor")
	}
	if len(raw) > 0 && len(raw) != len(r.Inputs) {
		return invalid("%d raw contents for %d inputs", len(raw), len(r.Inputs))
	}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		want, err := t.checkedElements(lim)
		if err != nil {
			return err
		}
		if len(raw) > 0 {
			if t.length() > 0 {
				return invalid("input %q has both contents and raw contents", t.Name)
			}
			if err := t.fromBinary(raw[i], want); err != nil {
				return err
			}
		}
		if got := int64(t.length()); got != want {
			return invalid("input %q has %d values and its shape %v asks for %d", t.Name, got, t.Shape, want)
		}
	}
	return nil
}

// protoParam reads one entry of the parameter map.
func (r *Request) protoParam(b []byte) error {
	name, text, n, err := mapEntry(b)
	switch {
	case err != nil:
		return err
	case name == "timeout":
		if n < 0 {
			return invalid("parameter timeout is %d: want microseconds, 0 or more", n)
		}
		r.Timeout = n
	case name == "binary_data_output":
		r.BinaryAll = n != 0
	default:
		if r.Params == nil {
			r.Params = map[string]string{}
		}
		r.Params[name] = text
	}
	return nil
}

func mapEntry(b []byte) (name, text string, n int64, err error) {
	err = fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) error {
		if num == 1 {
			name = string(v)
			return nil
		}
		return fields(v, func(num protowire.Number, _ protowire.Type, i uint64, s []byte) error {
			switch num {
			case paramBool, paramInt:
				n, text = int64(i), strconv.FormatInt(int64(i), 10)
			case paramString:
				text = string(s)
			}
			return nil
		})
	})
	return name, text, n, err
}

func (r *Request) protoOutput(b []byte) error {
	var o Output
	err := fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) error {
		switch num {
		case 1:
			o.Name = string(v)
		case 2:
			name, _, n, err := mapEntry(v)
			if name == "classification" {
				o.Classification = n
			}
			return err
		}
		return nil
	})
	r.Outputs = append(r.Outputs, o)
	return err
}

func (r *Request) protoInput(b []byte, lim Limits) error {
	if len(r.Inputs) >= lim.Inputs {
		return invalid("more than %d inputs", lim.Inputs)
	}
	t := r.addInput()
	var contents []byte
	err := fields(b, func(num protowire.Number, typ protowire.Type, n uint64, v []byte) error {
		switch num {
		case tensorName:
			t.Name = string(v)
		case tensorDatatype:
			if t.Datatype = datatype(v); t.Datatype == "" {
				return invalid("input %q: unknown datatype %q", t.Name, v)
			}
		case tensorShape:
			return t.protoShape(typ, n, v, lim)
		case tensorContents:
			contents = v
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case t.Name == "" || t.Datatype == "":
		return invalid("input %d has no name or no datatype", len(r.Inputs)-1)
	}
	for i := range len(r.Inputs) - 1 {
		if r.Inputs[i].Name == t.Name {
			return invalid("input %q is sent twice", t.Name)
		}
	}
	return t.protoValues(contents)
}

// protoShape reads one dimension, or all of them packed.
func (t *Tensor) protoShape(typ protowire.Type, n uint64, v []byte, lim Limits) error {
	return repeated(typ, protowire.VarintType, n, v, func(d uint64) error {
		if int64(d) < 0 || len(t.Shape) >= lim.Rank {
			return invalid("input %q: a shape has at most %d dimensions, each 0 or more", t.Name, lim.Rank)
		}
		t.Shape = append(t.Shape, int64(d))
		return nil
	})
}

// repeated yields one number, or every number of a packed field whose
// elements have the wire type elem.
func repeated(typ, elem protowire.Type, n uint64, v []byte, each func(uint64) error) error {
	if typ != protowire.BytesType {
		return each(n)
	}
	for len(v) > 0 {
		size := 0
		switch elem {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(v)
		case protowire.Fixed32Type:
			var f uint32
			f, size = protowire.ConsumeFixed32(v)
			n = uint64(f)
		default:
			n, size = protowire.ConsumeFixed64(v)
		}
		if size < 0 {
			return invalid("malformed message: %v", protowire.ParseError(size))
		}
		v = v[size:]
		if err := each(n); err != nil {
			return err
		}
	}
	return nil
}

// contentsField is the field that must hold a datatype's values, and the wire
// type of its elements.
func contentsField(d Datatype) (protowire.Number, protowire.Type) {
	switch d {
	case BOOL:
		return contentsBool, protowire.VarintType
	case INT8, INT16, INT32:
		return contentsInt32, protowire.VarintType
	case INT64:
		return contentsInt64, protowire.VarintType
	case UINT8, UINT16, UINT32:
		return contentsUint32, protowire.VarintType
	case UINT64:
		return contentsUint64, protowire.VarintType
	case FP32:
		return contentsFP32, protowire.Fixed32Type
	case FP64:
		return contentsFP64, protowire.Fixed64Type
	case BYTES:
		return contentsBytes, protowire.BytesType
	}
	return 0, 0 // FP16 and BF16 have raw contents only
}

func (t *Tensor) protoValues(b []byte) error {
	field, elem := contentsField(t.Datatype)
	return fields(b, func(num protowire.Number, typ protowire.Type, n uint64, v []byte) error {
		if num != field {
			return invalid("input %q is %s and its contents are in field %d", t.Name, t.Datatype, num)
		}
		if elem == protowire.BytesType {
			t.Bytes = append(t.Bytes, append([]byte(nil), v...))
			return nil
		}
		return repeated(typ, elem, n, v, t.protoNumber)
	})
}

func (t *Tensor) protoNumber(n uint64) error {
	f, width := t.Datatype.layout()
	switch {
	case f == boolFamily:
		t.Bools = append(t.Bools, n != 0)
	case f == intFamily:
		if shift := 64 - 8*uint(width); int64(n<<shift)>>shift != int64(n) {
			return invalid("input %q: %d is not a %s", t.Name, int64(n), t.Datatype)
		}
		t.Ints = append(t.Ints, int64(n))
	case f == uintFamily:
		if width < 8 && n>>(8*uint(width)) != 0 {
			return invalid("input %q: %d is not a %s", t.Name, n, t.Datatype)
		}
		t.Uints = append(t.Uints, n)
	case t.Datatype == FP32:
		t.Floats = append(t.Floats, float64(math.Float32frombits(uint32(n))))
	default:
		t.Floats = append(t.Floats, math.Float64frombits(n))
	}
	return nil
}

// AppendProto writes a ModelInferResponse with raw contents, which every
// client reads.
func (r *Response) AppendProto(dst []byte) []byte {
	dst = AppendProtoString(dst, inferModel, r.Model)
	dst = AppendProtoString(dst, inferVersion, r.Version)
	dst = AppendProtoString(dst, inferID, r.ID)
	for _, p := range r.Params {
		value := protowire.AppendString(protowire.AppendTag(nil, paramString, protowire.BytesType), p.Value)
		entry := AppendProtoString(nil, 1, p.Name)
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), value)
		dst = protowire.AppendBytes(protowire.AppendTag(dst, inferParams, protowire.BytesType), entry)
	}
	for i := range r.Outputs {
		head := r.Outputs[i].protoHead()
		dst = protowire.AppendBytes(protowire.AppendTag(dst, answerTensors, protowire.BytesType), head)
	}
	for i := range r.Outputs {
		raw := r.Outputs[i].appendBinary(nil)
		dst = protowire.AppendBytes(protowire.AppendTag(dst, answerRaw, protowire.BytesType), raw)
	}
	return dst
}

func (t *Tensor) protoHead() []byte {
	b := AppendProtoString(nil, tensorName, t.Name)
	b = AppendProtoString(b, tensorDatatype, string(t.Datatype))
	return AppendProtoShape(b, tensorShape, t.Shape)
}

// AppendProtoString writes a string field; an empty one is left out, as
// proto3 does.
func AppendProtoString(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

// AppendProtoShape writes dimensions as a packed field.
func AppendProtoShape(dst []byte, num protowire.Number, shape []int64) []byte {
	var packed []byte
	for _, d := range shape {
		packed = protowire.AppendVarint(packed, uint64(d))
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), packed)
}

// ParseNameVersion reads the messages that hold a name and a version
// (ModelReadyRequest, ModelMetadataRequest and their like).
func ParseNameVersion(b []byte) (name, version string, err error) {
	err = fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) error {
		switch num {
		case 1:
			name = string(v)
		case 2:
			version = string(v)
		}
		return nil
	})
	return name, version, err
}

// ProtoString reads one string field of a message.
func ProtoString(b []byte, field protowire.Number) (s string, err error) {
	err = fields(b, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) error {
		if num == field {
			s = string(v)
		}
		return nil
	})
	return s, err
}
