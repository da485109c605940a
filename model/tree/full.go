package tree

import "math"

// fullDepth is the depth up to which trees are also kept as full ones, and
// fullWaste how many times their nodes that may take.
const (
	fullDepth = 8
	fullWaste = 8
)

// full is an ensemble of shallow numeric trees, each filled up to one depth: a
// child's place follows from its parent's, so that a node is half as large, and
// all rows of a block take one step of a tree, or one row one step of many trees,
// before any takes the next. These steps do not wait for each other.
//
// A leaf above the last level is filled up with splits that go left whatever the
// value, also a missing one.
type full struct {
	depth  int        // steps from any root to any leaf
	nodes  []fullNode // 2^depth − 1 a tree, level after level
	leaves []float32  // 2^depth a tree
	trees  []fullTree
}

type fullNode struct {
	value float32 // condition, see side
	at    uint32  // where the input's values begin in a block
}

type fullTree struct {
	depth int // below it, all go left
	group int // the output that the tree adds to
}

// fill makes the full trees of an ensemble; nil where some tree is deep, splits on
// categories, or the trees are so uneven that full ones would waste memory.
func (e *Ensemble) fill() *full {
	f := &full{}
	for _, r := range e.roots {
		if r.cats || r.depth > fullDepth {
			return nil
		}
		f.depth = max(f.depth, int(r.depth))
		f.trees = append(f.trees, fullTree{int(r.depth), int(r.group)})
	}
	if len(e.roots)<<(f.depth+1) > fullWaste*len(e.nodes) {
		return nil
	}
	f.nodes = make([]fullNode, len(e.roots)*(1<<f.depth-1))
	f.leaves = make([]float32, len(e.roots)<<f.depth)
	for t, r := range e.roots {
		e.fillFrom(f, t, 0, 0, r.node)
	}
	return f
}

// fillFrom fills a full tree from one of its places on: number place of a level.
func (e *Ensemble) fillFrom(f *full, t, level, place int, from uint32) {
	n := &e.nodes[from]
	if level == f.depth {
		f.leaves[t<<f.depth+place] = n.value
		return
	}
	to := &f.nodes[t*(1<<f.depth-1)+1<<level-1+place]
	left, right := n.child[0], n.child[1]
	if n.leaf(from) {
		to.value = float32(math.NaN())
	} else {
		to.value, to.at = n.value, (n.split&featureMask)*uint32(rowsPerBlock(e.features))
	}
	e.fillFrom(f, t, level+1, 2*place, left)
	e.fillFrom(f, t, level+1, 2*place+1, right)
}

// spread copies rows into a block, input after input, and after them all their
// negations. See side.
func spread(block, rows []float32, features, stride int) {
	for i := 0; len(rows) >= features; i++ {
		plain, negated := i, i+features*stride
		for _, v := range rows[:features] {
			block[plain], block[negated] = v, -v
			plain, negated = plain+stride, negated+stride
		}
		rows = rows[features:]
	}
}

// addBlock adds all trees to n rows of a block.
func (f *full) addBlock(out, block []float32, n, groups int) {
	var places [blockRows]uint8
	at := places[:n]
	for t := range f.trees {
		tree := &f.trees[t]
		nodes := f.nodes[t*(1<<f.depth-1):]
		clear(at)
		level := 0
		for ; level+2 <= tree.depth; level += 2 {
			first := 1<<level - 1
			descendTwice(at, nodes[first:2*first+1], nodes[2*first+1:4*first+3], block)
		}
		if level < tree.depth {
			first := 1<<level - 1
			descend(at, nodes[first:2*first+1], block)
		}
		leaves, shift := f.leaves[t<<f.depth:(t+1)<<f.depth], uint(f.depth-tree.depth)&7
		for i, p := range at {
			out[i*groups+tree.group] += leaves[p<<shift]
		}
	}
}

// descend takes each row one level down. It stays a call for the sake of its
// registers.
//
//go:noinline
func descend(at []uint8, level []fullNode, block []float32) {
	for i, p := range at {
		n := &level[p]
		at[i] = p<<1 | uint8(side(block[int(n.at)+i], n.value))
	}
}

// descendTwice takes each row two levels down.
//
//go:noinline
func descendTwice(at []uint8, level, next []fullNode, block []float32) {
	for i, p := range at {
		n := &level[p]
		p = p<<1 | uint8(side(block[int(n.at)+i], n.value))
		n = &next[p]
		at[i] = p<<1 | uint8(side(block[int(n.at)+i], n.value))
	}
}

// addRow adds all trees to the only row of a block.
func (f *full) addRow(out, block []float32) {
	var places [64]uint8
	per := 1<<f.depth - 1
	for from := 0; from < len(f.trees); from += len(places) {
		at := places[:min(len(places), len(f.trees)-from)]
		clear(at)
		for level := range f.depth {
			descendTrees(at, f.nodes[from*per+1<<level-1:], per, block)
		}
		leaves := f.leaves[from<<f.depth:]
		for i, p := range at {
			out[f.trees[from+i].group] += leaves[i<<f.depth+int(p)]
		}
	}
}

// descendTrees takes one row one level down in several trees, whose nodes of that
// level begin each some nodes after the other.
//
//go:noinline
func descendTrees(at []uint8, nodes []fullNode, apart int, block []float32) {
	base := 0
	for i, p := range at {
		n := &nodes[base+int(p)]
		at[i] = p<<1 | uint8(side(block[n.at], n.value))
		base += apart
	}
}
