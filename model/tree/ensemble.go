package tree

import (
	"math"
	"sync"
)

// node is one split or leaf, 16 bytes, four to a cache line.
//
// A leaf is its own child on both sides: walking a tree is then a fixed number
// of steps with no test for "arrived", which lets the processor overlap rows.
// Child 0 is where missing values go.
type node struct {
	value float32 // split condition (see side), or a leaf's value
	split uint32  // index into a widened row, and flags
	child [2]uint32
}

// Flags of node.split.
const (
	swapped     = 1 << 31 // child 0 is the right one, see side
	categorical = 1 << 30
	featureMask = categorical - 1
)

// root says where a tree begins and how far it reaches.
type root struct {
	node  uint32
	depth uint32 // steps from the root to the deepest leaf
	group uint32 // the output that the tree adds to
	cats  bool   // some split of the tree is categorical
}

// Ensemble is a tree model ready to predict. It is immutable and safe for concurrent use.
type Ensemble struct {
	objective string
	features  int
	groups    int // trees per round = margins per row
	link      link
	base      []float32 // margin per group before any tree
	roots     []root
	nodes     []node
	full      *full     // of shallow numeric trees; nil: walk the nodes
	cover     []float32 // sum of hessians per node, for contributions
	gain      []float32 // loss reduction per node, 0 at leaves
	words     []uint32  // category sets, see inSet
	names     []string  // feature names of the file, or nil
	types     []string  // feature types of the file ("float", "int", "i", "q", "c"), or nil
	means     []float64 // per tree, over the training rows
	scratch   sync.Pool // *scratch
}

// Objective is XGBoost's name of what was trained.
func (e *Ensemble) Objective() string { return e.objective }

// Features is the number of inputs of a row.
func (e *Ensemble) Features() int { return e.features }

// Outputs is the number of values predicted per row.
func (e *Ensemble) Outputs() int { return e.link.outputs(e.groups) }

// Groups is the number of margins per row; contributions come per group.
func (e *Ensemble) Groups() int { return e.groups }

// Trees is the number of trees.
func (e *Ensemble) Trees() int { return len(e.roots) }

// Nodes is the number of nodes of all trees.
func (e *Ensemble) Nodes() int { return len(e.nodes) }

// FeatureNames returns the file's feature names; nil when it has none.
func (e *Ensemble) FeatureNames() []string { return e.names }

// FeatureTypes returns the file's feature types; nil when it has none. "c" is a
// categorical feature.
func (e *Ensemble) FeatureTypes() []string { return e.types }

// Predict scores len(rows)/Features() rows of rows into out, Outputs() values a
// row. It panics when the lengths do not agree, as slices do.
func (e *Ensemble) Predict(out, rows []float32) {
	n := rowCount(rows, e.features)
	if e.Outputs() == e.groups {
		e.Margins(out, rows)
		e.link.apply(out[:n*e.groups], e.groups)
		return
	}
	e.predictClass(out[:n], rows)
}

// predictClass answers multi:softmax: the index of the largest margin.
func (e *Ensemble) predictClass(out, rows []float32) {
	var few [64]float32
	margins := few[:]
	if e.groups > len(few) {
		margins = make([]float32, e.groups)
	}
	for i := range out {
		e.Margins(margins, rows[i*e.features:(i+1)*e.features])
		out[i] = argmax(margins[:e.groups])
	}
}

// Margins is Predict without the objective's final transformation: Groups()
// values a row.
func (e *Ensemble) Margins(out, rows []float32) {
	n := rowCount(rows, e.features)
	out = out[:n*e.groups]
	for i := range out {
		out[i] = e.base[i%e.groups]
	}
	s := e.scratch.Get().(*scratch)
	defer e.scratch.Put(s)
	if e.full != nil {
		e.marginsFull(out, rows, s)
		return
	}
	if n == 1 {
		widen(s.wide, rows, e.features)
		e.marginsOne(out, s.wide[:2*e.features])
		return
	}
	block := rowsPerBlock(e.features)
	for start := 0; start < n; start += block {
		end := min(start+block, n)
		widen(s.wide, rows[start*e.features:end*e.features], e.features)
		e.marginsBlock(out[start*e.groups:end*e.groups], s.wide)
	}
}

// marginsFull adds the trees of a shallow ensemble.
func (e *Ensemble) marginsFull(out, rows []float32, s *scratch) {
	block := rowsPerBlock(e.features)
	if len(out) == e.groups {
		spread(s.wide, rows, e.features, block)
		e.full.addRow(out, s.wide)
		return
	}
	for start, n := 0, len(out)/e.groups; start < n; start += block {
		end := min(start+block, n)
		spread(s.wide, rows[start*e.features:end*e.features], e.features, block)
		e.full.addBlock(out[start*e.groups:end*e.groups], s.wide, end-start, e.groups)
	}
}

// Importance returns per feature the mean gain of its splits and their number.
func (e *Ensemble) Importance() (gain []float64, splits []int) {
	gain, splits = make([]float64, e.features), make([]int, e.features)
	for i := range e.nodes {
		if n := &e.nodes[i]; !n.leaf(uint32(i)) {
			f := e.featureOf(n)
			gain[f] += float64(e.gain[i])
			splits[f]++
		}
	}
	for f, n := range splits {
		if n > 0 {
			gain[f] /= float64(n)
		}
	}
	return gain, splits
}

func (n *node) leaf(self uint32) bool { return n.child[0] == self }

// featureOf is the input that a split looks at.
func (e *Ensemble) featureOf(n *node) int {
	f := int(n.split & featureMask)
	if f >= e.features { // the negated half of a widened row
		f -= e.features
	}
	return f
}

// scratch is the working memory of one call.
type scratch struct {
	wide []float32  // the rows of one block, widened
	path []pathStep // of contributions, see shapWalk
}

func newScratch(features, depth int) *scratch {
	return &scratch{
		wide: make([]float32, 2*features*rowsPerBlock(features)),
		path: make([]pathStep, (depth+2)*(depth+3)/2),
	}
}

func rowCount(rows []float32, features int) int {
	if features == 0 {
		return 0
	}
	return len(rows) / features
}

func argmax(v []float32) float32 {
	best := 0
	for i := range v {
		if v[i] > v[best] {
			best = i
		}
	}
	return float32(best)
}

// inSet reports whether a category is in the set that begins at words[at]: the
// number of 32-bit words, then the words. Categories outside are in no set,
// and neither is what XGBoost calls invalid.
func (e *Ensemble) inSet(at uint32, v float32) bool {
	const invalid = 1 << 24 // the first integer that float32 cannot tell from the next
	if v < 0 || v >= invalid {
		return false
	}
	code := uint32(v)
	if code>>5 >= e.words[at] {
		return false
	}
	return e.words[at+1+code>>5]&(1<<(code&31)) != 0
}

// catAt is where a categorical node's set begins; the node keeps it where a
// numeric split keeps its condition.
func (n *node) catAt() uint32 { return math.Float32bits(n.value) }
