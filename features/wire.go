package features

import (
	"encoding/binary"
	"errors"
)

// message is a protobuf message whose schema the caller knows: its fields by
// number, in order. Only varints and texts are kept, which is all that Feast's
// registry has of interest.
type message map[int][]wireField

type wireField struct {
	number uint64
	text   []byte // of a length-delimited field
}

func parseMessage(b []byte) (message, error) {
	m := message{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errors.New("not a protobuf message")
		}
		b = b[n:]
		f, size := wireField{}, 0
		switch tag & 7 {
		case 0:
			f.number, size = binary.Uvarint(b)
		case 1:
			size = 8
		case 2:
			length, k := binary.Uvarint(b)
			if k <= 0 || length > uint64(len(b)-k) {
				return nil, errors.New("not a protobuf message")
			}
			size = k + int(length)
			f.text = b[k:size:size]
		case 5:
			size = 4
		}
		if size <= 0 || size > len(b) {
			return nil, errors.New("not a protobuf message")
		}
		b = b[size:]
		m[int(tag>>3)] = append(m[int(tag>>3)], f)
	}
	return m, nil
}

func (m message) text(field int) string {
	if f := m[field]; len(f) > 0 {
		return string(f[len(f)-1].text)
	}
	return ""
}

func (m message) number(field int) uint64 {
	if f := m[field]; len(f) > 0 {
		return f[len(f)-1].number
	}
	return 0
}

// one is the message in a field; empty when it is absent or none.
func (m message) one(field int) message {
	if f := m[field]; len(f) > 0 {
		if in, err := parseMessage(f[len(f)-1].text); err == nil {
			return in
		}
	}
	return message{}
}

func (m message) all(field int) (out []message) {
	for _, f := range m[field] {
		if in, err := parseMessage(f.text); err == nil {
			out = append(out, in)
		}
	}
	return out
}

func (m message) texts(field int) (out []string) {
	for _, f := range m[field] {
		out = append(out, string(f.text))
	}
	return out
}
