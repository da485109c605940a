package serving

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
)

// Split is one arm of a rollout: a version and its share of the traffic.
type Split struct {
	Version string  `json:"version" yaml:"version"`
	Variant string  `json:"variant" yaml:"variant"` // name on the record; defaults to champion, canary or the arm's own
	Weight  float64 `json:"weight" yaml:"weight"`   // share in (0, 1)
}

// Experiment splits traffic by entity, so that the same entity always meets
// the same arm. Its weights are relative to their sum.
type Experiment struct {
	Name string  `json:"name" yaml:"name"`
	Salt string  `json:"salt" yaml:"salt"` // defaults to Name; change it to shuffle the entities anew
	Arms []Split `json:"arms" yaml:"arms"`
}

// Routing says which versions of one model answer. It is immutable once in
// use; a change is a new Routing that takes the old one's place.
type Routing struct {
	Champion   string      `json:"champion" yaml:"champion"`
	Canary     *Split      `json:"canary,omitempty" yaml:"canary,omitempty"`
	Experiment *Experiment `json:"experiment,omitempty" yaml:"experiment,omitempty"`
	Shadows    []string    `json:"shadows,omitempty" yaml:"shadows,omitempty"` // compute and record, never answer
}

// Variants that have no name of their own.
const (
	VariantChampion = "champion"
	VariantCanary   = "canary"
	VariantPinned   = "pinned"
	VariantShadow   = "shadow"
)

// Choice is where one request goes.
type Choice struct {
	Version string
	Variant string
}

// Validate joins all faults of a routing.
func (r *Routing) Validate() error {
	var faults []error
	if r.Champion == "" {
		faults = append(faults, errors.New("routing: champion is empty: name the version that answers"))
	}
	if r.Canary != nil {
		faults = append(faults, checkSplit("canary", *r.Canary)...)
		if r.Canary.Weight >= 1 {
			faults = append(faults, fmt.Errorf("routing: canary weight is %v: want less than 1, or make it the champion", r.Canary.Weight))
		}
	}
	if r.Experiment != nil {
		faults = append(faults, r.Experiment.check()...)
	}
	if r.Canary != nil && r.Experiment != nil {
		faults = append(faults, errors.New("routing: canary and experiment at once: their readings would mix, choose one"))
	}
	return errors.Join(faults...)
}

func checkSplit(what string, s Split) (faults []error) {
	if s.Version == "" {
		faults = append(faults, fmt.Errorf("routing: %s names no version", what))
	}
	if !(s.Weight > 0) || math.IsInf(s.Weight, 0) {
		faults = append(faults, fmt.Errorf("routing: weight of %s is %v: want more than 0", what, s.Weight))
	}
	return faults
}

func (e *Experiment) check() (faults []error) {
	if e.Name == "" || len(e.Arms) < 2 {
		faults = append(faults, errors.New("routing: an experiment has a name and at least two arms"))
	}
	seen := map[string]bool{}
	for i, a := range e.Arms {
		faults = append(faults, checkSplit(fmt.Sprintf("arm %d of %s", i, e.Name), a)...)
		if a.Variant == "" || seen[a.Variant] {
			faults = append(faults, fmt.Errorf("routing: arm %d of %s needs a variant name of its own", i, e.Name))
		}
		seen[a.Variant] = true
	}
	return faults
}

// Versions lists every version that the routing may call, each once.
func (r *Routing) Versions() []string {
	all := []string{r.Champion}
	if r.Canary != nil {
		all = append(all, r.Canary.Version)
	}
	if r.Experiment != nil {
		for _, a := range r.Experiment.Arms {
			all = append(all, a.Version)
		}
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range append(all, r.Shadows...) {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

// Route chooses by the first rule that applies: a version pinned by the
// caller, the experiment (by the entity's key, or by the request when it has
// none), the canary by weight, the champion. request is a random number that
// belongs to this request.
func (r *Routing) Route(pinned, entity string, request uint64) Choice {
	switch {
	case pinned != "":
		return Choice{pinned, VariantPinned}
	case r.Experiment != nil:
		return r.Experiment.arm(entity, request)
	case r.Canary != nil && unit(request) < r.Canary.Weight:
		return Choice{r.Canary.Version, orElse(r.Canary.Variant, VariantCanary)}
	}
	return Choice{r.Champion, VariantChampion}
}

func (e *Experiment) arm(entity string, request uint64) Choice {
	at := unit(request)
	if entity != "" {
		at = unit(mix(orElse(e.Salt, e.Name), entity))
	}
	sum := 0.0
	for _, a := range e.Arms {
		sum += a.Weight
	}
	at *= sum
	for _, a := range e.Arms {
		if at < a.Weight {
			return Choice{a.Version, a.Variant}
		}
		at -= a.Weight
	}
	last := e.Arms[len(e.Arms)-1] // rounding left a sliver
	return Choice{last.Version, last.Variant}
}

// mix hashes salt and entity as two strings, so that ("a", "bc") and ("ab",
// "c") differ; the finaliser (of SplitMix64) spreads FNV's weak high bits.
func mix(salt, entity string) uint64 {
	h := fnv.New64a()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(salt)))
	h.Write(n[:])
	h.Write([]byte(salt))
	h.Write([]byte(entity))
	x := h.Sum64()
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps 64 random bits to [0, 1).
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
