package tree

// Rows walk one tree together before the next tree is fetched. A block of rows
// should stay in the first-level cache beside a tree of depth 6 (2 KB).
const (
	blockRows  = 64
	blockBytes = 32 << 10
)

// fixedDepth is the depth up to which a walk always takes all steps. Deeper
// trees are rarely balanced: there it pays to stop at the leaf.
const fixedDepth = 12

// rowsPerBlock is how many rows of some width fit a block, at least the four
// that walk abreast.
func rowsPerBlock(features int) int {
	return min(blockRows, max(4, blockBytes/(8*features)))
}

// widen copies rows into dst, each followed by its negation. See side.
func widen(dst, rows []float32, features int) {
	for len(rows) >= features {
		plain, negated := dst[:features], dst[features:2*features]
		for i, v := range rows[:features] {
			plain[i], negated[i] = v, -v
		}
		rows, dst = rows[features:], dst[2*features:]
	}
}

// side is the branch-free decision of a numeric split: which child comes next.
//
// A comparison with NaN is false, so a missing value always takes child 0, and
// nodes are laid out so that this is their default side. Where the default is
// right, the children are swapped and both sides of the comparison negated:
// v < c is -v ≥ c' with c' = -(the float below c). The negated values stand in
// the second half of a widened row, so the decision stays one comparison.
func side(v, condition float32) uint32 {
	if v >= condition {
		return 1
	}
	return 0
}

// marginsBlock adds all trees to the widened rows of one block.
func (e *Ensemble) marginsBlock(out, wide []float32) {
	for _, r := range e.roots {
		if r.cats || r.depth > fixedDepth {
			e.addSlow(out, wide, r)
		} else {
			e.addAbreast(out, wide, r)
		}
	}
}

// addAbreast adds one numeric tree to rows, four rows abreast so
// that their loads overlap.
func (e *Ensemble) addAbreast(out, wide []float32, r root) {
	nodes, f, g := e.nodes, 2*e.features, e.groups
	n := len(out) / g
	i := 0
	for ; i+4 <= n; i += 4 {
		a, b := wide[(i+0)*f:(i+1)*f], wide[(i+1)*f:(i+2)*f]
		c, d := wide[(i+2)*f:(i+3)*f], wide[(i+3)*f:(i+4)*f]
		na, nb, nc, nd := r.node, r.node, r.node, r.node
		for range r.depth {
			pa, pb, pc, pd := &nodes[na], &nodes[nb], &nodes[nc], &nodes[nd]
			na = pa.child[side(a[pa.split&featureMask], pa.value)&1]
			nb = pb.child[side(b[pb.split&featureMask], pb.value)&1]
			nc = pc.child[side(c[pc.split&featureMask], pc.value)&1]
			nd = pd.child[side(d[pd.split&featureMask], pd.value)&1]
		}
		at := out[i*g+int(r.group):]
		at[0] += nodes[na].value
		at[g] += nodes[nb].value
		at[2*g] += nodes[nc].value
		at[3*g] += nodes[nd].value
	}
	e.addSlow(out[i*g:], wide[i*f:], r)
}

// addSlow adds one tree row by row: any kind of split, stopping at the leaf.
func (e *Ensemble) addSlow(out, wide []float32, r root) {
	f, g := 2*e.features, e.groups
	for i := range len(out) / g {
		out[i*g+int(r.group)] += e.nodes[e.leafOf(r, wide[i*f:(i+1)*f])].value
	}
}

// leafOf walks one tree to the leaf of one row.
func (e *Ensemble) leafOf(r root, row []float32) uint32 {
	at := r.node
	for {
		n := &e.nodes[at]
		next := n.child[e.decide(n, row)&1]
		if next == at {
			return at
		}
		at = next
	}
}

// decide is one split of any kind: which child comes next.
func (e *Ensemble) decide(n *node, row []float32) uint32 {
	v := row[n.split&featureMask]
	if n.split&categorical == 0 {
		return side(v, n.value)
	}
	member := e.inSet(n.catAt(), v)
	if v != v || member == (n.split&swapped != 0) { // members go right: child 0 when swapped
		return 0
	}
	return 1
}

// marginsOne adds all trees to a single row, four trees abreast; the sums are
// made in the order of the trees.
func (e *Ensemble) marginsOne(out, row []float32) {
	nodes := e.nodes
	roots := e.roots
	for len(roots) >= 4 {
		a, b, c, d := &roots[0], &roots[1], &roots[2], &roots[3]
		depth := max(a.depth, b.depth, c.depth, d.depth)
		if a.cats || b.cats || c.cats || d.cats || depth > fixedDepth {
			e.addOne(out, row, roots[:4])
			roots = roots[4:]
			continue
		}
		na, nb, nc, nd := a.node, b.node, c.node, d.node
		for range depth {
			pa, pb, pc, pd := &nodes[na], &nodes[nb], &nodes[nc], &nodes[nd]
			na = pa.child[side(row[pa.split&featureMask], pa.value)&1]
			nb = pb.child[side(row[pb.split&featureMask], pb.value)&1]
			nc = pc.child[side(row[pc.split&featureMask], pc.value)&1]
			nd = pd.child[side(row[pd.split&featureMask], pd.value)&1]
		}
		out[a.group] += nodes[na].value
		out[b.group] += nodes[nb].value
		out[c.group] += nodes[nc].value
		out[d.group] += nodes[nd].value
		roots = roots[4:]
	}
	e.addOne(out, row, roots)
}

func (e *Ensemble) addOne(out, row []float32, roots []root) {
	for _, r := range roots {
		out[r.group] += e.nodes[e.leafOf(r, row)].value
	}
}
