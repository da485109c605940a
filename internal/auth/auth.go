// Package auth says who calls and decides what they may do.
//
// Holds [Caller], a parameter of every operation; [Permission] and [Role], the
// one table of who may do what; [Keys], the API keys; [Gate], which every door
// has in front of its routes.
// Promises: what is not declared and granted is denied. A decision costs no
// allocation. No secret is kept: of a key only its hash.
//
// May not: import any other room but registry, internal/telemetry and
// internal/web; know a route by name.
package auth

import (
	"context"
	"net/http"
	"slices"
)

// Caller is an authenticated identity acting in one namespace. The zero Caller
// may do nothing but what is [Public].
type Caller struct {
	Subject   string   // who, as audit entries name them
	Namespace string   // where: topics, definitions and tables of this namespace only
	Roles     []string // what they may do: viewer, producer, scientist, operator, admin
	Method    string   // how they proved it: local, key, oidc, grafana, service

	rights rights
	id     *Identity
}

// May reports whether the caller may do p in its namespace.
func (c *Caller) May(p Permission) bool {
	switch p {
	case Undeclared:
		return false
	case Public:
		return true
	case Anyone:
		return c.Subject != ""
	}
	return c.rights.has(p)
}

// Holds reports whether the caller may do all that a role may in its namespace,
// whether it was granted that role or a more powerful one.
func (c *Caller) Holds(r Role) bool {
	need := r.rights() & (1<<firstOfInstallation - 1)
	return need != 0 && need&^c.rights == 0
}

// Known reports whether somebody was recognised, whatever they may do.
func (c *Caller) Known() bool { return c.Subject != "" }

// In returns the same identity acting in another namespace. Where it has no
// role there, that caller may do nothing.
func (c *Caller) In(namespace string) Caller {
	if c.id == nil || namespace == c.Namespace {
		return *c
	}
	return *c.id.In(namespace)
}

// Grants are the roles that the caller's identity has, everywhere.
func (c *Caller) Grants() []Grant {
	if c.id == nil {
		return nil
	}
	return slices.Clone(c.id.Grants)
}

// Local is the identity of whoever reaches the loopback port of a Kedge that
// asks for no authentication.
func Local(namespace string) Caller {
	id := &Identity{Subject: "local", Method: "local", Grants: []Grant{{Namespace: AllNamespaces, Roles: []Role{Admin}}}}
	return *id.In(namespace)
}

// Service is the identity of a part of Kedge that acts by itself: a scheduled
// job, an alert rule.
func Service(name, namespace string, roles ...Role) Caller {
	id := &Identity{Subject: "service:" + name, Method: "service", Grants: []Grant{{Namespace: namespace, Roles: roles}}}
	return *id.In(namespace)
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return withCaller(ctx, &c)
}

func withCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns the caller of a request's context. A context that passed no
// [Gate] has none, and its zero Caller may do nothing.
func From(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return *c
	}
	return Caller{}
}

// Middleware gives every request the local caller, as a [Gate] without
// authentication does.
func Middleware(namespace string, next http.Handler) http.Handler {
	c := Local(namespace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), &c)))
	})
}
