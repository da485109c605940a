package features

import (
	"encoding/binary"
	"math"

	"github.com/kedge-ml/kedge/event"
)

// What a tile keeps of a column, as bytes:
//
//	count            8 count
//	sum              8 count · 16 sum as two floats
//	squares          8 count · 16 mean · 16 sum of squared distances from it
//	min, max         1 present · 8 value
//	first, last      1 present · 36 version · 8 value, or 2 length and the text
//	distinct         registers, see distinct.go
//
// Sums are kept as unevaluated pairs of floats (twice the digits), so that the
// order in which events come in does not show in the result.

const versionBytes = 36

// windowValue is one value of an event as accumulators take it.
type windowValue struct {
	ok   bool // neither null nor NaN
	i    int64
	f    float64
	text []byte
}

func (v *windowValue) bits(float bool) uint64 {
	if float {
		return math.Float64bits(v.f)
	}
	return uint64(v.i)
}

// read takes row i of a column.
func (v *windowValue) read(c *event.Column, i int) {
	*v = windowValue{}
	if c.Null(i) || c.Type.List || c.Type.Elem == event.Unknown {
		return
	}
	if fixedWidth(c.Type) < 0 {
		v.ok, v.text = true, c.Str(i)
		return
	}
	n := columnNumber(c, i)
	if v.i, v.f = n.i, n.f; !n.float {
		v.f = float64(n.i)
	}
	v.ok = v.f == v.f
}

// pair is a sum as two floats, the second below the first's precision.
type pair struct{ hi, lo float64 }

func (p pair) add(x float64) pair {
	s := p.hi + x
	if math.IsInf(s, 0) || s != s {
		return pair{s, 0}
	}
	b := s - p.hi
	e := (p.hi - (s - b)) + (x - b)
	return renormalized(s, e+p.lo)
}

func (p pair) plus(o pair) pair { return p.add(o.hi).add(o.lo) }

func renormalized(s, e float64) pair {
	hi := s + e
	return pair{hi, e - (hi - s)}
}

// times is the product, to the pair's precision.
func (p pair) times(o pair) pair {
	m := p.hi * o.hi
	if math.IsInf(m, 0) || m != m {
		return pair{m, 0}
	}
	return renormalized(m, math.FMA(p.hi, o.hi, -m)+(p.hi*o.lo+p.lo*o.hi))
}

func (p pair) minus(o pair) pair { return p.plus(pair{-o.hi, -o.lo}) }

func (p pair) over(n float64) pair {
	hi := p.hi / n
	return renormalized(hi, (math.FMA(-hi, n, p.hi)+p.lo)/n)
}

func (p pair) value() float64 { return p.hi + p.lo }

func getPair(b []byte) pair {
	return pair{math.Float64frombits(binary.LittleEndian.Uint64(b)), math.Float64frombits(binary.LittleEndian.Uint64(b[8:]))}
}

func putPair(b []byte, p pair) {
	binary.LittleEndian.PutUint64(b, math.Float64bits(p.hi))
	binary.LittleEndian.PutUint64(b[8:], math.Float64bits(p.lo))
}

func putVersion(b []byte, v Version) {
	binary.LittleEndian.PutUint64(b, uint64(v.EventTime))
	binary.LittleEndian.PutUint64(b[8:], uint64(v.Created))
	binary.LittleEndian.PutUint32(b[16:], uint32(v.Epoch))
	binary.LittleEndian.PutUint32(b[20:], uint32(v.Partition))
	binary.LittleEndian.PutUint64(b[24:], uint64(v.Offset))
	binary.LittleEndian.PutUint32(b[32:], uint32(v.Index))
}

func getVersion(b []byte) Version {
	return Version{EventTime: int64(binary.LittleEndian.Uint64(b)), Created: int64(binary.LittleEndian.Uint64(b[8:])),
		Epoch: int32(binary.LittleEndian.Uint32(b[16:])), Partition: int32(binary.LittleEndian.Uint32(b[20:])),
		Offset: int64(binary.LittleEndian.Uint64(b[24:])), Index: int32(binary.LittleEndian.Uint32(b[32:]))}
}

