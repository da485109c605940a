package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const plainPath = "/echo"

// echo tells what it was asked, in the way that the request's X-Do says. plain
// counts requests that net/http has not seen.
func echo(plain *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(http.LocalAddrContextKey) == nil {
			plain.Add(1)
		}
		body, err := io.ReadAll(r.Body)
		if len(body) > 1000 { // answers stay small: what is still on its way when a server closes is lost
			body = fmt.Appendf(nil, "%d bytes, %x", len(body), sha256.Sum256(body))
		}
		var names []string
		for name, values := range r.Header {
			names = append(names, fmt.Sprintf("%s=%q", name, values))
		}
		slices.Sort(names)
		text := fmt.Sprintf("%s %s %s %s host=%s length=%d transfer=%v close=%v tls=%v form=%v %s body=%q err=%v", r.Method, r.RequestURI, r.URL, r.Proto, r.Host, r.ContentLength, r.TransferEncoding, r.Close, r.TLS != nil, r.Form, names, body, err)
		h := w.Header()
		switch r.Header.Get("X-Do") {
		case "status":
			w.WriteHeader(499)
		case "empty":
			w.WriteHeader(http.StatusNoContent)
			return
		case "nothing":
			return
		case "large":
			text = strings.Repeat(text, 4_000)
			h.Set("Content-Length", strconv.Itoa(len(text)))
			h["Content-Type"] = []string{"text/odd"}
		case "pieces":
			fmt.Fprint(w, "first ")
			h.Set("Too-Late", "yes")
		case "close":
			h.Set("Connection", "close")
		case "abort":
			panic(http.ErrAbortHandler)
		case "lines":
			h.Set("X-Lines", "a\r\nb: c")
		}
		fmt.Fprint(w, text)
	})
}

// served starts Serve with these plain paths.
func served(t testing.TB, h http.Handler, lim Limits) (addr string, stop func() error) {
	t.Helper()
	ln, err := Listen("HTTP", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, h, lim, 10*time.Second, slog.New(slog.DiscardHandler)) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

// exchange sends a stream of bytes in pieces and describes all that comes back.
func exchange(t interface{ Fatal(...any) }, addr string, stream []byte, cuts []int) (out []string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		from := 0
		for _, cut := range append(slices.Clone(cuts), len(stream)) {
			if _, err := conn.Write(stream[from:cut]); err != nil {
				return // refused while it was being sent: the answer says so
			}
			from = cut
		}
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("no answer and no end: ", err)
			}
			return out
		}
		body, err := io.ReadAll(res.Body)
		for _, name := range []string{"Date", "Content-Length"} {
			res.Header.Del(name)
		}
		out = append(out, fmt.Sprint(res.StatusCode, " ", res.Status, " ", res.Proto, " ", res.Header, " close=", res.Close, " ", err, " ", len(body), " ", string(body[:min(len(body), 2000)])))
	}
}

