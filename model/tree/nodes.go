package tree

import (
	"iter"
	"math"
)

// Node is one node of one tree as XGBoost means it, for writers of other
// formats. Numbers of nodes and trees count from 0; a tree's root is node 0.
type Node struct {
	Tree, ID    int
	Size        int  // number of nodes of the tree
	Group       int  // the margin that the tree adds to
	Leaf        bool // Value holds; else the rest does
	Value       float32
	Feature     int
	Condition   float32 // numeric: x < Condition goes left
	Left, Right int
	MissingLeft bool
	Categories  []uint32 // categorical: members go right; nil for a numeric split
	Categorical bool
}

// Base returns the margin of each group before any tree.
func (e *Ensemble) Base() []float32 { return append([]float32(nil), e.base...) }

// All yields every node, tree after tree, parents before their children.
func (e *Ensemble) All() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for t, r := range e.roots {
			end := len(e.nodes)
			if t+1 < len(e.roots) {
				end = int(e.roots[t+1].node)
			}
			for i := int(r.node); i < end; i++ {
				if !yield(e.export(t, r, i, end)) {
					return
				}
			}
		}
	}
}

func (e *Ensemble) export(t int, r root, i, end int) Node {
	n := &e.nodes[i]
	out := Node{Tree: t, ID: i - int(r.node), Size: end - int(r.node), Group: int(r.group)}
	if n.leaf(uint32(i)) {
		out.Leaf, out.Value = true, n.value
		return out
	}
	left, right := int(n.child[0]-r.node), int(n.child[1]-r.node)
	out.MissingLeft = n.split&swapped == 0
	if !out.MissingLeft {
		left, right = right, left
	}
	out.Feature, out.Left, out.Right = e.featureOf(n), left, right
	if n.split&categorical != 0 {
		out.Categorical = true
		out.Categories = e.members(n.catAt())
		return out
	}
	out.Condition = n.value
	if !out.MissingLeft {
		out.Condition = above(-n.value)
	}
	return out
}

// above undoes [below].
func above(c float32) float32 {
	if c != c {
		return float32(math.Inf(-1))
	}
	return math.Nextafter32(c, float32(math.Inf(1)))
}

// members lists the categories of the set that begins at words[at].
func (e *Ensemble) members(at uint32) []uint32 {
	var out []uint32
	for code := range e.words[at] * 32 {
		if e.inSet(at, float32(code)) {
			out = append(out, code)
		}
	}
	return out
}
