package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestPlainPatterns asks a mux by paths that a plain pattern stands for, and by
// others: the mux finds the same values, and net/http has what is written in an
// unusual way.
func TestPlainPatterns(t *testing.T) {
	var plain atomic.Int64
	mux := http.NewServeMux()
	tell := func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(http.LocalAddrContextKey) == nil {
			plain.Add(1)
		}
		fmt.Fprintf(w, "%s %q %q", r.Pattern, r.PathValue("model"), r.PathValue("version"))
	}
	for _, p := range []string{"/m/{model}/infer", "/m/{model}/versions/{version}/infer", "/m/{model}"} {
		mux.HandleFunc("POST "+p, tell)
	}
	ours, _ := served(t, mux, Limits{Plain: []string{"/m/{model}/infer", "/m/{model}/versions/{version}/infer", "/m/{model}"}})
	theirs, _ := served(t, mux, Limits{})
	for path, isPlain := range map[string]bool{
		"/m/a/infer": true, "/m/A-b_0.9/infer": true, "/m/a:predict": true, "/m/a/versions/1.2/infer": true, "/m/infer": true, "/m/...": true,
		"/m/a%62/infer": false, "/m//infer": false, "/m/./infer": false, "/m/../infer": false, "/m/a/infer/": false, "/m/a/infer?x=1": false,
		"/m/a b/infer": false, "/m/ü": false, "/m/a;b/infer": false, "/m": false, "/m/": false, "m/a": false, "/m/a/versions/infer": false, "/m/{model}": false,
	} {
		was := plain.Load()
		text := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		got := strings.Join(exchange(t, ours, []byte(text), nil), "\n")
		if (plain.Load() > was) != isPlain {
			t.Errorf("%s: plain is %v, want %v", path, plain.Load() > was, isPlain)
		}
		if want := strings.Join(exchange(t, theirs, []byte(text), nil), "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		}
	}
}

// TestPlainCallerLeaves lets a handler wait for its client's going: it is told,
// and not before, and the context ends with the request.
func TestPlainCallerLeaves(t *testing.T) {
	asked, told := make(chan context.Context, 1), make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Context()
		if r.ContentLength == 0 {
			return
		}
		<-r.Context().Done()
		told <- r.Context().Err()
	})
	addr, _ := served(t, h, Limits{Plain: []string{plainPath}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", plainPath)
	first := <-asked
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	<-first.Done() // it was answered
	if first.Err() == nil {
		t.Error("a context that ended has no error")
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", plainPath)
	second := <-asked
	ctx, cancel := context.WithTimeout(second, 3*lookEvery) // waits and looks meanwhile
	<-ctx.Done()
	if cancel(); second.Err() != nil {
		t.Fatalf("the client is there: %v", second.Err())
	}
	conn.Close()
	if err := <-told; err != context.Canceled {
		t.Errorf("the client is gone: %v", err)
	}
}
