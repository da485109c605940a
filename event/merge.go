package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Merge folds the proposals of one subject into its definition. current is the
// definition as it stands, nil for a subject met first. The answer may equal
// current: others may have stated the same before. It always converges: a unit
// decoded again with the merged definition proposes nothing that Merge would
// leave out, because both keep to the same limits and types.
//
// An inferred definition gains columns at its end, types for columns that were
// only null so far, and Float64 for Int64. A declared view stays as it is; a
// declared model only learns which signature a new version has.
func Merge(current json.RawMessage, ps []Proposal) (kind, namespace, name string, spec json.RawMessage, err error) {
	if len(ps) == 0 {
		return "", "", "", nil, errors.New("merge proposals: there are none")
	}
	first := ps[0]
	for _, p := range ps {
		if p.Kind != first.Kind || p.Namespace != first.Namespace || p.Name != first.Name {
			return "", "", "", nil, fmt.Errorf("merge proposals: %s/%s and %s/%s are two subjects", first.Namespace, first.Name, p.Namespace, p.Name)
		}
	}
	switch first.Kind {
	case FeatureViewKind:
		spec, err = mergeView(current, ps)
	case ModelKind:
		spec, err = mergeModel(current, ps)
	default:
		err = fmt.Errorf("unknown kind %q", first.Kind)
	}
	if err != nil {
		return "", "", "", nil, fmt.Errorf("merge proposals for %s/%s: %w", first.Namespace, first.Name, err)
	}
	return first.Kind, first.Namespace, first.Name, spec, nil
}

func mergeView(current json.RawMessage, ps []Proposal) (json.RawMessage, error) {
	s := &ViewSpec{Origin: Inferred, Online: true, Columns: []FieldSpec{}}
	if current != nil {
		var err error
		if s, err = ParseView(current); err != nil {
			return nil, err
		}
	}
	if s.Origin == Declared {
		return current, nil
	}
	for _, p := range ps {
		if len(s.Keys) == 0 {
			s.Keys = mergeFields(nil, p.Keys, MaxKeys)
		}
		s.Columns = mergeFields(s.Columns, p.Columns, MaxColumns)
	}
	return json.Marshal(s)
}

func mergeModel(current json.RawMessage, ps []Proposal) (json.RawMessage, error) {
	s := &ModelSpec{Origin: Inferred, Signatures: []SignatureSpec{}}
	if current != nil {
		var err error
		if s, err = ParseModel(current); err != nil {
			return nil, err
		}
	}
	for _, p := range ps {
		if p.Version != "" {
			s.mergeVersion(p)
		}
	}
	return json.Marshal(s)
}

func (s *ModelSpec) mergeVersion(p Proposal) {
	sig := s.signatureOf(p.Version)
	if sig == nil {
		sig = s.adopt(p)
	}
	if s.Origin == Inferred {
		sig.Columns = mergeFields(sig.Columns, p.Columns, MaxColumns)
	}
}

func (s *ModelSpec) signatureOf(version string) *SignatureSpec {
	for i := range s.Signatures {
		if slices.Contains(s.Signatures[i].Versions, version) {
			return &s.Signatures[i]
		}
	}
	return nil
}

// adopt finds or makes the signature of a version met first. A declared model
// gives it the signature that shares most names with it: its other inputs go
// to the overflow column.
func (s *ModelSpec) adopt(p Proposal) *SignatureSpec {
	best, shared := -1, -1
	for i, sig := range s.Signatures {
		if agree(sig.Columns, p.Columns) {
			best = i
			break
		}
		fixed := s.Origin == Declared || len(s.Signatures) >= MaxSignatures
		if n := sharedNames(sig.Columns, p.Columns); fixed && n >= shared {
			best, shared = i, n
		}
	}
	if best < 0 {
		best = len(s.Signatures)
		s.Signatures = append(s.Signatures, s.newSignature(p))
	}
	sig := &s.Signatures[best]
	sig.Versions = append(sig.Versions, p.Version)
	return sig
}

func (s *ModelSpec) newSignature(p Proposal) SignatureSpec {
	id := 1
	for _, sig := range s.Signatures {
		id = max(id, sig.ID+1)
	}
	columns := mergeFields([]FieldSpec{}, p.Columns, MaxColumns)
	if s.Origin == Declared {
		columns = slices.DeleteFunc(columns, func(f FieldSpec) bool { return f.Type.Elem == Unknown })
	}
	return SignatureSpec{ID: id, Columns: columns}
}

// agree reports whether inputs fit a signature: the same names, and types that
// do not contradict each other.
func agree(columns []FieldSpec, inputs []Evidence) bool {
	if len(columns) != len(inputs) || sharedNames(columns, inputs) != len(columns) {
		return false
	}
	for _, e := range inputs {
		f := fieldNamed(columns, e.Name)
		if merged := mergeField(f, e); !compatible(merged.Type, e) {
			return false
		}
	}
	return true
}

// compatible reports whether a column of type t takes the values behind e.
func compatible(t ColumnType, e Evidence) bool {
	switch {
	case t == e.Type, e.Type == ColumnType{}, t.Elem == JSON && !t.List:
		return true
	case t.List != e.Type.List:
		return false
	case e.Type.Elem == Unknown:
		return true
	case e.Word && t.Elem == String:
		return true
	}
	return numeric(e.Type) && e.Type.Elem == Int64 && (t.Elem == Float64 || t.Elem == Float32 || t.Elem == Int32) ||
		e.Type.Elem == Float64 && t.Elem == Float32 ||
		e.Type.Elem == String && (t.Elem == Timestamp || t.Elem == Bytes)
}

func sharedNames(columns []FieldSpec, inputs []Evidence) int {
	n := 0
	for _, e := range inputs {
		if fieldNamed(columns, e.Name).Name != "" {
			n++
		}
	}
	return n
}

func fieldNamed(columns []FieldSpec, name string) FieldSpec {
	for _, f := range columns {
		if f.Name == name || slices.Contains(f.Aliases, name) {
			return f
		}
	}
	return FieldSpec{}
}

// mergeFields appends columns met first and widens the others.
func mergeFields(fields []FieldSpec, evidence []Evidence, limit int) []FieldSpec {
	index := make(map[string]int, len(fields))
	for i, f := range fields {
		index[f.Name] = i
		for _, a := range f.Aliases {
			index[a] = i
		}
	}
	for _, e := range evidence {
		if i, ok := index[e.Name]; ok {
			fields[i] = mergeField(fields[i], e)
		} else if len(fields) < limit {
			index[e.Name] = len(fields)
			fields = append(fields, mergeField(FieldSpec{Name: e.Name}, e))
		}
	}
	return fields
}

// mergeField gives a column the type that evidence asks for, as far as it may
// change: from unknown to anything, from Int64 to Float64 while it is not
// fixed. An integer that Float64 cannot hold fixes a column.
func mergeField(f FieldSpec, e Evidence) FieldSpec {
	switch {
	case f.Type.List && !e.Type.List, e.Type == ColumnType{}:
	case f.Type.Elem == Unknown:
		f.Type, f.Fixed = e.Type, e.Exact && e.Type.Elem == Int64
	case f.Fixed || f.Type.List != e.Type.List || f.Type.Elem != Int64:
	case e.Type.Elem == Float64:
		f.Type.Elem = Float64
	case e.Type.Elem == Int64:
		f.Fixed = e.Exact
	}
	return f
}
