package tree

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrFormat means that bytes are not an XGBoost JSON model, or a damaged one.
var ErrFormat = errors.New("not a valid XGBoost JSON model")

// ErrUnsupported means a valid model of a kind that is not predicted here.
var ErrUnsupported = errors.New("model is not supported")

// ErrTooLarge means that a model is over one of the reader's limits.
var ErrTooLarge = errors.New("model is over the limit")

// Limits bound what a model file may ask for.
type Limits struct {
	Bytes    int // of the JSON text
	Trees    int
	Nodes    int // of all trees together
	Features int
	Groups   int // classes or quantiles
	SetWords int // 32-bit words of all category sets together
}

// DefaultLimits hold models far beyond what one would serve: 256 MB of text,
// 16 million nodes.
func DefaultLimits() Limits {
	return Limits{
		Bytes: 256 << 20, Trees: 1 << 20, Nodes: 16 << 20,
		Features: 1 << 20, Groups: 1 << 14, SetWords: 16 << 20,
	}
}

// The file's shape, as far as it is needed.
type fileModel struct {
	Learner *struct {
		FeatureNames []string `json:"feature_names"`
		FeatureTypes []string `json:"feature_types"`
		Booster      struct {
			Name  string `json:"name"`
			Model struct {
				Param    map[string]string `json:"gbtree_model_param"`
				TreeInfo []int             `json:"tree_info"`
				Trees    []fileTree        `json:"trees"`
			} `json:"model"`
		} `json:"gradient_booster"`
		Param struct {
			BaseScore  string `json:"base_score"`
			NumClass   string `json:"num_class"`
			NumFeature string `json:"num_feature"`
			NumTarget  string `json:"num_target"`
		} `json:"learner_model_param"`
		Objective struct {
			Name string `json:"name"`
		} `json:"objective"`
	} `json:"learner"`
	Version []int `json:"version"`
}

type fileTree struct {
	Left       []int32   `json:"left_children"`
	Right      []int32   `json:"right_children"`
	Index      []uint32  `json:"split_indices"`
	Condition  []float32 `json:"split_conditions"`
	SplitType  []int     `json:"split_type"`
	Default    flags     `json:"default_left"`
	Hessian    []float32 `json:"sum_hessian"`
	Gain       []float32 `json:"loss_changes"`
	Categories []uint32  `json:"categories"`
	CatNodes   []int32   `json:"categories_nodes"`
	CatBegin   []int     `json:"categories_segments"`
	CatSize    []int     `json:"categories_sizes"`
	Param      struct {
		LeafSize string `json:"size_leaf_vector"`
	} `json:"tree_param"`
}

// flags are 0 and 1, or booleans in files of XGBoost 1.x.
type flags []bool

// UnmarshalJSON reads either spelling.
func (f *flags) UnmarshalJSON(b []byte) error {
	var ints []uint16
	if json.Unmarshal(b, &ints) != nil {
		return json.Unmarshal(b, (*[]bool)(f))
	}
	*f = make(flags, len(ints))
	for i, v := range ints {
		(*f)[i] = v != 0
	}
	return nil
}

// Read compiles a model that XGBoost saved as JSON, versions 1.0 to 3.x. All
// of the file's trees are used, also where early stopping found fewer to be
// better: slice the booster before saving it.
//
// Errors wrap [ErrFormat], [ErrUnsupported] or [ErrTooLarge].
func Read(text []byte, lim Limits) (*Ensemble, error) {
	if len(text) > lim.Bytes {
		return nil, fmt.Errorf("read model: %w: %d bytes of at most %d", ErrTooLarge, len(text), lim.Bytes)
	}
	var f fileModel
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("read model: %w: %v", ErrFormat, err)
	}
	e, err := compile(&f, lim)
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	return e, nil
}