// plainCases are heads and bodies; those that want plain are not for net/http.
func plainCases() map[string]string {
	post := func(head, body string) string {
		return "POST " + plainPath + " HTTP/1.1\r\nHost: a.b:80\r\n" + head + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	cases := map[string]string{
		"plain":             post("", "hello"),
		"plain empty":       post("", ""),
		"plain odd case":    post("content-TYPE: x\r\nX-a:b\r\nX-A:   c  \r\nconnection: Keep-Alive\r\n", "hello"),
		"plain large":       post("X-Do: large\r\n", "hello"),
		"plain long":        post("", strings.Repeat("x", 200_000)),
		"query":             strings.Replace(post("", "x"), plainPath, plainPath+"?a=1", 1),
		"other path":        strings.Replace(post("", "x"), plainPath, "/other", 1),
		"absolute":          strings.Replace(post("", "x"), plainPath, "http://h"+plainPath, 1),
		"get":               "GET " + plainPath + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"1.0":               strings.Replace(post("", "x"), "HTTP/1.1", "HTTP/1.0", 1),
		"2.0":               strings.Replace(post("", "x"), "HTTP/1.1", "HTTP/2.0", 1),
		"two spaces":        strings.Replace(post("", "x"), " HTTP", "  HTTP", 1),
		"no length":         "POST " + plainPath + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"no host":           "POST " + plainPath + " HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"chunked":           "POST " + plainPath + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"length and chunks": "POST " + plainPath + " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"bare feeds":        strings.ReplaceAll(post("", "x"), "\r\n", "\n"),
		"body too short":    strings.TrimSuffix(post("", "hello"), "lo"),
		"long body":         post("", strings.Repeat("y", maxPlainBody+1)),
		"not HTTP":          "\x16\x03\x01 hello\r\n\r\n",
		"h2":                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	}
	for _, do := range []string{"status", "empty", "nothing", "pieces", "close", "abort", "lines"} {
		cases["plain do "+do] = post("X-Do: "+do+"\r\n", "hello")
	}
	for _, line := range []string{
		"Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: h2c", "Expect: 100-continue", "Te: trailers", "Trailer: X", "Pragma: no-cache",
		"Host: second", "Content-Length: 5", "Content-Length: +5", "Content-Length: 5, 5", "X: a\tb", "X: a\x01b", "X: \xff", " folded: x", "X : y", ": y", "no colon", "X: a\rb",
		"X: " + strings.Repeat("z", maxPlainHead),
	} {
		cases["line "+line[:min(len(line), 30)]] = post(line+"\r\n", "hello")
	}
	for _, host := range []string{"", "a b", "a/b", "[::1]:80", "ü"} {
		cases["host "+host] = strings.Replace(post("", "hello"), "a.b:80", host, 1)
	}
	return cases
}

// TestPlainAnswersAsNetHTTP asks both the same, whole, in pieces and again
// after it: what they answer is the same, and plain requests really are
// answered without net/http.
func TestPlainAnswersAsNetHTTP(t *testing.T) {
	var plain, none atomic.Int64
	ours, _ := served(t, echo(&plain), Limits{Plain: []string{plainPath}})
	theirs, _ := served(t, echo(&none), Limits{})
	after := plainCases()["plain"]
	for name, text := range plainCases() {
		for _, stream := range []string{text, text + text + after, after + text} {
			was := plain.Load()
			cuts := []int{}
			got, want := exchange(t, ours, []byte(stream), cuts), exchange(t, theirs, []byte(stream), cuts)
			if !slices.Equal(got, want) {
				t.Errorf("%s: got\n%.3000s\nwant\n%.3000s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if strings.HasPrefix(name, "plain") && plain.Load() == was {
				t.Errorf("%s: net/http answered it", name)
			}
		}
	}
	if none.Load() != 0 {
		t.Errorf("%d requests were answered without net/http though no path is plain", none.Load())
	}
}

// TestPlainStreams sends mixtures of requests over one connection, cut anywhere.
func TestPlainStreams(t *testing.T) {
	var plain, none atomic.Int64
	ours, _ := served(t, echo(&plain), Limits{Plain: []string{plainPath}})
	theirs, _ := served(t, echo(&none), Limits{})
	cases := plainCases()
	var names, easy []string
	for name := range cases {
		names = append(names, name)
		if strings.HasPrefix(name, "plain") && name != "plain do close" && name != "plain do abort" && name != "plain large" {
			easy = append(easy, name)
		}
	}
	slices.Sort(names)
	slices.Sort(easy)
	rapid.Check(t, func(rt *rapid.T) {
		var stream []byte
		for range rapid.IntRange(0, 5).Draw(rt, "requests") {
			stream = append(stream, cases[rapid.SampledFrom(easy).Draw(rt, "easy")]...)
		}
		// What ends the connection comes last and in one piece: bytes that reach a
		// closed socket take the answers before them with it.
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(stream)), 0, 4).Draw(rt, "cuts")
		last := []byte(cases[rapid.SampledFrom(names).Draw(rt, "last")])
		if len(last) < 1000 && rapid.Bool().Draw(rt, "mutate") {
			last[rapid.IntRange(0, len(last)-1).Draw(rt, "at")] = rapid.SampledFrom([]byte("\r\n:, \t0a\x00\xff")).Draw(rt, "byte")
		}
		stream = append(stream, last...)
		slices.Sort(cuts)
		got, want := exchange(rt, ours, stream, cuts), exchange(rt, theirs, stream, cuts)
		if !slices.Equal(got, want) {
			rt.Fatalf("%.2000q: got\n%.3000s\nwant\n%.3000s", stream, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	if plain.Load() == 0 {
		t.Error("net/http answered everything")
	}
}

// TestPlainBodyThatDoesNotCome is answered by the handler, as net/http has it,
// and a client that says nothing is cut off.
func TestPlainBodyThatDoesNotCome(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "too slow", http.StatusRequestTimeout)
		}
	})
	addr, _ := served(t, h, Limits{Header: 50 * time.Millisecond, Body: 50 * time.Millisecond, Plain: []string{plainPath}})
	for text, want := range map[string]string{
		"POST " + plainPath + " HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhel": "HTTP/1.1 408",
		"POST " + plainPath + " HTTP/1.1\r\nHost: x\r\nConten":                            "", // some answer or none, but an end
		"": "",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprint(conn, text)
		if want != "" { // and then a byte at a time
			go func() {
				for range 100_000 {
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
		}
		got, err := io.ReadAll(conn)
		if (err != nil && want == "") || !bytes.HasPrefix(got, []byte(want)) { // who goes on writing is reset after the answer
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// TestPlainDrains stops a server with one connection that waits and one whose
// request is under way: the first ends, the second is answered and then ends.
func TestPlainDrains(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 1 {
			close(started)
			<-release
		}
		fmt.Fprint(w, "done")
	})
	addr, stop := served(t, h, Limits{Header: time.Minute, Body: time.Minute, Plain: []string{plainPath}})
	dial := func(body string) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", plainPath, len(body), body)
		return conn, bufio.NewReader(conn)
	}
	_, idle := dial("")
	if res, err := http.ReadResponse(idle, nil); err != nil || res.Close {
		t.Fatal(res, err)
	} else if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	_, busy := dial("x")
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if _, err := idle.ReadByte(); !errors.Is(err, io.EOF) {
		t.Fatalf("the connection that waits: %v", err)
	}
	close(release)
	res, err := http.ReadResponse(busy, nil)
	if err != nil || !res.Close {
		t.Fatal(res, err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
		t.Fatalf("%q, %v", body, err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}
