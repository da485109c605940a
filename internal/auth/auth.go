// Package auth says who calls.
//
// Holds [Caller], a parameter of every operation since the first commit.
// Promises: no operation runs without a Caller. Today there is one identity,
// because Kedge listens on loopback only.
//
// May not: import any other room but internal/telemetry and internal/web.
package auth

import (
	"context"
	"net/http"
)

// Caller is an authenticated identity acting in one namespace.
type Caller struct {
	Subject   string   // who, as audit entries name them
	Namespace string   // where: topics, definitions and tables of this namespace only
	Roles     []string // what they may do: viewer, producer, scientist, operator, admin
}

// Local is the identity of whoever reaches the loopback port.
func Local(namespace string) Caller {
	return Caller{Subject: "local", Namespace: namespace, Roles: []string{"admin"}}
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns the caller of a request's context. A context that passed no
// [Middleware] has none, and its zero Caller may do nothing.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Middleware gives every request its Caller.
func Middleware(namespace string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), Local(namespace))))
	})
}
