package tree

import "fmt"

// Contributions writes, per row and group, Features()+1 numbers: how far each
// feature moved the margin from its mean over the training rows, and last the
// mean itself. They sum to the margin. out holds
// rows × Groups() × (Features()+1) values.
//
// The method is path-dependent TreeSHAP (Lundberg et al., "Consistent
// Individualized Feature Attribution for Tree Ensembles", 2018, algorithm 2),
// the one behind XGBoost's pred_contribs. It works in float64, so it agrees
// with XGBoost's float32 to about 1e-5 of the margin's size.
func (e *Ensemble) Contributions(out []float64, rows []float32) {
	n := rowCount(rows, e.features)
	width := e.groups * (e.features + 1)
	out = out[:n*width]
	clear(out)
	s := e.scratch.Get().(*scratch)
	defer e.scratch.Put(s)
	for i := range n {
		widen(s.wide, rows[i*e.features:(i+1)*e.features], e.features)
		e.contribute(out[i*width:(i+1)*width], s)
	}
}

func (e *Ensemble) contribute(out []float64, s *scratch) {
	width := e.features + 1
	for g, b := range e.base {
		out[(g+1)*width-1] = float64(b)
	}
	for t, r := range e.roots {
		phi := out[int(r.group)*width : (int(r.group)+1)*width]
		phi[e.features] += e.means[t]
		if r.depth > 0 {
			w := shapWalk{e: e, row: s.wide, phi: phi, path: s.path}
			w.descend(r.node, 0, 0, 1, 1, -1)
		}
	}
}

// pathStep is one feature on the way from the root to a node: the fraction of
// training rows that flow on when the feature is unknown, whether this row
// flows on, and the weight of subsets of each size.
type pathStep struct {
	feature int32
	zero    float64
	one     float64
	weight  float64
}

// shapWalk credits one tree to one row. Its path holds the steps of all levels,
// one level behind the other.
type shapWalk struct {
	e    *Ensemble
	row  []float32 // widened
	phi  []float64
	path []pathStep
}

// descend visits a node whose parent's path is the n steps that begin at from.
func (w *shapWalk) descend(at uint32, from, n int, zero, one float64, feature int32) {
	parent := w.path[from : from+n]
	path := w.path[from+n : from+n+n+1]
	copy(path, parent)
	extend(path, zero, one, feature)
	nd := &w.e.nodes[at]
	if nd.leaf(at) {
		w.settle(path, float64(nd.value))
		return
	}
	f := int32(w.e.featureOf(nd))
	hot := nd.child[w.e.decide(nd, w.row)&1]
	cold := nd.child[0] ^ nd.child[1] ^ hot
	inZero, inOne := 1.0, 1.0
	last := n
	for k := 1; k <= n; k++ {
		if path[k].feature == f { // met before: undo it and carry its fractions on
			inZero, inOne = path[k].zero, path[k].one
			unwind(path, k)
			last--
			break
		}
	}
	begin := from + n
	w.descend(hot, begin, last+1, inZero*w.e.share(at, hot), inOne, f)
	w.descend(cold, begin, last+1, inZero*w.e.share(at, cold), 0, f)
}

// share is the fraction of a node's training weight that went on to a child.
// A node without any (saturated gradients) shares evenly.
func (e *Ensemble) share(parent, child uint32) float64 {
	if c := e.cover[parent]; c > 0 {
		return float64(e.cover[child]) / float64(c)
	}
	return 0.5
}

// settle credits a leaf to every feature on its path.
func (w *shapWalk) settle(path []pathStep, leaf float64) {
	for k := 1; k < len(path); k++ {
		p := &path[k]
		w.phi[p.feature] += unwoundSum(path, k) * (p.one - p.zero) * leaf
	}
}

// extend appends a step to the path that fills all but the last place.
func extend(path []pathStep, zero, one float64, feature int32) {
	d := len(path) - 1
	path[d] = pathStep{feature: feature, zero: zero, one: one}
	if d == 0 {
		path[d].weight = 1
	}
	for i := d - 1; i >= 0; i-- {
		path[i+1].weight += one * path[i].weight * float64(i+1) / float64(d+1)
		path[i].weight *= zero * float64(d-i) / float64(d+1)
	}
}

// unwind takes step k out again; the last place becomes free.
func unwind(path []pathStep, k int) {
	d := len(path) - 1
	one, zero := path[k].one, path[k].zero
	next := path[d].weight
	for i := d - 1; i >= 0; i-- {
		if one != 0 {
			w := path[i].weight
			path[i].weight = next * float64(d+1) / (float64(i+1) * one)
			next = w - path[i].weight*zero*float64(d-i)/float64(d+1)
		} else {
			path[i].weight = path[i].weight * float64(d+1) / (zero * float64(d-i))
		}
	}
	for i := k; i < d; i++ {
		path[i].feature, path[i].zero, path[i].one = path[i+1].feature, path[i+1].zero, path[i+1].one
	}
}

// unwoundSum is the sum of weights the path would have without step k.
func unwoundSum(path []pathStep, k int) float64 {
	d := len(path) - 1
	one, zero := path[k].one, path[k].zero
	next, total := path[d].weight, 0.0
	for i := d - 1; i >= 0; i-- {
		switch {
		case one != 0:
			w := next * float64(d+1) / (float64(i+1) * one)
			total += w
			next = path[i].weight - w*zero*float64(d-i)/float64(d+1)
		case zero != 0:
			total += path[i].weight / (zero * float64(d-i) / float64(d+1))
		}
	}
	return total
}

// finish computes what contributions need of the whole ensemble: every tree's
// mean over the training rows, and room for the deepest path.
func (e *Ensemble) finish() error {
	depth := 0
	for i, r := range e.roots {
		depth = max(depth, int(r.depth))
		end := len(e.nodes)
		if i+1 < len(e.roots) {
			end = int(e.roots[i+1].node)
		}
		m, err := e.mean(int(r.node), end)
		if err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
		e.means = append(e.means, m)
	}
	e.full = e.fill()
	e.scratch.New = func() any { return newScratch(e.features, depth) }
	return nil
}

// mean averages a tree's leaves by the training rows in them. Nodes are laid
// out breadth first, so children come before parents from the back.
func (e *Ensemble) mean(begin, end int) (float64, error) {
	means := make([]float64, end-begin)
	for i := end - 1; i >= begin; i-- {
		n := &e.nodes[i]
		if n.leaf(uint32(i)) {
			means[i-begin] = float64(n.value)
			continue
		}
		if !(e.cover[i] >= 0) {
			return 0, fmt.Errorf("%w: node %d has sum_hessian %v", ErrFormat, i-begin, e.cover[i])
		}
		for _, c := range n.child {
			means[i-begin] += e.share(uint32(i), c) * means[int(c)-begin]
		}
	}
	return means[0], nil
}
