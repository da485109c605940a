package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Limits bound what one connection may cost.
type Limits struct {
	Header time.Duration // to send its header
	Body   time.Duration // to send its body
	Write  time.Duration // to be answered
}

// Listen opens a TCP port; a taken one is an error that names it.
func Listen(what, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: port %s is taken by another process: stop it or choose another address: %w", what, addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: listen on %s: %w", what, addr, err)
	}
	return ln, nil
}

// Serve answers on ln until ctx ends, then lets requests under way finish for
// at most drain. It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, lim Limits, drain time.Duration, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: lim.Header,
		ReadTimeout:       lim.Body,
		WriteTimeout:      lim.Write,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		err = errors.Join(fmt.Errorf("serve %s: requests still running after %v: %w", ln.Addr(), drain, err), srv.Close())
	}
	<-done
	return err
}
