package trainer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"math/bits"
)

// rowDigest adds up the hashes of rows modulo 2^256, so that the order in which
// a query returned them does not matter, but their number, their content and
// the columns' names and types do.
type rowDigest struct {
	fields []Field
	sum    [4]uint64
	rows   uint64
	hash   hash.Hash
	buf    []byte
}

func newRowDigest(fields []Field) *rowDigest {
	return &rowDigest{fields: fields, hash: sha256.New()}
}

// Tags before each value keep a missing value apart from every other.
const (
	tagMissing = 0
	tagNumber  = 1
	tagText    = 2
)

func (d *rowDigest) missing() { d.buf = append(d.buf, tagMissing) }

// number writes the bits of v; -0 is 0, every NaN is missing.
func (d *rowDigest) number(v float64) {
	if v != v {
		d.missing()
		return
	}
	d.buf = append(d.buf, tagNumber)
	d.buf = binary.LittleEndian.AppendUint64(d.buf, math.Float64bits(v+0))
}

func (d *rowDigest) text(v string) {
	d.buf = append(d.buf, tagText)
	d.buf = binary.AppendUvarint(d.buf, uint64(len(v)))
	d.buf = append(d.buf, v...)
}

// endRow adds the row written since the last call.
func (d *rowDigest) endRow() {
	d.hash.Reset()
	d.hash.Write(d.buf)
	var h [sha256.Size]byte
	d.hash.Sum(h[:0])
	var carry uint64
	for i := range d.sum {
		d.sum[i], carry = bits.Add64(d.sum[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
	d.rows++
	d.buf = d.buf[:0]
}

// value is the digest of everything added.
func (d *rowDigest) value() string {
	h := sha256.New()
	for _, f := range d.fields {
		h.Write([]byte(f.Name + "\x00" + f.Type + "\x00" + f.View + "\x00"))
		h.Write(binary.LittleEndian.AppendUint64(nil, f.ViewVersion))
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, d.rows))
	for _, s := range d.sum {
		h.Write(binary.LittleEndian.AppendUint64(nil, s))
	}
	return hex.EncodeToString(h.Sum(nil))
}
