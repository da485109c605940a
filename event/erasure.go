package event

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// ErasureKind is the registry's name of an entity that was erased for good. As
// long as the definition stands, records about the entity are refused: counted
// as tombstoned, and neither row nor dead letter.
const ErasureKind = "Erasure"

// ErasedRecord is what stands in a log where nothing else may: a partition
// whose records were erased keeps its offsets by it. It gives no row.
const ErasedRecord = `{"erased":true}`

// ErasureSpec names an entity without saying who it is.
type ErasureSpec struct {
	Keys []string `json:"keys"` // names of the parts of its key, in alphabetical order
	Hash string   `json:"hash"` // of their values, keyed: see [ErasureHash]
	// Certificate is the SHA-256 of what was handed out about the erasure.
	Certificate string `json:"certificate,omitempty"`
}

// ParseErasure reads an erasure's definition; see [ParseView].
func ParseErasure(b []byte) (*ErasureSpec, error) {
	s := &ErasureSpec{}
	if err := decodeSpec(b, s); err != nil {
		return nil, fmt.Errorf("erasure: %w", err)
	}
	sum, err := hex.DecodeString(s.Hash)
	if err != nil || len(sum) != sha256.Size || len(s.Keys) == 0 || !slices.IsSorted(s.Keys) {
		return nil, errors.New("erasure: want keys in order and a hash: make one with kedge erase")
	}
	return s, nil
}

// ErasureHash is HMAC-SHA-256 over a namespace and the parts of a key, by name;
// numbers in their shortest form. Without the key nobody can try out who it is.
func ErasureHash(key []byte, namespace string, parts map[string]string) string {
	h := hmac.New(sha256.New, key)
	add := func(s string) { // no two lists of texts give the same bytes
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(s))
	}
	add(namespace)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		add(name)
		add(plainNumber(parts[name]))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// plainNumber is a number as an integer column and JSON write it alike.
func plainNumber(s string) string {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	return s
}

// erasures are a namespace's, by the names of the key's parts.
type erasures []erasureGroup

type erasureGroup struct {
	keys   []string
	hashes map[string]bool
}

func (e *erasures) add(s *ErasureSpec) {
	for i := range *e {
		if slices.Equal((*e)[i].keys, s.Keys) {
			(*e)[i].hashes[s.Hash] = true
			return
		}
	}
	*e = append(*e, erasureGroup{s.Keys, map[string]bool{s.Hash: true}})
}

// covers reports whether an entity whose key has these parts was erased.
func (e erasures) covers(key []byte, namespace string, parts map[string]string) bool {
	for _, g := range e {
		some := make(map[string]string, len(g.keys))
		for _, name := range g.keys {
			v, ok := parts[name]
			if !ok {
				break
			}
			some[name] = v
		}
		if len(some) == len(g.keys) && g.hashes[ErasureHash(key, namespace, some)] {
			return true
		}
	}
	return false
}

// Erasures reports whether anything of a namespace was ever erased for good.
func (c *Catalog) erasures(namespace string) erasures {
	if sp := c.spaces[namespace]; sp != nil {
		return sp.erased
	}
	return nil
}

// erased reports whether the row that was just filled is about an entity that
// was erased. A delete passes: it is how the erasure reaches whoever follows
// the log.
func (d *Decoder) erased() bool {
	if d.env.del || d.u.Catalog == nil {
		return false
	}
	list := d.u.Catalog.erasures(d.u.Namespace)
	if len(list) == 0 {
		return false
	}
	b, parts := d.env.plan.batch, map[string]string{}
	switch s := b.Schema; s.Kind {
	case Features:
		for i, f := range s.Keys() {
			if c := &b.Columns[s.KeyStart()+i]; c.Len() > b.Rows {
				parts[f.Name] = keyText(c.Value(b.Rows))
			}
		}
	case Predictions:
		parts = keyParts([]byte(b.Columns[PredKey].text(b.Rows)))
	case Labels:
		parts = keyParts([]byte(b.Columns[LabelKey].text(b.Rows)))
	}
	return list.covers([]byte(d.cfg.ErasureKey), d.u.Namespace, parts)
}

// mentionsErased is erased for a record that cannot become a row.
func (d *Decoder) mentionsErased() bool {
	if d.u.Catalog == nil {
		return false
	}
	list := d.u.Catalog.erasures(d.u.Namespace)
	if len(list) == 0 {
		return false
	}
	var e struct {
		View string          `json:"view"`
		Key  json.RawMessage `json:"key"`
	}
	if json.Unmarshal(d.buf, &e) != nil {
		return list.covers([]byte(d.cfg.ErasureKey), d.u.Namespace, keyParts(d.rec.Key))
	}
	parts := keyParts(e.Key)
	if view := d.u.Catalog.View(d.u.Namespace, e.View); len(parts) == 0 && view != nil && len(view.Keys()) == 1 { // a bare key
		parts = keyParts(slices.Concat([]byte(`{"`+scalarKey+`":`), e.Key, []byte("}")))
		parts = map[string]string{view.Keys()[0].Name: parts[scalarKey]}
	}
	return list.covers([]byte(d.cfg.ErasureKey), d.u.Namespace, parts)
}

// keyText is a key's part as its owner would write it.
func keyText(v Value) string {
	switch v.Type.Elem {
	case String:
		return v.Text
	case Bool:
		return strconv.FormatBool(v.Int != 0)
	case Float32, Float64:
		return strconv.FormatFloat(v.Float, 'g', -1, 64)
	}
	return strconv.FormatInt(v.Int, 10)
}

// keyParts reads a key's JSON object; what is none has no parts.
func keyParts(text []byte) map[string]string {
	out := map[string]string{}
	if len(text) == 0 {
		return out
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var parts map[string]any
	if dec.Decode(&parts) != nil {
		return out
	}
	for name, v := range parts {
		out[name] = fmt.Sprint(v)
	}
	return out
}
