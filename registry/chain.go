package registry

import "encoding/json"

// keyframe is how many versions lie between two that are stored whole. The
// others hold only what differs from their predecessor, because a definition
// that grows column by column would otherwise cost its size squared.
const keyframe = 32

// version is one accepted entry. Who repeats often and is interned by
// the fold.
type version struct {
	offset  int64
	time    int64
	uid     uint64
	who     string
	why     string
	rev     string
	deleted bool
	body    delta
}

// delta is a byte string as a change of another: its own prefix and suffix of
// the base around middle.
type delta struct {
	prefix, suffix uint32
	middle         []byte
}

// diff returns text as a change of base.
func diff(base, text []byte) delta {
	n := min(len(base), len(text))
	p := 0
	for p < n && base[p] == text[p] {
		p++
	}
	s := 0
	for s < n-p && base[len(base)-1-s] == text[len(text)-1-s] {
		s++
	}
	middle := text[p : len(text)-s]
	return delta{uint32(p), uint32(s), append(make([]byte, 0, len(middle)), middle...)}
}

// patch undoes diff.
func (d delta) patch(base []byte) []byte {
	out := make([]byte, 0, int(d.prefix)+len(d.middle)+int(d.suffix))
	out = append(out, base[:d.prefix]...)
	out = append(out, d.middle...)
	return append(out, base[len(base)-int(d.suffix):]...)
}

// chain is every version of one definition, oldest first.
type chain struct {
	kind, namespace, name string
	versions              []version
	latest                json.RawMessage // spec of the last version, whole
}

// add appends a version whose spec is spec (nil for a delete).
func (c *chain) add(v version, spec json.RawMessage) {
	if len(c.versions)%keyframe == 0 {
		v.body = delta{middle: spec}
	} else {
		v.body = diff(c.latest, spec)
	}
	c.versions, c.latest = append(c.versions, v), spec
}

// spec returns the spec of version index i.
func (c *chain) spec(i int) json.RawMessage {
	if i == len(c.versions)-1 || c.versions[i].deleted {
		if c.versions[i].deleted {
			return nil
		}
		return c.latest
	}
	start := i - i%keyframe
	body := c.versions[start].body.middle
	for j := start + 1; j <= i; j++ {
		body = c.versions[j].body.patch(body)
	}
	return body
}

// definition returns version index i.
func (c *chain) definition(i int) Definition {
	v := &c.versions[i]
	return Definition{
		Kind: c.kind, Namespace: c.namespace, Name: c.name,
		UID: v.uid, Version: uint64(i + 1), Spec: c.spec(i),
		Offset: v.offset, Time: v.time, Who: v.who, Why: v.why, Revision: v.rev, Deleted: v.deleted,
	}
}

// at returns the index of the newest version at or before a log offset, or -1.
func (c *chain) at(offset int64) int {
	lo, hi := 0, len(c.versions)
	if hi > 0 && c.versions[hi-1].offset <= offset {
		return hi - 1 // the common case: the present
	}
	for lo < hi {
		mid := (lo + hi) / 2
		if c.versions[mid].offset <= offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// live returns the current version, 0 when there is none or it was deleted.
func (c *chain) live() uint64 {
	n := len(c.versions)
	if n == 0 || c.versions[n-1].deleted {
		return 0
	}
	return uint64(n)
}
