package registry

import (
	"slices"
	"sort"
	"strings"
)

// State is every definition as of one log offset. It never changes and may be
// read by any number of goroutines.
type State struct {
	fold   *fold
	offset int64
}

// Offset is the last log offset the state contains, -1 when it contains none.
func (s *State) Offset() int64 { return s.offset }

// Get returns a live definition.
func (s *State) Get(kind, namespace, name string) (Definition, bool) {
	s.fold.mu.RLock()
	defer s.fold.mu.RUnlock()
	c := s.fold.chains[key{kind, namespace, name}]
	if c == nil {
		return Definition{}, false
	}
	return s.live(c)
}

// ByUID returns the live definition with a UID.
func (s *State) ByUID(uid uint64) (Definition, bool) {
	s.fold.mu.RLock()
	defer s.fold.mu.RUnlock()
	c := s.fold.byUID[uid]
	if c == nil {
		return Definition{}, false
	}
	d, ok := s.live(c)
	return d, ok && d.UID == uid
}

// List returns the live definitions of a kind and namespace, ordered by kind,
// namespace and name. An empty kind or namespace means all of them.
func (s *State) List(kind, namespace string) []Definition {
	s.fold.mu.RLock()
	defer s.fold.mu.RUnlock()
	var out []Definition
	for _, c := range s.fold.chains {
		if (kind == "" || c.kind == kind) && (namespace == "" || c.namespace == namespace) {
			if d, ok := s.live(c); ok {
				out = append(out, d)
			}
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// Changed returns the offset of the newest entry within the state that changed
// a definition of one of the kinds, -1 when there is none. What is built from
// those kinds alone stays valid while Changed stays the same.
func (s *State) Changed(kinds ...string) int64 {
	s.fold.mu.RLock()
	defer s.fold.mu.RUnlock()
	newest := int64(-1)
	for _, k := range kinds {
		offsets := s.fold.changes[k]
		i := sort.Search(len(offsets), func(i int) bool { return offsets[i] > s.offset })
		if i > 0 {
			newest = max(newest, offsets[i-1])
		}
	}
	return newest
}

func (s *State) live(c *chain) (Definition, bool) {
	i := c.at(s.offset)
	if i < 0 || c.versions[i].deleted {
		return Definition{}, false
	}
	return c.definition(i), true
}

func byName(a, b Definition) int {
	if c := strings.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
