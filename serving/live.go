package serving

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// latencyCells are half octaves from 1 µs on: 1 µs, 1.41 µs, … 16 s.
const latencyCells = 48

// scoresKept is how many of the newest scores of a version are compared.
const scoresKept = 4096

// live counts what one version does, without locks, from its loading on.
type live struct {
	requests atomic.Uint64 // routed to the version, refused ones included
	failed   atomic.Uint64 // of them, not answered, for any reason but a full queue or a caller that left
	took     [latencyCells]atomic.Uint64
	scored   atomic.Uint64 // rows answered
	scores   [scoresKept]atomic.Uint32
}

// reading is a live's state at one moment.
type reading struct {
	requests, failed uint64
	took             [latencyCells]uint64
	scored           uint64
}

func (l *live) read() (r reading) {
	r.requests, r.failed, r.scored = l.requests.Load(), l.failed.Load(), l.scored.Load()
	for i := range l.took {
		r.took[i] = l.took[i].Load()
	}
	return r
}

// since is what happened after an earlier reading; a version that was loaded
// anew meanwhile counts from there.
func (r reading) since(old reading) reading {
	if r.requests < old.requests {
		return r
	}
	r.requests, r.failed, r.scored = r.requests-old.requests, r.failed-old.failed, r.scored-old.scored
	for i := range r.took {
		r.took[i] -= min(r.took[i], old.took[i])
	}
	return r
}

func (l *live) answered(took time.Duration, values []float32, width int) {
	l.took[latencyCell(took)].Add(1)
	rows := uint64(len(values) / width)
	at := l.scored.Add(rows) - rows
	for i := 0; i < len(values); i += width {
		l.scores[at%scoresKept].Store(math.Float32bits(values[i]))
		at++
	}
}

func latencyCell(d time.Duration) int {
	if d <= time.Microsecond {
		return 0
	}
	return min(latencyCells-1, int(2*math.Log2(float64(d)/float64(time.Microsecond))))
}

// quantile is a latency's quantile, as the upper end of its cell: at most 41 %
// too large. Zero without requests.
func (r *reading) quantile(q float64) time.Duration {
	total := uint64(0)
	for _, n := range r.took {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, sum := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i, n := range r.took {
		if sum += n; sum >= rank {
			return time.Duration(math.Exp2(float64(i+1)/2) * float64(time.Microsecond))
		}
	}
	return 0
}

// newest are the scores of the last n rows, as far as they are kept.
func (l *live) newest(n uint64) []float64 {
	n = min(n, scoresKept, l.scored.Load())
	end := l.scored.Load()
	out := make([]float64, 0, n)
	for i := end - n; i < end; i++ {
		if v := float64(math.Float32frombits(l.scores[i%scoresKept].Load())); !math.IsNaN(v) {
			out = append(out, v)
		}
	}
	return out
}

// psiCells is the number of quantile cells of the population stability index.
const psiCells = 10

// psi is the population stability index of arm against control over control's
// deciles, less what chance alone makes of samples of this size.
func psi(arm, control []float64) float64 {
	if len(arm) < psiCells || len(control) < psiCells {
		return 0
	}
	sorted := slices.Clone(control)
	slices.Sort(sorted)
	var edges []float64
	for i := 1; i < psiCells; i++ {
		if e := sorted[i*len(sorted)/psiCells]; len(edges) == 0 || e > edges[len(edges)-1] {
			edges = append(edges, e)
		}
	}
	p, q := shares(arm, edges), shares(control, edges)
	sum := 0.0
	for i := range p {
		sum += (p[i] - q[i]) * math.Log(p[i]/q[i])
	}
	chance := float64(len(edges)) * (1/float64(len(arm)) + 1/float64(len(control)))
	return max(0, sum-chance)
}

// shares counts values between edges; an empty cell counts as half a value.
func shares(values, edges []float64) []float64 {
	out := make([]float64, len(edges)+1)
	for i := range out {
		out[i] = 0.5
	}
	for _, v := range values {
		at, _ := slices.BinarySearch(edges, math.Nextafter(v, math.Inf(1)))
		out[at]++
	}
	for i := range out {
		out[i] /= float64(len(values)) + 0.5*float64(len(out))
	}
	return out
}
