package web

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// plain answers plain requests: a POST to one of a few paths that states its
// length, whose head comes in one piece and has nothing in it that changes how
// HTTP is spoken. Whatever else a connection brings (another path, chunks,
// Expect, Upgrade, Connection: close, a head in pieces or longer than a page)
// is given to net/http, from that request's first byte on and for as long as
// the connection lives. So there is one set of handlers and one HTTP server;
// what net/http costs of a small answer (a second goroutine and read that watch
// the client, two writes, header maps) is not paid where it is not needed.
//
// Handlers differ in one point only: nothing leaves before the handler has
// returned.
type plain struct {
	srv     *http.Server
	lim     Limits
	date    atomic.Pointer[dateText]
	callers callers

	closing atomic.Bool
	mu      sync.Mutex
	conns   map[*plainConn]struct{}
	busy    sync.WaitGroup
}

type dateText struct {
	second int64
	text   string
}

// maxPlainHead and maxPlainBody bound what is read here; more is net/http's.
const (
	maxPlainHead = 8 << 10
	maxPlainBody = 1 << 20
	idleTime     = 2 * time.Minute
)

func newPlain(srv *http.Server, lim Limits) *plain {
	return &plain{srv: srv, lim: lim, conns: map[*plainConn]struct{}{}}
}

// plainListener keeps connections that may bring plain requests; those over TLS
// it passes on.
type plainListener struct {
	net.Listener
	p *plain
}

func (l plainListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		tcp, ok := conn.(*net.TCPConn)
		if err != nil || !ok || len(l.p.lim.Plain) == 0 {
			return conn, err
		}
		l.p.take(tcp)
	}
}

func (p *plain) take(tcp *net.TCPConn) {
	c := &plainConn{p: p, tcp: tcp, buf: make([]byte, maxPlainHead)}
	c.w.c = c
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Load() {
		tcp.Close()
		return
	}
	p.conns[c] = struct{}{}
	p.busy.Go(c.serve)
}

// drain ends connections that wait and lets requests under way finish until ctx
// ends.
func (p *plain) drain(ctx context.Context) error {
	p.mu.Lock()
	p.closing.Store(true)
	for c := range p.conns {
		_ = c.tcp.SetReadDeadline(time.Unix(1, 0))
	}
	p.mu.Unlock()
	done := make(chan struct{})
	go func() { p.busy.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.tcp.Close()
	}
	return ctx.Err()
}

// plainConn is one connection, served by one goroutine.
type plainConn struct {
	p       *plain
	tcp     *net.TCPConn
	buf     []byte
	from    int // buf[from:to] is read and not yet used
	to      int
	readBy  time.Time // the deadlines that are set
	writeBy time.Time

	head    []byte        // the last request's
	request *http.Request // what head says; never changed
	body    bytes.Reader
	w       plainWriter
}

// errNotPlain says that net/http is to go on.
var errNotPlain = errors.New("not a plain request")

func (c *plainConn) serve() {
	defer func() {
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
	}()
	for wait := cmp.Or(c.p.lim.Header, c.p.lim.Body); ; wait = idleTime {
		body, err := c.next(wait)
		if errors.Is(err, errNotPlain) {
			c.handOver()
			return
		}
		if err != nil || !c.answer(body) {
			c.tcp.Close()
			return
		}
		if cap(c.buf) > 8*maxPlainHead && c.from == c.to { // a large request does not hold its memory while the client rests
			c.buf, c.from, c.to = make([]byte, maxPlainHead), 0, 0
		}
	}
}

