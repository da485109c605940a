package app

import (
	"net/http"
	"slices"
	"testing"
)

const howToDeclare = `these routes or RPCs declare no permission, so that nobody may use them: %q
Add each beside its like in internal/app/permissions.go: a route to routePermissions by the pattern that it is registered
with, an RPC to grpcPermissions by its full name, with what it takes (internal/auth/permission.go lists the permissions
and what each role has; auth.Public needs no credential, auth.Anyone any).`

// TestEveryRouteDeclaresItsPermission walks the mux and the gRPC server of a
// process with every role.
func TestEveryRouteDeclaresItsPermission(t *testing.T) {
	r := startApp(t, nil)
	if got := r.undeclared(); len(got) > 0 {
		t.Errorf(howToDeclare, got)
	}
	if n, m := len(r.mux.Patterns()), len(r.rpcs()); n < 60 || m < 11 {
		t.Errorf("the walk saw %d routes and %d RPCs: are all roles on?", n, m)
	}
	for pattern := range routePermissions() {
		if !slices.Contains(r.mux.Patterns(), pattern) {
			t.Errorf("routePermissions has %q, which is no route", pattern)
		}
	}
	for rpc := range grpcPermissions() {
		if !slices.Contains(r.rpcs(), rpc) {
			t.Errorf("grpcPermissions has %q, which is no RPC", rpc)
		}
	}

	// The walk sees a planted route, and so does the door.
	const planted = "GET /v1/planted"
	r.mux.HandleFunc(planted, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	if got := r.undeclared(); !slices.Equal(got, []string{planted}) {
		t.Errorf("a planted route was not found: %q", got)
	}
	if status, text := r.call("GET", "/v1/planted", ""); status != http.StatusForbidden {
		t.Errorf("a route without a permission answers %d %s", status, text)
	}
	if status, _ := r.call("GET", "/v1/whoami", ""); status != http.StatusOK {
		t.Errorf("a declared one answers %d", status)
	}
}
