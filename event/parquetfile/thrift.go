package parquetfile

import (
	"encoding/binary"
	"io"
)

// walker walks through Thrift's compact protocol, in which Parquet describes
// itself, without building anything: every length is held against the bytes that
// are left. https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
type walker struct {
	b       []byte
	at      int
	members int // structures in lists
}

// Types of fields.
const (
	tStop = iota
	tTrue
	tFalse
	tByte
	tI16
	tI32
	tI64
	tDouble
	tBinary
	tList
	tSet
	tMap
	tStruct
	tUUID
)

// field is told the id of a number or truth value, under those of the structures
// that it is in.
type field func(path []int16, value int64)

func (t *walker) structure(depth int, tell field, path ...int16) error {
	if depth > maxDepth {
		return hostile("its description is nested more than %d deep", maxDepth)
	}
	id := int16(0)
	for {
		head, err := t.octet()
		if err != nil {
			return err
		}
		kind := head & 15
		if kind == tStop {
			return nil
		}
		if delta := head >> 4; delta > 0 {
			id += int16(delta)
		} else {
			n, err := t.zigzag()
			if err != nil {
				return err
			}
			if id = int16(n); int64(id) != n { // who reads it later may take it for another field
				return hostile("its description has a field numbered %d", n)
			}
		}
		at := path
		if tell != nil {
			at = append(path[:len(path):len(path)], id)
		}
		if err := t.value(kind, depth, false, tell, at); err != nil {
			return err
		}
	}
}

// value skips a value, or tells it.
func (t *walker) value(kind byte, depth int, member bool, tell field, path []int16) (err error) {
	n := int64(0)
	switch kind {
	case tTrue, tFalse:
		n = int64(tFalse - kind)
		if member { // of a list: a byte each
			return t.skip(1)
		}
	case tByte:
		err = t.skip(1)
	case tI16, tI32, tI64:
		n, err = t.zigzag()
	case tDouble:
		return t.skip(8)
	case tUUID:
		return t.skip(16)
	case tBinary:
		u, err := t.uvarint()
		if err != nil {
			return err
		}
		return t.skip(u)
	case tList, tSet:
		return t.list(depth)
	case tMap:
		return t.mapping(depth)
	case tStruct:
		return t.structure(depth+1, tell, path...)
	default:
		return hostile("its description has a field of an unknown type %d", kind)
	}
	if err == nil && tell != nil {
		tell(path, n)
	}
	return err
}

func (t *walker) list(depth int) error {
	head, err := t.octet()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if n == 15 {
		if n, err = t.uvarint(); err != nil {
			return err
		}
	}
	return t.items(n, depth, head&15)
}

func (t *walker) mapping(depth int) error {
	n, err := t.uvarint()
	if err != nil || n == 0 {
		return err
	}
	kinds, err := t.octet()
	if err != nil {
		return err
	}
	return t.items(n, depth, kinds>>4, kinds&15)
}

// items skips n times one value of each kind. Each takes a byte at least.
func (t *walker) items(n uint64, depth int, kinds ...byte) error {
	if n > uint64(len(t.b)-t.at) {
		return hostile("its description has a list of %d members in %d bytes", n, len(t.b)-t.at)
	}
	if depth > maxDepth {
		return hostile("its description is nested more than %d deep", maxDepth)
	}
	for range n {
		for _, kind := range kinds {
			if kind == tStruct || kind == tList || kind == tSet || kind == tMap {
				if t.members++; t.members > maxMembers {
					return hostile("its description has more than %d members (columns times row groups, and what they hold)", maxMembers)
				}
			}
			if err := t.value(kind, depth+1, true, nil, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *walker) octet() (byte, error) {
	if t.at >= len(t.b) {
		return 0, io.ErrUnexpectedEOF
	}
	t.at++
	return t.b[t.at-1], nil
}

func (t *walker) uvarint() (uint64, error) {
	u, n := binary.Uvarint(t.b[t.at:])
	if n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if n < 0 {
		return 0, hostile("its description has a number of more than 64 bits")
	}
	t.at += n
	return u, nil
}

func (t *walker) zigzag() (int64, error) {
	u, err := t.uvarint()
	return int64(u>>1) ^ -int64(u&1), err
}

func (t *walker) skip(n uint64) error {
	if n > uint64(len(t.b)-t.at) {
		return io.ErrUnexpectedEOF
	}
	t.at += int(n)
	return nil
}

// Kinds of pages.
const (
	dataPage = iota
	indexPage
	dictionaryPage
	dataPageV2
)

// header is what a page says of itself.
type header struct {
	kind                     int64
	uncompressed, compressed int64
	values                   int64
	encoding                 int64
	defEncoding, repEncoding int64 // of the first version
	defBytes, repBytes       int64 // of the second
	plain                    bool  // of the second: its values are not compressed
}

func (t *walker) header() (h header, err error) {
	h.kind, h.values = -1, -1
	err = t.structure(0, func(path []int16, v int64) {
		switch len(path) {
		case 1:
			switch path[0] {
			case 1:
				h.kind = v
			case 2:
				h.uncompressed = v
			case 3:
				h.compressed = v
			}
		case 2:
			h.of(path[0], path[1], v)
		}
	})
	return h, err
}

// of takes a field of the data page's, the dictionary page's or the second data
// page's own header, which are members 5, 7 and 8.
func (h *header) of(page, id int16, v int64) {
	switch {
	case (page == 5 || page == 7 || page == 8) && id == 1:
		h.values = v
	case (page == 5 || page == 7) && id == 2, page == 8 && id == 4:
		h.encoding = v
	case page == 5 && id == 3:
		h.defEncoding = v
	case page == 5 && id == 4:
		h.repEncoding = v
	case page == 8 && id == 5:
		h.defBytes = v
	case page == 8 && id == 6:
		h.repBytes = v
	case page == 8 && id == 7:
		h.plain = v == 0
	}
}
