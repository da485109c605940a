package dist

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime3 = 0x165667B19E3779F9
	prime4 = 0x85EBCA77C2B2AE63
	prime5 = 0x27D4EB2F165667C5
)

// Hash is xxHash64 with seed 0, which databases have too (ClickHouse:
// xxHash64), so that rows hashed there and here agree.
func Hash(s string) uint64 { return xxhash([]byte(s)) }

// HashFloat hashes a number by its eight little-endian bytes; -0 hashes as 0.
func HashFloat(x float64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], math.Float64bits(x+0))
	return xxhash(b[:])
}

func xxhash(b []byte) uint64 {
	n := uint64(len(b))
	h := uint64(prime5)
	if len(b) >= 32 {
		h, b = xxStripes(b)
	}
	return xxTail(h+n, b)
}

func xxStripes(b []byte) (h uint64, rest []byte) {
	p1 := uint64(prime1)
	v := [4]uint64{p1 + prime2, prime2, 0, -p1}
	for len(b) >= 32 {
		for i := range v {
			v[i] = xxRound(v[i], binary.LittleEndian.Uint64(b[8*i:]))
		}
		b = b[32:]
	}
	h = bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) + bits.RotateLeft64(v[3], 18)
	for _, lane := range v {
		h = (h^xxRound(0, lane))*prime1 + prime4
	}
	return h, b
}

func xxTail(h uint64, b []byte) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		h ^= xxRound(0, binary.LittleEndian.Uint64(b))
		h = bits.RotateLeft64(h, 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * prime1
		h = bits.RotateLeft64(h, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func xxRound(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*prime2, 31) * prime1
}