// fixedSize is the length of the state, 0 when it varies.
func (a accumulator) fixedSize() int {
	switch a.acc {
	case accCount:
		return 8
	case accSum:
		return 24
	case accSquares:
		return 40
	case accMin, accMax:
		return 9
	case accDistinct:
		return 0
	}
	if a.text {
		return 0
	}
	return 1 + versionBytes + 8
}

func (a accumulator) size(b []byte) int {
	if n := a.fixedSize(); n > 0 {
		return n
	}
	if a.acc == accDistinct {
		return distinctSize(b)
	}
	return 1 + versionBytes + 2 + int(binary.LittleEndian.Uint16(b[1+versionBytes:]))
}

func (a accumulator) maxSize() int {
	if n := a.fixedSize(); n > 0 {
		return n
	}
	if a.acc == accDistinct {
		return 2 + distinctRegs
	}
	return 1 + versionBytes + 2 + maxWindowText
}

// empty appends the state of no events.
func (a accumulator) empty(dst []byte) []byte {
	n := a.fixedSize()
	switch {
	case n > 0:
	case a.acc == accDistinct:
		n = 2
	default:
		n = 1 + versionBytes + 2
	}
	return append(dst, zeroState[:n]...)
}

// takes reports whether a value counts at all.
func (a accumulator) takes(v *windowValue) bool {
	return a.column < 0 || v.ok && (!a.text || a.acc == accCount || a.acc == accDistinct || len(v.text) <= maxWindowText)
}

// wins reports whether an event replaces the one that is kept.
func (a accumulator) wins(b []byte, at Version) bool {
	if b[0] == 0 {
		return true
	}
	c := at.Compare(getVersion(b[1:]))
	return a.acc == accFirst && c < 0 || a.acc == accLast && c > 0
}

// keepsSize reports whether adding a value leaves the state's length as it is;
// then addTo can write it in place.
func (a accumulator) keepsSize(b []byte, v *windowValue, at Version) bool {
	switch {
	case a.fixedSize() > 0 || !a.takes(v):
		return true
	case a.acc == accDistinct:
		return distinctHas(b, a.hash(v))
	}
	return !a.wins(b, at)
}

func (a accumulator) hash(v *windowValue) uint64 {
	if a.text {
		return hashText(v.text)
	}
	if a.float && v.f == 0 {
		return hashNumber(0) // −0 is 0
	}
	return hashNumber(v.bits(a.float))
}

// addTo adds a value in place.
func (a accumulator) addTo(b []byte, v *windowValue, at Version) {
	if !a.takes(v) {
		return
	}
	switch a.acc {
	case accSquares:
		c := moments{1, pair{v.f, 0}, pair{}}.merged(getMoments(b))
		binary.LittleEndian.PutUint64(b, uint64(c.n))
		putPair(b[8:], c.mean)
		putPair(b[24:], c.m2)
	case accSum:
		putPair(b[8:], getPair(b[8:]).add(v.f))
		fallthrough
	case accCount:
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+1)
	case accMin, accMax:
		if b[0] == 0 || a.beyond(v.bits(a.float), binary.LittleEndian.Uint64(b[1:])) {
			b[0] = 1
			binary.LittleEndian.PutUint64(b[1:], v.bits(a.float))
		}
	case accFirst, accLast:
		if !a.text && a.wins(b, at) {
			b[0] = 1
			putVersion(b[1:], at)
			binary.LittleEndian.PutUint64(b[1+versionBytes:], v.bits(a.float))
		}
	}
}

// beyond reports whether x replaces y as the smallest or largest.
func (a accumulator) beyond(x, y uint64) bool {
	if a.acc == accMax {
		x, y = y, x
	}
	if a.float {
		return math.Float64frombits(x) < math.Float64frombits(y)
	}
	return int64(x) < int64(y)
}

