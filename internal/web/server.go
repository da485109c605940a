package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// Limits bound what one connection may cost.
type Limits struct {
	Header time.Duration // to send its header
	Body   time.Duration // to send its body
	Write  time.Duration // to be answered

	// Plain are paths whose POSTs are mostly small and come often; a segment in
	// braces stands for any. Their handlers read the body and answer: they neither
	// stream nor take the connection over, and keep nothing of a request beyond it.
	Plain []string
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

// ServerTLS reads a certificate and its key, and again when the files have
// changed, so that a renewed certificate needs no restart. clientCA, which may
// be empty, makes a client's certificate a must.
func ServerTLS(certFile, keyFile, clientCA string) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		if err != nil {
			return nil, fmt.Errorf("read the clients' authority: %w", err)
		}
		out.ClientCAs, out.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !out.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the clients' authority: %s holds no certificate", clientCA)
		}
	}
	return out, nil
}

// certificate is read anew when its file has changed; a new one that cannot be
// read leaves the old one in use.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	held    *tls.Certificate
	changed time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.certFile)
	if err == nil && c.held != nil && info.ModTime().Equal(c.changed) {
		return c.held, nil
	}
	if err == nil {
		var read tls.Certificate
		if read, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.held, c.changed = &read, info.ModTime()
		}
	}
	if c.held == nil {
		return nil, fmt.Errorf("read the server's certificate: %w", err)
	}
	return c.held, nil
}

// OverTLS makes a port speak TLS; with nil it stays as it is.
func OverTLS(ln net.Listener, c *tls.Config) net.Listener {
	if c == nil {
		return ln
	}
	return tls.NewListener(ln, c)
}

// Serve answers on ln until ctx ends, then lets requests under way finish for
// at most drain. It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, lim Limits, drain time.Duration, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: lim.Header,
		ReadTimeout:       lim.Body,
		WriteTimeout:      lim.Write,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	done, p := make(chan error, 1), newPlain(srv, lim)
	go func() { done <- srv.Serve(plainListener{ln, p}) }()
	select {
	case err := <-done:
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		_ = p.drain(stop)
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- p.drain(stop) }()
	err := errors.Join(srv.Shutdown(stop), <-drained)
	if err != nil {
		err = errors.Join(fmt.Errorf("serve %s: requests still running after %v: %w", ln.Addr(), drain, err), srv.Close())
	}
	<-done
	return err
}