// next reads a request: its head into c.request, its body is returned and stays
// until the next call.
func (c *plainConn) next(wait time.Duration) ([]byte, error) {
	if c.from == c.to {
		c.from, c.to = 0, 0
		if err := c.fill(wait); err != nil {
			return nil, err
		}
	}
	for i := 0; i < 4 && c.request != nil && c.from < c.to && (c.buf[c.from] == '\r' || c.buf[c.from] == '\n'); i++ {
		c.from++ // old clients end a POST with an empty line more; net/http forgives as many
	}
	end := bytes.Index(c.buf[c.from:c.to], []byte("\r\n\r\n")) + 4
	if end < 4 || !c.readHead(c.buf[c.from:c.from+end]) {
		return nil, errNotPlain
	}
	whole := end + int(c.request.ContentLength)
	if whole > len(c.buf)-c.from {
		buf := make([]byte, max(whole, maxPlainHead))
		c.from, c.to = 0, copy(buf, c.buf[c.from:c.to])
		c.buf = buf
	}
	for until := time.Now().Add(c.p.lim.Body); c.to-c.from < whole; {
		left := c.p.lim.Body
		if left > 0 { // for the whole body, however it trickles
			left = max(time.Until(until), 1)
		}
		if err := c.fill(left); err != nil {
			return nil, errNotPlain // the handler says what a body is that does not come
		}
	}
	body := c.buf[c.from+end : c.from+whole]
	c.from += whole
	return body, nil
}

// fill reads once; wait 0 is for ever.
func (c *plainConn) fill(wait time.Duration) error {
	c.readBy = c.limit(c.tcp.SetReadDeadline, c.readBy, wait)
	if c.p.closing.Load() { // after the deadline is set: drain sets another after this
		return net.ErrClosed
	}
	n, err := c.tcp.Read(c.buf[c.to:])
	c.to += n
	if n > 0 {
		return nil
	}
	return cmp.Or(err, io.ErrUnexpectedEOF)
}

// limit sets a deadline, unless the one that is set is as good: setting one
// costs as much as parsing a request.
func (c *plainConn) limit(set func(time.Time) error, have time.Time, wait time.Duration) time.Time {
	if wait <= 0 {
		if !have.IsZero() {
			_ = set(time.Time{})
		}
		return time.Time{}
	}
	want := time.Now().Add(wait)
	if early := want.Sub(have); early >= 0 && early < wait/16 {
		return have
	}
	_ = set(want)
	return want
}

// handOver gives the connection, with what is read and not used, to net/http.
func (c *plainConn) handOver() {
	_ = c.tcp.SetDeadline(time.Time{})
	l := &oneConn{conn: &resumed{Conn: c.tcp, read: c.buf[c.from:c.to]}}
	_ = c.p.srv.Serve(l) // returns at once, with the second Accept's error
	if l.conn != nil {   // the server is closing
		c.tcp.Close()
	}
}

// oneConn is a listener that has one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	conn := l.conn
	if l.conn = nil; conn == nil {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// resumed is a connection whose first bytes were read before.
type resumed struct {
	net.Conn
	read []byte
}

func (r *resumed) Read(b []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(b, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// answer calls the handler and writes what it answers; false ends the
// connection.
func (c *plainConn) answer(body []byte) (keep bool) {
	defer func() {
		if v := recover(); v != nil {
			keep = false
			if v != http.ErrAbortHandler {
				c.p.srv.ErrorLog.Printf("panic serving %s: %v\n%s", c.request.RemoteAddr, v, debug.Stack())
			}
		}
	}()
	c.body.Reset(body)
	x := &caller{Context: context.Background(), c: c}
	defer x.end()
	r := c.request.WithContext(x)
	r.Body = io.NopCloser(&c.body)
	c.w.reset()
	c.p.srv.Handler.ServeHTTP(&c.w, r)
	return c.w.finish()
}

// readHead reads a request's head into c.request; false means that it is not a
// plain one. A client that sends the same head again, as most do, costs a
// comparison.
func (c *plainConn) readHead(head []byte) bool {
	if c.request != nil && bytes.Equal(head, c.head) {
		return true
	}
	text := string(head)
	c.request = parsePlain(text, c.p.lim.Plain)
	if c.request == nil {
		return false
	}
	c.head = append(c.head[:0], head...)
	c.request.RemoteAddr = c.tcp.RemoteAddr().String()
	return true
}

// now is the Date header as of this second.
func (p *plain) now() string {
	t := time.Now()
	if d := p.date.Load(); d != nil && d.second == t.Unix() {
		return d.text
	}
	d := &dateText{t.Unix(), t.UTC().Format(http.TimeFormat)}
	p.date.Store(d)
	return d.text
}
