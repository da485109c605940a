package drift_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
)

// benchColumns are ten numeric and five categorical columns of a million rows a
// side, as the store keeps them.
func benchColumns(b *testing.B, rows int) (grids []*dist.Grid, before, now [][]byte) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	pack := func(s *dist.Summary) []byte {
		packed, err := s.MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		return packed
	}
	for i := range 15 {
		var g *dist.Grid
		var err error
		sides := [2]*dist.Builder{}
		if i < 10 {
			g, err = dist.NumericGrid(normals(rng, 20_000, 0), dist.GridConfig{})
		} else {
			counts := map[string]uint64{}
			for range 20_000 {
				counts[fmt.Sprint("c", int(50*rng.Float64()*rng.Float64()))]++
			}
			g, err = dist.CategoryGrid(counts, dist.GridConfig{})
		}
		if err != nil {
			b.Fatal(err)
		}
		for side := range sides {
			sides[side] = dist.NewBuilder(g)
			for range rows {
				if i < 10 {
					sides[side].Add(rng.NormFloat64())
				} else {
					sides[side].AddCategory(fmt.Sprint("c", int(50*rng.Float64()*rng.Float64())))
				}
			}
		}
		grids, before, now = append(grids, g), append(before, pack(sides[0].Summary())), append(now, pack(sides[1].Summary()))
	}
	return grids, before, now
}

// A million rows against a million, 15 columns, from the bytes in the store to
// judgements.
func BenchmarkMillionAgainstMillionFromSummaries(b *testing.B) {
	grids, before, now := benchColumns(b, 1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		columns := make([]drift.Column, len(grids))
		for i, g := range grids {
			ref, cur := new(dist.Summary), new(dist.Summary)
			if ref.UnmarshalBinary(before[i]) != nil || cur.UnmarshalBinary(now[i]) != nil {
				b.Fatal("not a summary")
			}
			baseline, err := drift.BaselineOf(g, []*dist.Summary{ref})
			if err != nil {
				b.Fatal(err)
			}
			columns[i] = drift.Column{Baseline: baseline, Window: cur, Importance: 0.5}
		}
		if got := drift.Judge(columns, 0, drift.DefaultOptions()); len(got) != 30 {
			b.Fatal(len(got))
		}
	}
}

// One tick of 1,000 columns in ten segments.
func BenchmarkTickOfTenThousandColumns(b *testing.B) {
	grids, before, now := benchColumns(b, 20_000)
	columns := make([]drift.Column, 10_000)
	for i := range columns {
		k := i % len(grids)
		ref, cur := new(dist.Summary), new(dist.Summary)
		if ref.UnmarshalBinary(before[k]) != nil || cur.UnmarshalBinary(now[k]) != nil {
			b.Fatal("not a summary")
		}
		baseline, err := drift.BaselineOf(grids[k], []*dist.Summary{ref})
		if err != nil {
			b.Fatal(err)
		}
		columns[i] = drift.Column{Name: fmt.Sprint(i), Baseline: baseline, Window: cur, Importance: 0.5}
	}
	for b.Loop() {
		drift.Judge(columns, 0, drift.DefaultOptions())
	}
}