// add appends the state with a value added.
func (a accumulator) add(dst, b []byte, v *windowValue, at Version) []byte {
	start := len(dst)
	if a.keepsSize(b, v, at) {
		dst = append(dst, b[:a.size(b)]...)
		a.addTo(dst[start:], v, at)
		return dst
	}
	if a.acc == accDistinct {
		return distinctAdd(dst, b, a.hash(v))
	}
	dst = append(dst, zeroState[:1+versionBytes]...)
	dst[start] = 1
	putVersion(dst[start+1:], at)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(v.text)))
	return append(dst, v.text...)
}

// zeroState is where fresh states come from.
var zeroState [64]byte

// cell is the state of several tiles, merged.
type cell struct {
	count   uint64
	sum     pair
	moments moments
	present bool
	bits    uint64
	at      Version
	text    []byte
	regs    *[distinctRegs]byte
}

func (c *cell) reset() {
	regs := c.regs
	*c = cell{regs: regs, text: c.text[:0]}
	if regs != nil {
		clear(regs[:])
	}
}

// merge takes a tile's state in.
func (a accumulator) merge(c *cell, b []byte) {
	switch a.acc {
	case accSquares:
		c.moments = getMoments(b).merged(c.moments)
		c.count = uint64(c.moments.n)
	case accSum:
		c.sum = c.sum.plus(getPair(b[8:]))
		fallthrough
	case accCount:
		c.count += binary.LittleEndian.Uint64(b)
	case accDistinct:
		if c.regs == nil {
			c.regs = new([distinctRegs]byte)
		}
		distinctMerge(c.regs, b)
	case accMin, accMax:
		if bits := binary.LittleEndian.Uint64(b[1:]); b[0] != 0 && (!c.present || a.beyond(bits, c.bits)) {
			c.present, c.bits = true, bits
		}
	case accFirst, accLast:
		a.mergeOrdered(c, b)
	}
}

func (a accumulator) mergeOrdered(c *cell, b []byte) {
	if b[0] == 0 {
		return
	}
	at := getVersion(b[1:])
	if order := at.Compare(c.at); c.present && (a.acc == accFirst) != (order < 0) {
		return
	}
	c.present, c.at = true, at
	if rest := b[1+versionBytes:]; a.text {
		c.text = append(c.text[:0], rest[2:2+int(binary.LittleEndian.Uint16(rest))]...)
	} else {
		c.bits = binary.LittleEndian.Uint64(rest)
	}
}

// result is a function's value; ok is false for null.
func (a accumulator) result(c *cell, function string) (n number, ok bool) {
	switch function {
	case "count":
		return number{i: int64(c.count)}, true
	case "distinct":
		if c.regs == nil {
			return number{}, true
		}
		return number{i: distinctEstimate(c.regs)}, true
	case "sum":
		return number{float: true, f: c.sum.value()}, c.count > 0
	case "mean":
		return number{float: true, f: c.sum.over(float64(c.count)).value()}, c.count > 0
	case "stddev":
		return number{float: true, f: deviation(c)}, c.count > 1
	}
	if a.float {
		return number{float: true, f: math.Float64frombits(c.bits)}, c.present
	}
	return number{i: int64(c.bits)}, c.present
}

// moments are a count, a mean and the sum of squared distances from it; merged
// joins two of them (Chan, Golub and LeVeque 1983).
type moments struct {
	n        float64
	mean, m2 pair
}

func getMoments(b []byte) moments {
	return moments{float64(binary.LittleEndian.Uint64(b)), getPair(b[8:]), getPair(b[24:])}
}

func (m moments) merged(o moments) moments {
	switch {
	case m.n == 0:
		return o
	case o.n == 0:
		return m
	}
	n, d := m.n+o.n, o.mean.minus(m.mean)
	return moments{n, m.mean.plus(d.times(pair{o.n, 0}).over(n)), m.m2.plus(o.m2).plus(d.times(d).times(pair{m.n * o.n, 0}).over(n))}
}

// deviation is the sample standard deviation.
func deviation(c *cell) float64 {
	return math.Sqrt(max(c.moments.m2.over(c.moments.n-1).value(), 0))
}
