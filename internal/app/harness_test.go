package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// logged is a log that a test reads while parts write it.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a whole Kedge in this process. The engine opens one data directory
// at a time, so that a test has one at a time.
type running struct {
	*App
	t   *testing.T
	log *logged

	client *http.Client
	end    func() // stops it and waits, once
}

// startApp runs every role on free loopback ports in an empty directory.
func startApp(t *testing.T, change func(*Config)) *running {
	t.Helper()
	return startWatched(t, change, nil)
}

// startWatched is startApp with an ear for what the engine is told.
func startWatched(t *testing.T, change func(*Config), statements func(sql string)) *running {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir, cfg.HTTP.Listen, cfg.HTTP.Admin, cfg.HTTP.Feast = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.GRPC, cfg.Kafka.Listen, cfg.Kafka.Partitions, cfg.ClickHouse.Library = "127.0.0.1:0", "127.0.0.1:0", 1, testenv.LibCHDB(t)
	cfg.Telemetry.LogFormat = "json"
	if change != nil {
		change(&cfg)
	}
	r := &running{t: t, log: &logged{}, client: &http.Client{Timeout: time.Minute}}
	var err error
	if r.App, err = New(t.Context(), cfg, "test", r.log); err != nil {
		t.Fatal(err)
	}
	r.statements = statements
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Cleanup(r.end)
	testenv.Eventually(t, time.Minute, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended before it was ready: %v\n%s", err, r.log)
		default:
		}
		if !strings.Contains(r.log.String(), `"msg":"ready"`) {
			return fmt.Errorf("not ready:\n%s", r.log)
		}
		return nil
	})
	return r
}

// trust makes calls believe the server's certificate.
func (r *running) trust(pool *x509.CertPool) {
	r.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	r.t.Cleanup(r.client.CloseIdleConnections)
}

// adminKey is the first key, as whoever can read the data directory has it.
func (r *running) adminKey() string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.cfg.DataDir, adminKeyFile))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// call sends a request over the wire; headers are name, value, ….
func (r *running) call(method, path, body string, headers ...string) (status int, text string) {
	r.t.Helper()
	return r.callAt(r.scheme()+"://"+r.Addr(), method, path, body, headers...)
}

// callAt is call by way of another server.
func (r *running) callAt(base, method, path, body string, headers ...string) (status int, text string) {
	r.t.Helper()
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, string(b)
}