func compile(f *fileModel, lim Limits) (*Ensemble, error) {
	e, err := header(f, lim)
	if err != nil {
		return nil, err
	}
	trees := f.Learner.Booster.Model.Trees
	info := f.Learner.Booster.Model.TreeInfo
	if len(info) != len(trees) {
		return nil, fmt.Errorf("%w: %d trees but tree_info has %d entries", ErrFormat, len(trees), len(info))
	}
	for i := range trees {
		if info[i] < 0 || info[i] >= e.groups {
			return nil, fmt.Errorf("%w: tree %d belongs to group %d of %d", ErrFormat, i, info[i], e.groups)
		}
		if err := e.add(&trees[i], uint32(info[i]), lim); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return e, e.finish()
}

// header reads everything but the trees, and checks it.
func header(f *fileModel, lim Limits) (*Ensemble, error) {
	if f.Learner == nil || f.Learner.Booster.Name == "" {
		return nil, fmt.Errorf("%w: no learner or no gradient_booster in it", ErrFormat)
	}
	l := f.Learner
	switch l.Booster.Name {
	case "gbtree":
	case "dart":
		return nil, fmt.Errorf("%w: booster dart: train with booster gbtree", ErrUnsupported)
	default:
		return nil, fmt.Errorf("%w: booster %q: only gbtree is", ErrUnsupported, l.Booster.Name)
	}
	obj, err := objectiveOf(l.Objective.Name)
	if err != nil {
		return nil, err
	}
	e := &Ensemble{objective: l.Objective.Name, link: obj.link, names: l.FeatureNames, types: l.FeatureTypes}
	if err := e.shape(f, lim); err != nil {
		return nil, err
	}
	if e.base, err = baseMargins(l.Param.BaseScore, e.groups, obj); err != nil {
		return nil, err
	}
	return e, nil
}

// shape reads and bounds the numbers of features and groups.
func (e *Ensemble) shape(f *fileModel, lim Limits) error {
	p := f.Learner.Param
	features, err1 := count(p.NumFeature)
	classes, err2 := count(p.NumClass)
	targets, err3 := count(p.NumTarget)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("%w: learner_model_param: %v", ErrFormat, err)
	}
	if targets > 1 && e.objective != "reg:quantileerror" {
		return fmt.Errorf("%w: %d targets: train one model per target", ErrUnsupported, targets)
	}
	e.features, e.groups = features, max(classes, targets, 1)
	if features == 0 {
		return fmt.Errorf("%w: num_feature is 0", ErrFormat)
	}
	trees := len(f.Learner.Booster.Model.Trees)
	if features > lim.Features || e.groups > lim.Groups || trees > lim.Trees {
		return fmt.Errorf("%w: %d features, %d groups, %d trees", ErrTooLarge, features, e.groups, trees)
	}
	if len(e.names) == 0 { // a booster of a bare matrix has an empty list
		e.names = nil
	}
	if n := len(e.names); n != 0 && n != features {
		return fmt.Errorf("%w: %d feature names for %d features", ErrFormat, n, features)
	}
	if n := len(e.types); n != 0 && n != features {
		return fmt.Errorf("%w: %d feature types for %d features", ErrFormat, n, features)
	}
	return nil
}

func count(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 10, 31)
	return int(v), err
}

// baseMargins reads base_score: "5E-1" until XGBoost 3.0, "[5E-1]" or one
// score per group since.
func baseMargins(text string, groups int, obj objective) ([]float32, error) {
	parts := strings.Split(strings.Trim(text, "[]"), ",")
	if len(parts) != 1 && len(parts) != groups {
		return nil, fmt.Errorf("%w: base_score %q for %d groups", ErrFormat, text, groups)
	}
	base := make([]float32, groups)
	for i := range base {
		v, err := strconv.ParseFloat(strings.TrimSpace(parts[i%len(parts)]), 32)
		if err != nil {
			return nil, fmt.Errorf("%w: base_score %q: %v", ErrFormat, text, err)
		}
		base[i] = float32(obj.base(v))
		if base[i]-base[i] != 0 {
			return nil, fmt.Errorf("%w: base_score %q has no finite margin", ErrFormat, text)
		}
	}
	return base, nil
}
