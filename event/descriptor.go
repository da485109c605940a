package event

import (
	"regexp"
	"slices"
)

// Descriptor is what is watched of a text or a list in its place: one number, or
// one word, of each row. It has the name of a column that is none:
// "length(review)".
type Descriptor struct {
	Function string // "length"
	Column   string // "review"
}

// Functions of descriptors. Length is of a text or a list; upper, words, unknown
// and script are of texts, the others of lists of floats: whole numbers in a list
// name things as a rule.
const (
	LengthOf    = "length"          // characters, or elements
	WordsOf     = "words"           // how many
	UpperOf     = "upper"           // share of its letters that are upper case
	UnknownOf   = "unknown"         // share of its words that the reference does not know
	ScriptOf    = "script"          // "Latin", "Cyrillic" … or "none": of most of its letters
	NormOf      = "norm"            // Euclidean
	CosineOf    = "cosine_distance" // from the mean of the reference
	Projection1 = "projection1"     // on a random direction, the same for all vectors of a length
	Projection2 = "projection2"
	Projection3 = "projection3"
	Projection4 = "projection4"
)

// String is the descriptor's name.
func (d Descriptor) String() string { return d.Function + "(" + d.Column + ")" }

var descriptorName = regexp.MustCompile(`^([a-z_0-9]+)\((.+)\)$`)

// ParseDescriptor takes such a name apart. ok is false where it names no
// function of a descriptor.
func ParseDescriptor(name string) (d Descriptor, ok bool) {
	parts := descriptorName.FindStringSubmatch(name)
	if parts == nil {
		return Descriptor{}, false
	}
	d = Descriptor{parts[1], parts[2]}
	known := slices.Concat(textFunctions(), vectorFunctions())
	return d, slices.Contains(known, d.Function)
}

// Descriptors are those that a column has; none where its values are watched
// themselves. A text has them too: whether it is one or names a category is said
// by its values.
func (f Field) Descriptors() []Descriptor {
	functions := []string{}
	switch {
	case f.Type.List && (f.Type.Elem == Float32 || f.Type.Elem == Float64):
		functions = vectorFunctions()
	case f.Type.List:
		functions = []string{LengthOf}
	case f.Type.Elem == String:
		functions = textFunctions()
	}
	out := make([]Descriptor, len(functions))
	for i, name := range functions {
		out[i] = Descriptor{name, f.Name}
	}
	return out
}

func textFunctions() []string { return []string{LengthOf, WordsOf, UpperOf, UnknownOf, ScriptOf} }

func vectorFunctions() []string {
	return []string{LengthOf, NormOf, CosineOf, Projection1, Projection2, Projection3, Projection4}
}
