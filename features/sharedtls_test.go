package features

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// overTLS is a port that speaks TLS in front of another: Valkey's wheel is built
// without it.
func overTLS(t *testing.T, to string) (addr string, authority *x509.CertPool) {
	t.Helper()
	certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(certified.Close)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates})
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); out.Close() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	authority = x509.NewCertPool()
	authority.AddCert(certified.Certificate())
	return ln.Addr().String(), authority
}

// TestSharedStoreOverTLS writes and reads over TLS; a server whose certificate
// is not vouched for, and a client without TLS, get nowhere.
func TestSharedStoreOverTLS(t *testing.T) {
	addr, authority := overTLS(t, testenv.StartValkey(t).Addr)
	store := func(c *tls.Config) *SharedStore {
		s := NewSharedStore(SharedConfig{Addresses: []string{addr}, TLS: c, Prefix: "tls", Timeout: 10 * time.Second, Linger: time.Nanosecond, Scope: telemetry.Discard()})
		t.Cleanup(s.Close)
		return s
	}
	s := store(&tls.Config{RootCAs: authority})
	_, err := s.open(t.Context())
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.watch(ctx) }()
	testenv.Eventually(t, 20*time.Second, s.ready)
	schema := viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64"))
	table := s.table(1, schema)
	row := factRow{keys: []any{int64(1)}, v: Version{EventTime: 1}, values: map[string]any{"x": int64(1)}}
	b := event.NewBatch(schema, "")
	addRow(b, row)
	must(t, table.apply(t.Context(), b, 10))
	if rows, err := readAll(t, table, schema, []factRow{row}, 10); err != nil || !rows.Row(0).Found() {
		t.Fatalf("over TLS: %v", err)
	}
	stop()
	<-done
	var unknown x509.UnknownAuthorityError
	if _, err := store(&tls.Config{RootCAs: x509.NewCertPool()}).open(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	if _, err := store(nil).open(t.Context()); err == nil {
		t.Error("a client without TLS was let in")
	}
}
