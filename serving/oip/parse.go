package oip

import (
	"math"
	"strconv"
)

// Parse reads a request body into r, which it resets first. headerLen is the
// value of Inference-Header-Content-Length, the length of the JSON part when
// binary tensors follow it, or -1 without that header.
func (r *Request) Parse(body []byte, headerLen int, lim Limits) error {
	r.Reset()
	if headerLen > len(body) || headerLen < -1 {
		return invalid("Inference-Header-Content-Length is %d and the body has %d bytes", headerLen, len(body))
	}
	header, tail := body, []byte(nil)
	if headerLen >= 0 {
		header, tail = body[:headerLen], body[headerLen:]
	}
	s := scanner{b: header, depth: lim.Depth}
	if err := r.document(&s, lim); err != nil {
		return err
	}
	if s.peek() != 0 || s.i != len(s.b) {
		return s.fail("bytes after the request object")
	}
	if len(r.Inputs) == 0 {
		return invalid("no inputs: send at least one tensor in \"inputs\"")
	}
	for i := range r.Inputs {
		var err error
		if tail, err = r.Inputs[i].fill(header, tail, lim); err != nil {
			return err
		}
	}
	if len(tail) > 0 {
		return invalid("%d bytes of binary data belong to no input", len(tail))
	}
	return nil
}

func (r *Request) document(s *scanner, lim Limits) error {
	return s.object(func(name []byte) error {
		switch string(name) {
		case "id":
			id, err := s.str()
			r.ID = string(id)
			return err
		case "parameters":
			return r.parameters(s)
		case "inputs":
			return s.array(func() error { return r.input(s, lim) })
		case "outputs":
			return s.array(func() error { return r.output(s, lim) })
		}
		_, err := s.skip()
		return err
	})
}

func (r *Request) parameters(s *scanner) error {
	return s.object(func(name []byte) error {
		switch string(name) {
		case "binary_data_output":
			v, err := s.boolean()
			r.BinaryAll = v
			return err
		case "timeout":
			v, err := s.integer()
			if err == nil && v < 0 {
				err = invalid("parameter timeout is %d: want microseconds, 0 or more", v)
			}
			r.Timeout = v
			return err
		}
		return r.otherParameter(s, string(name))
	})
}

func (r *Request) otherParameter(s *scanner, name string) error {
	if r.Params == nil {
		r.Params = map[string]string{}
	}
	if s.peek() == '"' {
		v, err := s.str()
		r.Params[name] = string(v)
		return err
	}
	at, err := s.skip()
	r.Params[name] = string(s.b[at.from:at.to])
	return err
}

func (r *Request) input(s *scanner, lim Limits) error {
	if len(r.Inputs) >= lim.Inputs {
		return invalid("more than %d inputs", lim.Inputs)
	}
	t := r.addInput()
	if err := s.object(func(name []byte) error { return t.member(s, string(name), lim) }); err != nil {
		return err
	}
	if t.Name == "" {
		return invalid("input %d has no name", len(r.Inputs)-1)
	}
	for i := range len(r.Inputs) - 1 {
		if r.Inputs[i].Name == t.Name {
			return invalid("input %q is sent twice", t.Name)
		}
	}
	return nil
}

func (t *Tensor) member(s *scanner, name string, lim Limits) (err error) {
	var v []byte
	switch name {
	case "name":
		v, err = s.str()
		t.Name = string(v)
	case "datatype":
		v, err = s.str()
		t.Datatype = datatype(v)
		if err == nil && t.Datatype == "" {
			err = invalid("input %q: unknown datatype %q", t.Name, v)
		}
	case "shape":
		t.Shape = t.Shape[:0]
		err = s.array(func() error {
			d, err := s.integer()
			if err == nil && (d < 0 || len(t.Shape) >= lim.Rank) {
				err = invalid("input %q: a shape has at most %d dimensions, each 0 or more", t.Name, lim.Rank)
			}
			t.Shape = append(t.Shape, d)
			return err
		})
	case "data":
		t.data, err = s.skipArray()
	case "parameters":
		err = s.object(func(p []byte) error {
			if string(p) != "binary_data_size" {
				_, err := s.skip()
				return err
			}
			n, err := s.integer()
			if err == nil && n < 0 {
				err = invalid("input %q: binary_data_size is %d", t.Name, n)
			}
			t.binarySize = n
			return err
		})
	default:
		_, err = s.skip()
	}
	return err
}

// datatype returns the constant for a name, or "".
func datatype(b []byte) Datatype {
	for _, d := range [...]Datatype{FP32, FP64, INT64, INT32, BYTES, BOOL, INT16, INT8, UINT64, UINT32, UINT16, UINT8, FP16, BF16} {
		if string(b) == string(d) {
			return d
		}
	}
	return ""
}

func (r *Request) output(s *scanner, lim Limits) error {
	if len(r.Outputs) >= lim.Inputs {
		return invalid("more than %d outputs", lim.Inputs)
	}
	var o Output
	err := s.object(func(name []byte) (err error) {
		switch string(name) {
		case "name":
			var v []byte
			v, err = s.str()
			o.Name = string(v)
		case "parameters":
			err = s.object(func(p []byte) (err error) {
				switch string(p) {
				case "binary_data":
					o.Binary, err = s.boolean()
				case "classification":
					o.Classification, err = s.integer()
				default:
					_, err = s.skip()
				}
				return err
			})
		default:
			_, err = s.skip()
		}
		return err
	})
	if err == nil && o.Name == "" {
		err = invalid("output %d has no name", len(r.Outputs))
	}
	r.Outputs = append(r.Outputs, o)
	return err
}

