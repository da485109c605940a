package dist

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// gridJSON carries hashes as strings: JSON readers lose integers above 2^53.
type gridJSON struct {
	Edges      []float64 `json:"edges,omitempty"`
	Deciles    []float64 `json:"deciles,omitempty"`
	Categories []string  `json:"categories,omitempty"`
	Rest       []string  `json:"rest,omitempty"`
	RestOpen   bool      `json:"rest_open,omitempty"`
	Even       []string  `json:"even_words,omitempty"`
	Odd        []string  `json:"odd_words,omitempty"`
	Vector     []float64 `json:"vector,omitempty"`
}

// MarshalJSON writes the cut points or categories.
func (g *Grid) MarshalJSON() ([]byte, error) {
	a := g.Anchor
	return json.Marshal(gridJSON{g.Edges, g.Deciles, g.Categories, hexes(g.Rest), g.RestOpen, hexes(a.Words[0]), hexes(a.Words[1]), a.Vector})
}

// UnmarshalJSON reads and checks what MarshalJSON wrote.
func (g *Grid) UnmarshalJSON(b []byte) error {
	var j gridJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("decode grid: %w", err)
	}
	var hashes [3][]uint64
	for i, list := range [3][]string{j.Rest, j.Even, j.Odd} {
		var err error
		if hashes[i], err = unhex(list); err != nil {
			return fmt.Errorf("decode grid: %w", err)
		}
	}
	fresh, err := newGrid(&Grid{Edges: j.Edges, Deciles: j.Deciles, Categories: j.Categories, Rest: hashes[0], RestOpen: j.RestOpen,
		Anchor: Anchor{[2][]uint64{hashes[1], hashes[2]}, j.Vector}})
	if err != nil {
		return fmt.Errorf("decode grid: %w", err)
	}
	*g = *fresh
	return nil
}

// MarshalJSON writes the hashes as hexadecimal strings.
func (d Distinct) MarshalJSON() ([]byte, error) { return json.Marshal(hexes(d.Hashes)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Distinct) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("decode distinct sketch: %w", err)
	}
	hashes, err := unhex(list)
	if err != nil {
		return fmt.Errorf("decode distinct sketch: %w", err)
	}
	if !slices.IsSorted(hashes) || len(hashes) > DistinctSize {
		return fmt.Errorf("decode distinct sketch: %d hashes, want at most %d, ascending", len(hashes), DistinctSize)
	}
	d.Hashes = hashes
	return nil
}

func hexes(hs []uint64) []string {
	var out []string
	for _, h := range hs {
		out = append(out, strconv.FormatUint(h, 16))
	}
	return out
}

func unhex(list []string) ([]uint64, error) {
	var out []uint64
	for _, s := range list {
		h, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("hash %q: %w", s, err)
		}
		out = append(out, h)
	}
	return out, nil
}
