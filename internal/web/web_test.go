package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

type echoInput struct {
	Body struct {
		Name string `json:"name" minLength:"2"`
	}
}

type echoOutput struct {
	Body struct {
		Hello string `json:"hello"`
	}
}

var errBusy = errors.New("busy")

// newTestHandler serves one typed route and one that misbehaves.
func newTestHandler(t *testing.T, logTo io.Writer) (*API, http.Handler) {
	t.Helper()
	sc := telemetry.Discard()
	sc.Log = slog.New(slog.NewTextHandler(logTo, nil))
	api := NewAPI("test", "1", sc, NewMux(func(_ string, next http.Handler) http.Handler { return next }))
	op := huma.Operation{OperationID: "echo", Method: http.MethodPost, Path: "/echo", MaxBodyBytes: 1 << 10}
	mapErr := func(err error) error {
		if errors.Is(err, errBusy) {
			return Errorf(http.StatusServiceUnavailable, CodeUnavailable, "try later: %w", err)
		}
		return err
	}
	Handle(api, op, mapErr, func(ctx context.Context, in *echoInput) (*echoOutput, error) {
		switch in.Body.Name {
		case "panic":
			panic("boom-canary")
		case "secret":
			return nil, fmt.Errorf("dial db: password=canary")
		case "busy":
			return nil, errBusy
		case "slow":
			return nil, fmt.Errorf("scan: %w", context.DeadlineExceeded)
		}
		out := &echoOutput{}
		out.Body.Hello = in.Body.Name
		return out, nil
	})
	h, err := Observe(sc, api.Mux)
	if err != nil {
		t.Fatal(err)
	}
	return api, Secure(h)
}

func TestHandleAnswersInOneForm(t *testing.T) {
	var log bytes.Buffer
	_, h := newTestHandler(t, &log)
	for _, c := range []struct {
		body   string
		status int
		says   string // in the answer
	}{
		{`{"name":"ada"}`, 200, `"hello":"ada"`},
		{`{"name":"a"}`, 422, `"code":"invalid"`},
		{`{"name":"ada","nmae":1}`, 422, "nmae"},
		{`{`, 400, `"code":"bad_request"`},
		{`{"name":"` + strings.Repeat("x", 2000) + `"}`, 413, `"code":"too_large"`},
		{`{"name":"secret"}`, 500, `"code":"internal"`},
		{`{"name":"panic"}`, 500, `"code":"internal"`},
		{`{"name":"busy"}`, 503, "try later"},
		{`{"name":"slow"}`, 504, `"code":"timeout"`},
	} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(c.body))
		req.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(rec, req)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) {
			t.Errorf("%.40s: got %d %s, want %d and %q", c.body, rec.Code, rec.Body, c.status, c.says)
		}
		if got := rec.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
			t.Errorf("%.40s: content type %q", c.body, got)
		}
		if strings.Contains(rec.Body.String(), "canary") {
			t.Errorf("%.40s: the answer shows the cause: %s", c.body, rec.Body)
		}
		if rec.Header().Get("Content-Security-Policy") == "" || rec.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%.40s: headers %v", c.body, rec.Header())
		}
	}
	for _, cause := range []string{"password=canary", "boom-canary"} {
		if !strings.Contains(log.String(), cause) {
			t.Errorf("the log lacks the cause %q", cause)
		}
	}
}

func TestOpenAPIDescribesErrors(t *testing.T) {
	api, _ := newTestHandler(t, io.Discard)
	b, err := json.Marshal(api.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(`"$ref":"#/components/schemas/Error"`)) || bytes.Contains(b, []byte("ErrorModel")) {
		t.Fatalf("errors are described wrongly: %s", b)
	}
	if !bytes.HasPrefix(b, []byte(`{"components"`)) || !bytes.Contains(b, []byte(`"openapi":"3.1.0"`)) {
		t.Fatalf("not OpenAPI 3.1: %.100s", b)
	}
}

func TestListenNamesATakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Listen("HTTP", ln.Addr().String())
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) || !strings.Contains(err.Error(), "taken") {
		t.Fatalf("got %v", err)
	}
}

func TestServeDrainsRequestsUnderWay(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-release
		fmt.Fprint(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := Listen("HTTP", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served, got := make(chan error, 1), make(chan string, 1)
	go func() {
		served <- Serve(ctx, ln, h, Limits{Header: time.Second}, 10*time.Second, slog.New(slog.DiscardHandler))
	}()
	go func() {
		res, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		got <- string(b)
	}()
	<-started
	cancel()
	close(release)
	if b := <-got; b != "done" {
		t.Fatalf("the request under way got %q", b)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestServeCutsSlowClients(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := Listen("HTTP", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, http.NotFoundHandler(), Limits{Header: 50 * time.Millisecond}, time.Second, slog.New(slog.DiscardHandler))
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ") // and never the end
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatalf("the server kept a slow client: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}
