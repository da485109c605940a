package app

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kedge-ml/kedge/internal/auth"
)

// sweepOwn sends every route as somebody of alpha: the roles that have what a
// route takes must not be refused for it, and all others must.
func sweepOwn(t *testing.T, r *running, key string, role auth.Role) (sent int) {
	t.Helper()
	for _, pattern := range r.mux.Patterns() {
		need := r.permissionOf(pattern)
		may := need == auth.Public || need == auth.Anyone || slices.Contains(auth.RolesWith(need), role) && !need.OfInstallation()
		for _, a := range attempts(pattern) {
			status, text := sendAttempt(r, "http://"+r.Addr(), key, a)
			sent++
			refused := status == http.StatusUnauthorized || status == http.StatusForbidden && strings.Contains(text, "may not "+need.String()+" in")
			if refused == may {
				t.Errorf("alpha's %s: %s %s %s: %d %.200s; it takes %s", role, a.method, a.path, a.body, status, text, need)
			}
		}
	}
	return sent
}

// sweepRPCs calls every RPC that there is, with a request that says nothing.
// home is whether the caller is of the namespace whose models are served.
func sweepRPCs(t *testing.T, r *running, who, key string, roles []auth.Role, home bool) (sent int) {
	t.Helper()
	conn, err := grpc.NewClient(r.serving.port.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for service, info := range r.serving.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			if m.IsClientStream || m.IsServerStream {
				t.Errorf("%s/%s is a stream: the door guards single calls alone", service, m.Name)
				continue
			}
			method := "/" + service + "/" + m.Name
			need, ctx := grpcPermissions()[method], t.Context()
			if key != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			answer := &emptypb.Empty{}
			err := conn.Invoke(ctx, method, &emptypb.Empty{}, answer)
			cancel()
			sent++
			may := need == auth.Public || need == auth.Anyone && roles != nil || slices.ContainsFunc(roles, func(x auth.Role) bool { return slices.Contains(auth.RolesWith(need), x) })
			code := status.Code(err)
			refused := code == codes.Unauthenticated || code == codes.PermissionDenied
			away := !home && may && ofOneNamespace(need) // let in, and told that there is nothing
			if refused == may || away && code != codes.NotFound || strings.Contains(string(answer.ProtoReflect().GetUnknown()), leak) {
				t.Errorf("%s: %s: %v, %q; it takes %s", who, method, err, answer.ProtoReflect().GetUnknown(), need)
			}
		}
	}
	return sent
}
