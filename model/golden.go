package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// GoldenRows is how many rows a trainer puts beside its model.
const GoldenRows = 256

// GoldenTolerance is how far an answer may be from the recorded one, absolute
// and relative.
const GoldenTolerance = 1e-5

// ErrGolden means that a model does not answer its golden rows as it did when
// it was trained.
var ErrGolden = errors.New("golden rows differ")

// Golden is a sample of rows and what the training runtime answered.
type Golden struct {
	Features int       // values of a row
	Outputs  int       // predictions of a row
	Inputs   []float32 // row-major
	Expected []float32 // row-major
}

// golden.bin: magic, format, rows, features, outputs (uint32 little-endian),
// then inputs and expected values as float32.
const (
	goldenMagic  = "KGLD"
	goldenFormat = 1
	goldenHeader = 20
)

// Rows is the number of rows.
func (g *Golden) Rows() int {
	if g.Features == 0 {
		return 0
	}
	return len(g.Inputs) / g.Features
}

// Encode writes golden.bin.
func (g *Golden) Encode() []byte {
	b := make([]byte, 0, goldenHeader+4*(len(g.Inputs)+len(g.Expected)))
	b = append(b, goldenMagic...)
	for _, n := range []int{goldenFormat, g.Rows(), g.Features, g.Outputs} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, part := range [][]float32{g.Inputs, g.Expected} {
		for _, v := range part {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// DecodeGolden reads golden.bin. The stated shape must be that of the bytes.
func DecodeGolden(b []byte) (*Golden, error) {
	if len(b) < goldenHeader || string(b[:4]) != goldenMagic {
		return nil, fmt.Errorf("golden rows: no header: %w", ErrCorrupt)
	}
	word := func(i int) int { return int(binary.LittleEndian.Uint32(b[4*i:])) }
	format, rows, features, outputs := word(1), word(2), word(3), word(4)
	if format != goldenFormat {
		return nil, fmt.Errorf("golden rows: format %d, this version reads %d: %w", format, goldenFormat, ErrCorrupt)
	}
	body := b[goldenHeader:]
	// uint32 counts: the products below stay within 64 bits after this check.
	if rows > len(body) || features+outputs > len(body) || 4*rows*(features+outputs) != len(body) || features == 0 || outputs == 0 {
		return nil, fmt.Errorf("golden rows: %d rows of %d+%d values in %d bytes: %w", rows, features, outputs, len(body), ErrCorrupt)
	}
	g := &Golden{Features: features, Outputs: outputs}
	g.Inputs = floats(body[:4*rows*features])
	g.Expected = floats(body[4*rows*features:])
	return g, nil
}

func floats(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// Replay asks a runtime for all golden rows and returns the largest difference
// from what was recorded. Beyond [GoldenTolerance] it answers [ErrGolden]: do
// not serve that model there.
func (g *Golden) Replay(predict func(out, rows []float32) error) (worst float64, err error) {
	got := make([]float32, len(g.Expected))
	if err := predict(got, g.Inputs); err != nil {
		return 0, fmt.Errorf("replay golden rows: %w", err)
	}
	at := 0
	for i, want := range g.Expected {
		if d := difference(got[i], want); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= GoldenTolerance) {
		return worst, fmt.Errorf("%w: row %d answers %v, recorded %v (allowed %g apart)",
			ErrGolden, at/g.Outputs, got[at], g.Expected[at], GoldenTolerance)
	}
	return worst, nil
}

// difference is absolute up to 1 and relative beyond; equal infinities and two
// NaN do not differ.
func difference(got, want float32) float64 {
	if got == want || got != got && want != want {
		return 0
	}
	return math.Abs(float64(got)-float64(want)) / max(1, math.Abs(float64(want)))
}
