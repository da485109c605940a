package trainer

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// Pruning says which trials of a search are stopped early.
type Pruning string

// Prunings.
const (
	NoPruning Pruning = ""
	ASHA      Pruning = "asha"   // stopped at a rung unless among its best 1/Eta so far
	Median    Pruning = "median" // stopped when its best is worse than the median of the others' at that round
)

// pruner decides, per round and trial, whether to go on. It is safe for
// concurrent use. Losses: smaller is better.
type pruner struct {
	kind  Pruning
	eta   int // ASHA: one of eta goes on
	first int // ASHA: the first rung; Median: no judgement before
	least int // Median: trials that must have come as far

	mu    sync.Mutex
	rungs map[int][]float64
	best  map[int]map[int]float64 // trial → round → best loss so far
}

func newPruner(kind Pruning) *pruner {
	p := &pruner{kind: kind, eta: 3, first: 10, least: 3, rungs: make(map[int][]float64), best: make(map[int]map[int]float64)}
	if kind == Median {
		p.first = 4
	}
	return p
}

// stop notes a trial's loss after a round (from 0) and answers whether it
// should end.
func (p *pruner) stop(trial, round int, loss float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	rounds := p.best[trial]
	if rounds == nil {
		rounds = make(map[int]float64)
		p.best[trial] = rounds
	}
	if last, ok := rounds[round-1]; ok {
		loss = min(loss, last)
	}
	rounds[round] = loss
	switch p.kind {
	case ASHA:
		return p.asha(round+1, loss)
	case Median:
		return p.median(trial, round, loss)
	}
	return false
}

// asha is the stopping variant of asynchronous successive halving (Li et al.,
// "A System for Massively Parallel Hyperparameter Tuning", 2020): at rungs
// first·etaᵏ a trial goes on only if it is among the best 1/eta of those that
// have come there. Nothing is ever paused.
func (p *pruner) asha(rounds int, loss float64) bool {
	rung := p.first
	for rung < rounds {
		rung *= p.eta
	}
	if rung != rounds {
		return false
	}
	met := append(p.rungs[rung], loss)
	p.rungs[rung] = met
	slices.Sort(met)
	if len(met) < p.eta {
		return false // nothing to compare with yet
	}
	keep := len(met) / p.eta
	return loss > met[keep-1]
}

// median is Vizier's rule as Katib has it.
func (p *pruner) median(trial, round int, loss float64) bool {
	if round < p.first {
		return false
	}
	var others []float64
	for t, rounds := range p.best {
		if v, ok := rounds[round]; ok && t != trial {
			others = append(others, v)
		}
	}
	if len(others) < p.least {
		return false
	}
	slices.SortFunc(others, cmp.Compare[float64])
	middle := others[len(others)/2]
	if len(others)%2 == 0 {
		middle = (middle + others[len(others)/2-1]) / 2
	}
	return loss > middle || math.IsNaN(loss)
}
