package dist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// formatVersion is the first byte of every encoded summary.
const formatVersion = 1

// ErrFormat means that bytes are not a summary this version can read.
var ErrFormat = errors.New("not a summary of format version 1")

// AppendBinary appends the summary's encoding: version byte, counts as varints,
// moments as little-endian doubles, cells by index distance, hashes by distance.
func (s *Summary) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, formatVersion)
	for _, v := range []uint64{s.GridID, s.Count, s.Missing, s.NaN, s.PosInf, s.NegInf} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []float64{s.Weight, s.Min, s.Max, s.Sum, s.M2} {
		b = appendFloat(b, v)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Cells)))
	var next uint32
	for _, c := range s.Cells {
		b = binary.AppendUvarint(b, uint64(c.Index-next))
		b = binary.AppendUvarint(b, c.Count)
		b = appendFloat(b, c.Sum)
		next = c.Index + 1
	}
	b = binary.AppendUvarint(b, uint64(len(s.Distinct.Hashes)))
	var last uint64
	for _, h := range s.Distinct.Hashes {
		b = binary.AppendUvarint(b, h-last)
		last = h
	}
	return b, nil
}

// MarshalBinary encodes the summary.
func (s *Summary) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary decodes what AppendBinary wrote. Anything else answers
// [ErrFormat], and the summary is left empty.
func (s *Summary) UnmarshalBinary(b []byte) error {
	*s = Summary{}
	r := reader{b: b}
	if r.byte() != formatVersion {
		return fmt.Errorf("decode summary: %w", ErrFormat)
	}
	var out Summary
	for _, v := range []*uint64{&out.GridID, &out.Count, &out.Missing, &out.NaN, &out.PosInf, &out.NegInf} {
		*v = r.uvarint()
	}
	for _, v := range []*float64{&out.Weight, &out.Min, &out.Max, &out.Sum, &out.M2} {
		*v = r.float()
	}
	out.Cells = r.cells()
	out.Distinct.Hashes = r.hashes()
	if r.bad || len(r.b) > 0 || out.check() != nil {
		return fmt.Errorf("decode summary: %w", ErrFormat)
	}
	*s = out
	return nil
}

// check refuses what no builder and no merge could have made.
func (s *Summary) check() error {
	var inCells uint64
	for i, c := range s.Cells {
		if c.Count == 0 || i > 0 && c.Index <= s.Cells[i-1].Index || inCells+c.Count < inCells {
			return errors.New("cells are empty, not ascending or too full")
		}
		inCells += c.Count
	}
	if len(s.Cells) > 0 && (inCells != s.Count || s.GridID == 0) {
		return errors.New("cells do not add up to the count")
	}
	if s.Min > s.Max || s.M2 < 0 {
		return errors.New("moments contradict each other")
	}
	return nil
}

func appendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

// reader consumes bytes; after the first fault every read answers zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() uint64 {
	r.bad, r.b = true, nil
	return 0
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		return byte(r.fail())
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		return r.fail()
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) float() float64 {
	if len(r.b) < 8 {
		return float64(r.fail())
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	if math.IsNaN(v) {
		r.fail()
	}
	return v
}

// length reads a count of elements of at least size bytes each, bounded by what
// is left.
func (r *reader) length(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) cells() []Cell {
	n := r.length(10)
	var cells []Cell
	var next uint64
	for range n {
		next += r.uvarint()
		if next >= math.MaxUint32 {
			r.fail()
			return nil
		}
		cells = append(cells, Cell{uint32(next), r.uvarint(), r.float()})
		next++
	}
	return cells
}

func (r *reader) hashes() []uint64 {
	n := r.length(1)
	if n > DistinctSize {
		r.fail()
		return nil
	}
	var hashes []uint64
	var last uint64
	for i := range n {
		step := r.uvarint()
		if i > 0 && (step == 0 || last+step < last) {
			r.fail()
			return nil
		}
		last += step
		hashes = append(hashes, last)
	}
	return hashes
}
