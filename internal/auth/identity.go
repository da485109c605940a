package auth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// AllNamespaces in a grant means every namespace and the installation itself.
const AllNamespaces = "*"

// Grant gives roles in a namespace.
type Grant struct {
	Namespace string `json:"namespace"`
	Roles     []Role `json:"roles"`
}

// String writes "team:viewer,producer".
func (g Grant) String() string {
	names := make([]string, len(g.Roles))
	for i, r := range g.Roles {
		names[i] = string(r)
	}
	return g.Namespace + ":" + strings.Join(names, ",")
}

// ParseGrant reads "team:viewer,producer" or "*:admin".
func ParseGrant(s string) (Grant, error) {
	namespace, list, ok := strings.Cut(s, ":")
	if !ok {
		return Grant{}, fmt.Errorf("grant %q: want NAMESPACE:ROLE,… such as team:viewer or *:admin", s)
	}
	g := Grant{Namespace: namespace}
	for name := range strings.SplitSeq(list, ",") {
		r, err := ParseRole(name)
		if err != nil {
			return Grant{}, fmt.Errorf("grant %q: %w", s, err)
		}
		g.Roles = append(g.Roles, r)
	}
	return g, g.validate()
}

func (g Grant) validate() error {
	if g.Namespace != AllNamespaces && !nameRule().MatchString(g.Namespace) {
		return fmt.Errorf("namespace %q: want a lower-case letter, then letters, digits, _ or -, or * for all", g.Namespace)
	}
	if len(g.Roles) == 0 {
		return fmt.Errorf("namespace %q: no role is granted", g.Namespace)
	}
	for _, r := range g.Roles {
		if _, err := ParseRole(string(r)); err != nil {
			return err
		}
	}
	return nil
}

func nameRule() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`) }

// Identity is somebody who proved who they are, and what they were granted.
type Identity struct {
	Subject string
	Method  string // how they proved it: local, key, oidc, grafana, service
	Grants  []Grant

	limit *Identity // whose rights bound these; nil: nobody's

	// callers are those made so far, by namespace: copied and replaced as a
	// whole, so that a request reads it without a lock.
	callers atomic.Pointer[map[string]*Caller]
}

// keptCallers bounds what an identity for all namespaces keeps, since a caller
// chooses the names.
const keptCallers = 256

// In returns the identity acting in a namespace, with the rights that it has
// there.
func (id *Identity) In(namespace string) *Caller {
	kept := id.callers.Load()
	if kept != nil {
		if c, ok := (*kept)[namespace]; ok {
			return c
		}
	}
	c := id.act(namespace)
	next := map[string]*Caller{namespace: c}
	if kept != nil && len(*kept) < keptCallers {
		maps.Copy(next, *kept)
	}
	id.callers.CompareAndSwap(kept, &next) // a lost race costs the next request this work again
	return c
}

func (id *Identity) act(namespace string) *Caller {
	c := &Caller{Subject: id.Subject, Namespace: namespace, Method: id.Method, id: id}
	for _, g := range id.Grants {
		if g.Namespace != namespace && g.Namespace != AllNamespaces {
			continue
		}
		for _, r := range g.Roles {
			has := r.rights()
			if g.Namespace != AllNamespaces {
				has &= 1<<firstOfInstallation - 1
			}
			c.rights |= has
			if !slices.Contains(c.Roles, string(r)) {
				c.Roles = append(c.Roles, string(r))
			}
		}
	}
	if id.limit != nil {
		c.rights &= id.limit.In(namespace).rights
	}
	return c
}

// within is the identity with no more rights than another's, and that one's
// home: a person who looks through somebody's data source.
func (id *Identity) within(outer *Identity) *Identity {
	return &Identity{Subject: id.Subject, Method: id.Method, Grants: id.Grants, limit: outer}
}

// Home is the namespace that the identity means when it names none: that of
// its first grant, or fallback for one that may act everywhere.
func (id *Identity) Home(fallback string) string {
	if id.limit != nil {
		return id.limit.Home(fallback)
	}
	if len(id.Grants) == 0 || id.Grants[0].Namespace == AllNamespaces {
		return fallback
	}
	return id.Grants[0].Namespace
}

// Covers reports whether everything that a grant gives is the identity's to
// give: nobody hands out more than they have.
func (id *Identity) Covers(g Grant) bool {
	var want rights
	for _, r := range g.Roles {
		want |= r.rights()
	}
	var have rights
	for _, own := range id.Grants {
		if own.Namespace != g.Namespace && own.Namespace != AllNamespaces {
			continue
		}
		for _, r := range own.Roles {
			have |= r.rights()
		}
	}
	if g.Namespace != AllNamespaces {
		want &= 1<<firstOfInstallation - 1
	}
	return want&^have == 0 && (id.limit == nil || id.limit.Covers(g))
}
