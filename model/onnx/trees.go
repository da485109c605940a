package onnx

import (
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/model/tree"
)

// Trees writes a tree ensemble.
func Trees(e *tree.Ensemble) ([]byte, error) {
	var g graph
	var f forest
	for n := range e.All() {
		f.add(n)
	}
	g.node(mlDomain, "TreeEnsembleRegressor", []string{"rows"}, "margin", f.attributes(e)...)
	if err := link(&g, e.Objective()); err != nil {
		return nil, fmt.Errorf("write ONNX: %w", err)
	}
	return g.model(e.Features(), e.Outputs()), nil
}

// link adds what turns margins into predictions.
func link(g *graph, objective string) error {
	switch objective {
	case "reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "binary:logitraw":
		g.op("Identity", "output", "margin")
	case "binary:logistic", "reg:logistic":
		g.op("Sigmoid", "output", "margin")
	case "count:poisson", "reg:gamma", "reg:tweedie":
		g.op("Exp", "output", "margin")
	case "binary:hinge":
		zero := g.floats("zero", nil, []float32{0})
		g.op("Greater", "positive", "margin", zero)
		g.node("", "Cast", []string{"positive"}, "output", intAttr("to", typeFloat))
	case "multi:softprob":
		g.node("", "Softmax", []string{"margin"}, "output", intAttr("axis", 1))
	case "multi:softmax":
		g.node("", "ArgMax", []string{"margin"}, "class", intAttr("axis", 1), intAttr("keepdims", 1))
		g.node("", "Cast", []string{"class"}, "output", intAttr("to", typeFloat))
	default:
		return fmt.Errorf("objective %q has no ONNX form here", objective)
	}
	return nil
}

// forest collects the parallel arrays of TreeEnsembleRegressor.
type forest struct {
	trees, ids, features, yes, no, tracks []int64
	values                                []float32
	modes                                 []string
	leafTrees, leafIDs, leafTargets       []int64
	weights                               []float32
	tree, extra                           int64 // the tree being written, and its next free node number
}

func (f *forest) add(n tree.Node) {
	if t := int64(n.Tree); t != f.tree || len(f.ids) == 0 {
		f.tree, f.extra = t, int64(n.Size)
	}
	switch {
	case n.Leaf:
		f.put(n, int64(n.ID), "LEAF", 0, 0, 0, false)
		f.leafTrees = append(f.leafTrees, int64(n.Tree))
		f.leafIDs = append(f.leafIDs, int64(n.ID))
		f.leafTargets = append(f.leafTargets, int64(n.Group))
		f.weights = append(f.weights, n.Value)
	case n.Categorical:
		f.chain(n)
	default:
		f.put(n, int64(n.ID), "BRANCH_LT", n.Condition, int64(n.Left), int64(n.Right), n.MissingLeft)
	}
}

// chain writes a categorical split as one equality after the other, all of
// which lead to the right child: set membership has no operator before
// ai.onnx.ml 5, and runtimes know this form from LightGBM's converter. The
// empty set is a comparison nothing passes.
func (f *forest) chain(n tree.Node) {
	id := int64(n.ID)
	if len(n.Categories) == 0 {
		f.put(n, id, "BRANCH_LT", float32(math.Inf(-1)), int64(n.Right), int64(n.Left), !n.MissingLeft)
		return
	}
	for i, c := range n.Categories {
		next := int64(n.Left)
		if i+1 < len(n.Categories) {
			next = f.extra
			f.extra++
		}
		f.put(n, id, "BRANCH_EQ", float32(c), int64(n.Right), next, !n.MissingLeft)
		id = next
	}
}

func (f *forest) put(n tree.Node, id int64, mode string, value float32, yes, no int64, missingYes bool) {
	f.trees = append(f.trees, int64(n.Tree))
	f.ids = append(f.ids, id)
	f.features = append(f.features, int64(n.Feature))
	f.modes = append(f.modes, mode)
	f.values = append(f.values, value)
	f.yes, f.no = append(f.yes, yes), append(f.no, no)
	tracks := int64(0)
	if missingYes {
		tracks = 1
	}
	f.tracks = append(f.tracks, tracks)
}

func (f *forest) attributes(e *tree.Ensemble) []message {
	return []message{
		intAttr("n_targets", int64(e.Groups())),
		floatsAttr("base_values", e.Base()),
		stringAttr("aggregate_function", "SUM"),
		stringAttr("post_transform", "NONE"),
		intsAttr("nodes_treeids", f.trees),
		intsAttr("nodes_nodeids", f.ids),
		intsAttr("nodes_featureids", f.features),
		stringsAttr("nodes_modes", f.modes),
		floatsAttr("nodes_values", f.values),
		intsAttr("nodes_truenodeids", f.yes),
		intsAttr("nodes_falsenodeids", f.no),
		intsAttr("nodes_missing_value_tracks_true", f.tracks),
		intsAttr("target_treeids", f.leafTrees),
		intsAttr("target_nodeids", f.leafIDs),
		intsAttr("target_ids", f.leafTargets),
		floatsAttr("target_weights", f.weights),
	}
}
