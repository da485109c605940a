package app

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
)

// grpcOptions put the same door before RPCs that stands before routes.
func (a *App) grpcOptions() []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.guardRPC), grpc.ConnectionTimeout(time.Duration(a.cfg.HTTP.HeaderTimeout)),
		grpc.MaxConcurrentStreams(1000), grpc.MaxHeaderListSize(64 << 10),
	}
	if a.tls != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(a.tls)))
	}
	return opts
}

// guardRPC lets through the calls that the caller may make.
func (a *App) guardRPC(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	need := grpcPermissions()[info.FullMethod]
	md, _ := metadata.FromIncomingContext(ctx)
	c, err := a.door.Call(ctx, auth.Call{
		Credential: auth.Credential{Authorization: first(md, "authorization"), Remote: peerAddr(ctx)},
		Namespace:  first(md, "kedge-namespace"), Need: need, What: info.FullMethod, TraceID: telemetry.TraceID(ctx),
	})
	if err != nil {
		return nil, rpcRefusal(err)
	}
	if away := a.checkHome(c); ofOneNamespace(need) && away != nil {
		return nil, status.Error(codes.NotFound, away.Message)
	}
	return next(auth.WithCaller(ctx, c), req)
}

func first(md metadata.MD, name string) string {
	if v := md.Get(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

func peerAddr(ctx context.Context) netip.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		if a, err := netip.ParseAddrPort(p.Addr.String()); err == nil {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

func rpcRefusal(err error) error {
	var e *web.Error
	code := codes.Internal
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusUnauthorized:
			code = codes.Unauthenticated
		case http.StatusForbidden:
			code = codes.PermissionDenied
		case http.StatusTooManyRequests:
			code = codes.ResourceExhausted
		case http.StatusBadRequest:
			code = codes.InvalidArgument
		}
		return status.Error(code, e.Message)
	}
	return status.Error(code, "internal error")
}