func (s *scanner) boolean() (bool, error) {
	switch string(s.token()) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, s.fail("expected true or false")
}

func (s *scanner) integer() (int64, error) {
	t := s.token()
	v, err := strconv.ParseInt(text(t), 10, 64)
	if err != nil || !validNumber(t) {
		return 0, s.fail("expected an integer")
	}
	return v, nil
}

// fill reads the tensor's values from the JSON array or from the head of tail,
// and returns what is left of tail.
func (t *Tensor) fill(header, tail []byte, lim Limits) ([]byte, error) {
	if t.Datatype == "" {
		return nil, invalid("input %q has no datatype", t.Name)
	}
	want, err := t.checkedElements(lim)
	if err != nil {
		return nil, err
	}
	if t.binarySize >= 0 {
		if t.data.to > 0 {
			return nil, invalid("input %q has both data and binary_data_size", t.Name)
		}
		if t.binarySize > int64(len(tail)) {
			return nil, invalid("input %q wants %d bytes of binary data and %d are left", t.Name, t.binarySize, len(tail))
		}
		return tail[t.binarySize:], t.fromBinary(tail[:t.binarySize], want)
	}
	if t.data.to == 0 {
		return nil, invalid("input %q has neither data nor binary_data_size", t.Name)
	}
	if t.Datatype == FP16 || t.Datatype == BF16 {
		return nil, invalid("input %q: %s can only be sent as binary data", t.Name, t.Datatype)
	}
	s := scanner{b: header[:t.data.to], i: t.data.from, depth: lim.Rank}
	if err := t.fromJSON(&s, want); err != nil {
		return nil, err
	}
	if got := int64(t.length()); got != want {
		return nil, invalid("input %q has %d values and its shape %v asks for %d", t.Name, got, t.Shape, want)
	}
	return tail, nil
}

func (t *Tensor) checkedElements(lim Limits) (int64, error) {
	n := int64(1)
	for _, d := range t.Shape {
		if d > 0 && n > lim.Elements/d {
			return 0, invalid("input %q: shape %v has more than %d values", t.Name, t.Shape, lim.Elements)
		}
		n *= d
	}
	return n, nil
}

// fromJSON reads a flat or nested array.
func (t *Tensor) fromJSON(s *scanner, want int64) error {
	return s.array(func() error {
		if s.peek() == '[' {
			return s.nest(func() error { return t.fromJSON(s, want) })
		}
		if int64(t.length()) >= want {
			return invalid("input %q has more values than its shape %v asks for", t.Name, t.Shape)
		}
		return t.value(s)
	})
}

func (t *Tensor) value(s *scanner) error {
	if t.Datatype == BYTES {
		if s.peek() != '"' {
			return t.mismatch(s)
		}
		v, err := s.str()
		t.Bytes = append(t.Bytes, append([]byte(nil), v...))
		return err
	}
	if s.peek() == '"' {
		return t.nonFinite(s)
	}
	tok := s.token()
	switch f, width := t.Datatype.layout(); f {
	case boolFamily:
		return t.boolValue(s, tok)
	case intFamily:
		v, err := strconv.ParseInt(text(tok), 10, width*8)
		if err != nil || !validNumber(tok) {
			return t.mismatch(s)
		}
		t.Ints = append(t.Ints, v)
	case uintFamily:
		v, err := strconv.ParseUint(text(tok), 10, width*8)
		if err != nil || !validNumber(tok) {
			return t.mismatch(s)
		}
		t.Uints = append(t.Uints, v)
	default:
		v, err := strconv.ParseFloat(text(tok), width*8)
		if !validNumber(tok) || err != nil {
			return t.mismatch(s)
		}
		t.Floats = append(t.Floats, v)
	}
	return nil
}

func (t *Tensor) boolValue(s *scanner, tok []byte) error {
	switch string(tok) {
	case "true", "1":
		t.Bools = append(t.Bools, true)
	case "false", "0":
		t.Bools = append(t.Bools, false)
	default:
		return t.mismatch(s)
	}
	return nil
}

// nonFinite reads "NaN", "Infinity" and "-Infinity", JSON's missing floats.
func (t *Tensor) nonFinite(s *scanner) error {
	v, err := s.str()
	if err != nil {
		return err
	}
	if f, _ := t.Datatype.layout(); f == floatFamily {
		switch string(v) {
		case "NaN":
			t.Floats = append(t.Floats, math.NaN())
			return nil
		case "Infinity":
			t.Floats = append(t.Floats, math.Inf(1))
			return nil
		case "-Infinity":
			t.Floats = append(t.Floats, math.Inf(-1))
			return nil
		}
	}
	return t.mismatch(s)
}

func (t *Tensor) mismatch(s *scanner) error {
	return invalid("input %q: value %d (at byte %d) is not a %s", t.Name, t.length(), s.i, t.Datatype)
}
