package tree

import (
	"fmt"
	"math"
)

// add compiles one tree of the file onto the ensemble. Nodes are laid out
// breadth first from the root; what the root does not reach is left out.
func (e *Ensemble) add(t *fileTree, group uint32, lim Limits) error {
	if err := t.check(e.features); err != nil {
		return err
	}
	if len(e.nodes)+len(t.Left) > lim.Nodes {
		return fmt.Errorf("%w: more than %d nodes", ErrTooLarge, lim.Nodes)
	}
	sets, err := e.addSets(t, lim)
	if err != nil {
		return err
	}
	r := root{node: uint32(len(e.nodes)), group: group, cats: len(sets) > 0}
	order, depth, err := t.breadthFirst()
	if err != nil {
		return err
	}
	r.depth = depth
	place := make([]uint32, len(t.Left))
	for i, old := range order {
		place[old] = r.node + uint32(i)
	}
	for _, old := range order {
		n, err := t.node(e.features, old, place, sets)
		if err != nil {
			return err
		}
		e.nodes = append(e.nodes, n)
		e.cover = append(e.cover, t.Hessian[old])
		e.gain = append(e.gain, t.Gain[old])
	}
	e.roots = append(e.roots, r)
	return nil
}

// check compares all lengths before anything is indexed.
func (t *fileTree) check(features int) error {
	if s := t.Param.LeafSize; s != "" && s != "0" && s != "1" {
		return fmt.Errorf("%w: leaves of %s values (multi_strategy multi_output_tree): train one output per tree", ErrUnsupported, s)
	}
	n := len(t.Left)
	if n == 0 || n > math.MaxInt32 {
		return fmt.Errorf("%w: a tree of %d nodes", ErrFormat, n)
	}
	if t.SplitType == nil { // files before 1.3 have none
		t.SplitType = make([]int, n)
	}
	for _, l := range []int{len(t.Right), len(t.Index), len(t.Condition), len(t.SplitType), len(t.Default), len(t.Hessian), len(t.Gain)} {
		if l != n {
			return fmt.Errorf("%w: arrays of %d and %d nodes in one tree", ErrFormat, n, l)
		}
	}
	for i, f := range t.Index {
		if t.Left[i] >= 0 && int64(f) >= int64(features) {
			return fmt.Errorf("%w: node %d splits on feature %d of %d", ErrFormat, i, f, features)
		}
	}
	return nil
}

// breadthFirst returns the reachable nodes in order and the tree's depth. A
// node met twice is a cycle or a shared subtree, and refused.
func (t *fileTree) breadthFirst() (order []int32, depth uint32, err error) {
	seen := make([]bool, len(t.Left))
	order = append(order, 0)
	seen[0] = true
	for begin := 0; ; depth++ {
		end := len(order)
		for _, at := range order[begin:end] {
			l, r := t.Left[at], t.Right[at]
			if l < 0 && r < 0 {
				continue
			}
			for _, c := range [2]int32{l, r} {
				if c < 0 || int(c) >= len(seen) || seen[c] {
					return nil, 0, fmt.Errorf("%w: node %d has child %d, which is no node or has a parent already", ErrFormat, at, c)
				}
				seen[c] = true
				order = append(order, c)
			}
		}
		if begin = end; end == len(order) {
			return order, depth, nil
		}
	}
}

// node compiles one node; place maps the file's node numbers to ours.
func (t *fileTree) node(features int, old int32, place []uint32, sets map[int32]uint32) (node, error) {
	if t.Left[old] < 0 {
		self := place[old]
		return node{value: t.Condition[old], child: [2]uint32{self, self}}, nil
	}
	n := node{
		value: t.Condition[old],
		split: t.Index[old],
		child: [2]uint32{place[t.Left[old]], place[t.Right[old]]},
	}
	if t.SplitType[old] == 1 {
		at, ok := sets[old]
		if !ok {
			return n, fmt.Errorf("%w: node %d is categorical but has no categories", ErrFormat, old)
		}
		n.split |= categorical
		n.value = math.Float32frombits(at)
	}
	if t.Default[old] {
		return n, nil
	}
	n.split |= swapped
	n.child[0], n.child[1] = n.child[1], n.child[0]
	if t.SplitType[old] != 1 {
		n.split += uint32(features)
		n.value = -below(n.value)
	}
	return n, nil
}

// below is the next smaller float; nothing is below -Inf, so NaN there.
func below(c float32) float32 {
	if math.IsInf(float64(c), -1) {
		return float32(math.NaN())
	}
	return math.Nextafter32(c, float32(math.Inf(-1)))
}

// addSets turns the tree's category lists into bit sets and returns where each
// node's set begins.
func (e *Ensemble) addSets(t *fileTree, lim Limits) (map[int32]uint32, error) {
	if len(t.CatBegin) != len(t.CatNodes) || len(t.CatSize) != len(t.CatNodes) {
		return nil, fmt.Errorf("%w: category arrays of different length", ErrFormat)
	}
	sets := make(map[int32]uint32, len(t.CatNodes))
	for i, at := range t.CatNodes {
		begin, size := t.CatBegin[i], t.CatSize[i]
		if begin < 0 || size < 0 || begin > len(t.Categories) || size > len(t.Categories)-begin {
			return nil, fmt.Errorf("%w: categories %d+%d of %d", ErrFormat, begin, size, len(t.Categories))
		}
		if at < 0 || int(at) >= len(t.Left) {
			return nil, fmt.Errorf("%w: categories for node %d of %d", ErrFormat, at, len(t.Left))
		}
		var err error
		if sets[at], err = e.addSet(t.Categories[begin:begin+size], lim); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

func (e *Ensemble) addSet(members []uint32, lim Limits) (uint32, error) {
	var words uint32
	for _, m := range members {
		if m >= 1<<24 {
			return 0, fmt.Errorf("%w: category %d", ErrFormat, m)
		}
		words = max(words, m>>5+1)
	}
	at := len(e.words)
	if at+1+int(words) > lim.SetWords {
		return 0, fmt.Errorf("%w: category sets of more than %d words", ErrTooLarge, lim.SetWords)
	}
	e.words = append(e.words, words)
	e.words = append(e.words, make([]uint32, words)...)
	for _, m := range members {
		e.words[at+1+int(m>>5)] |= 1 << (m & 31)
	}
	return uint32(at), nil
}
