package features

import (
	"encoding/binary"
	"math"
)

// Registers of a HyperLogLog with 2^10 registers (standard error 3.3 %): as
// long as few are set, a count and sorted 16-bit entries, index and rank; then
// one byte each. The hash is fixed, so that every process and the training
// sets come to the same registers.
const (
	distinctBits  = 10
	distinctRegs  = 1 << distinctBits
	maxSparse     = 500
	distinctDense = 0xffff
)

// mix spreads a number over 64 bits (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func hashNumber(x uint64) uint64 { return mix(x + 0x9e3779b97f4a7c15) }

// hashText is FNV-1a, mixed.
func hashText(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return mix(h)
}

// register of a hash: which one, and the rank that it proposes (1 to 55).
func register(h uint64) (index, rank int) {
	index = int(h >> (64 - distinctBits))
	rest := h << distinctBits
	rank = 1
	for rank <= 64-distinctBits && rest>>63 == 0 {
		rank++
		rest <<= 1
	}
	return index, rank
}

// distinctSize is the length of encoded registers.
func distinctSize(b []byte) int {
	if n := binary.LittleEndian.Uint16(b); n != distinctDense {
		return 2 + 2*int(n)
	}
	return 2 + distinctRegs
}

// distinctHas reports whether a hash would change nothing.
func distinctHas(b []byte, h uint64) bool {
	index, rank := register(h)
	n := int(binary.LittleEndian.Uint16(b))
	if n == distinctDense {
		return int(b[2+index]) >= rank
	}
	at, ok := sparseFind(b[2:2+2*n], index)
	return ok && int(binary.LittleEndian.Uint16(b[2+2*at:])&63) >= rank
}

func sparseFind(b []byte, index int) (int, bool) {
	low, high := 0, len(b)/2
	for low < high {
		mid := (low + high) / 2
		if int(binary.LittleEndian.Uint16(b[2*mid:])>>6) < index {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < len(b)/2 && int(binary.LittleEndian.Uint16(b[2*low:])>>6) == index
}

// distinctAdd appends the registers with a hash added.
func distinctAdd(dst, b []byte, h uint64) []byte {
	index, rank := register(h)
	n := int(binary.LittleEndian.Uint16(b))
	start := len(dst)
	if n == distinctDense {
		dst = append(dst, b[:2+distinctRegs]...)
		dst[start+2+index] = max(dst[start+2+index], byte(rank))
		return dst
	}
	entry := binary.LittleEndian.AppendUint16(nil, uint16(index<<6|rank))
	at, ok := sparseFind(b[2:2+2*n], index)
	switch {
	case ok:
		dst = append(dst, b[:2+2*n]...)
		copy(dst[start+2+2*at:], entry)
		return dst
	case n < maxSparse:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n+1))
		return append(append(append(dst, b[2:2+2*at]...), entry...), b[2+2*at:2+2*n]...)
	}
	var regs [distinctRegs]byte
	distinctMerge(&regs, b)
	regs[index] = byte(rank)
	return append(binary.LittleEndian.AppendUint16(dst, distinctDense), regs[:]...)
}

// distinctMerge raises registers to those of an encoded set.
func distinctMerge(regs *[distinctRegs]byte, b []byte) {
	n := int(binary.LittleEndian.Uint16(b))
	if n == distinctDense {
		for i, r := range b[2 : 2+distinctRegs] {
			regs[i] = max(regs[i], r)
		}
		return
	}
	for i := range n {
		e := binary.LittleEndian.Uint16(b[2+2*i:])
		regs[e>>6] = max(regs[e>>6], byte(e&63))
	}
}

// distinctEstimate is how many distinct values registers have seen, by Ertl's
// improved estimator (arXiv 1702.01284, algorithm 6).
func distinctEstimate(regs *[distinctRegs]byte) int64 {
	const q, m = 64 - distinctBits, float64(distinctRegs)
	var counts [q + 2]float64
	for _, r := range regs {
		counts[r]++
	}
	z := m * tau(1-counts[q+1]/m)
	for k := q; k >= 1; k-- {
		z = 0.5 * (z + counts[k])
	}
	z += m * sigma(counts[0]/m)
	if math.IsInf(z, 1) {
		return 0
	}
	return int64(math.Round(m * m / (2 * math.Ln2 * z)))
}

func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for {
		x *= x
		before := z
		z += x * y
		y += y
		if z == before {
			return z
		}
	}
}

func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for {
		x = math.Sqrt(x)
		before := z
		y *= 0.5
		z -= (1 - x) * (1 - x) * y
		if z == before {
			return z / 3
		}
	}
}
