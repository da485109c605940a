package broker

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/stream"
)

// listener checks the frames of its connections, and tells clients the
// advertised address.
type listener struct {
	net.Listener
	advertised net.Addr
	maxFrame   int
	hello      time.Duration
	frame      time.Duration
	create     atomic.Pointer[creator] // nil: clients may not create topics by asking

	tls   *tls.Config // nil: plain
	guard Guard       // nil: anybody
	users *principals // nil without a guard
	check *stream.Checker
	log   *slog.Logger

	begin   sync.Once
	arrived chan arrival // connections from outside, and of this process
	closed  chan struct{}
	end     sync.Once
}

type arrival struct {
	conn net.Conn
	err  error
	own  bool // made within this process
}

// hostPort is an address by name.
type hostPort string

// Network returns "tcp".
func (hostPort) Network() string { return "tcp" }

// String returns host:port.
func (a hostPort) String() string { return string(a) }

func listen(cfg Config) (*listener, error) {
	inner, err := net.Listen("tcp", cfg.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("start the embedded broker: %s is taken by another process; stop it or choose another address (--kafka): %w", cfg.Addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: listen on %s: %w", cfg.Addr, err)
	}
	l := &listener{Listener: inner, advertised: inner.Addr(), maxFrame: max(100<<20, 2*cfg.MaxMessageBytes), hello: cfg.HelloTimeout, frame: cfg.FrameTimeout,
		tls: cfg.TLS, guard: cfg.Guard, check: stream.NewChecker(), log: cfg.Logger, arrived: make(chan arrival), closed: make(chan struct{})}
	if cfg.Advertise != "" {
		if _, _, err := net.SplitHostPort(cfg.Advertise); err != nil {
			inner.Close()
			return nil, fmt.Errorf("start the embedded broker: advertised address %q is not host:port: %w", cfg.Advertise, err)
		}
		l.advertised = hostPort(cfg.Advertise)
	}
	return l, nil
}

// only is the listen function of a cluster of one broker.
func (l *listener) only(string, string) (net.Listener, error) { return l, nil }

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.listen() })
	for {
		var next arrival
		select {
		case next = <-l.arrived:
		case <-l.closed:
			return nil, net.ErrClosed
		}
		if next.err != nil {
			return nil, next.err
		}
		if conn := l.open(next); conn != nil {
			return conn, nil
		}
	}
}

// open makes a connection one that kfake may have; nil where it has gone.
func (l *listener) open(a arrival) net.Conn {
	if err := a.conn.SetReadDeadline(time.Now().Add(l.hello)); err != nil {
		a.conn.Close()
		return nil
	}
	c := &framed{Conn: a.conn, listener: l, own: a.own}
	if l.tls != nil && !a.own {
		c.Conn = tls.Server(a.conn, l.tls) // shakes hands at the first read
	}
	if l.guard != nil {
		c.session = newSession(l.users, l.guard, a.own)
	}
	return c
}

// listen takes connections from outside until the listener is closed.
func (l *listener) listen() {
	for {
		conn, err := l.Listener.Accept()
		select {
		case l.arrived <- arrival{conn: conn, err: err}:
		case <-l.closed:
			if conn != nil {
				conn.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Close stops listening.
func (l *listener) Close() error {
	l.end.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// dial connects from within this process, by a pair of sockets that nobody else
// can reach.
func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded broker: %w", err)
	}
	select {
	case l.arrived <- arrival{conn: theirs, own: true}:
		return ours, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, ours.Close(), theirs.Close())
}

func socketPair() (a, b net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "broker")
		conn, e := net.FileConn(f)
		err = errors.Join(err, e, f.Close())
		ends[i] = conn
	}
	return ends[0], ends[1], err
}

// Addr returns the address that clients are told.
func (l *listener) Addr() net.Addr { return l.advertised }

// framed checks each request's length and kind before they are read: kfake
// allocates any length and ends the process on an unknown kind.
type framed struct {
	net.Conn
	listener *listener
	own      bool     // made within this process
	session  *session // nil: anybody may do everything
	ready    []byte   // read, checked, and not handed out yet
	body     int      // bytes of the frame still to read
}

// Read reads from the connection, refusing it at the first frame that is no
// Kafka request.
func (c *framed) Read(b []byte) (int, error) {
	for len(c.ready) == 0 && c.body == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.ready) > 0 {
		n := copy(b, c.ready)
		c.ready = c.ready[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b[:min(len(b), c.body)])
	c.body -= n
	if c.body == 0 && err == nil {
		err = c.idle()
	}
	return n, err
}

// idle lets a client that is known wait as long as it likes with its next
// request.
func (c *framed) idle() error {
	if c.stranger() {
		return nil
	}
	return c.Conn.SetReadDeadline(time.Time{})
}

// stranger reports whether the client has yet to say who it is: until then all
// of it takes the time that a first request may.
func (c *framed) stranger() bool { return c.session != nil && c.session.client == nil }

// Write writes one answer.
func (c *framed) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.session != nil {
		c.session.wrote()
	}
	return n, err
}

// next reads the beginning of a frame: length, kind and version. Once it has
// begun, it has to end: half of one would be held for ever.
func (c *framed) next() error {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.Conn, head[:1]); err != nil {
		return err
	}
	if !c.stranger() {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.listener.frame)); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(c.Conn, head[1:]); err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint32(head))
	kind, version := int16(binary.BigEndian.Uint16(head[4:])), int16(binary.BigEndian.Uint16(head[6:]))
	req := kmsg.RequestForKey(kind)
	if size < 8 || size > int64(c.listener.maxFrame) || req == nil || version < 0 || version > req.MaxVersion() {
		return fmt.Errorf("from %v: no Kafka request: %d bytes of kind %d, version %d", c.RemoteAddr(), size, kind, version)
	}
	if c.stranger() {
		var err error
		if c.ready, err = c.session.admit(c.Conn, c.listener.hello, kind, version, head, int(size)-4); err != nil {
			return err
		}
		return c.idle()
	}
	if c.session != nil {
		if err := c.session.known(kind); err != nil {
			return err
		}
	}
	c.ready, c.body = head, int(size)-4
	create := c.listener.create.Load()
	switch {
	case kmsg.Key(kind) == kmsg.Metadata && create != nil, kmsg.Key(kind) == kmsg.Produce && !c.own, c.session != nil && !c.own && named(kind):
		return c.whole(kind, version)
	case c.body > 0:
		return nil
	}
	return c.idle()
}

// whole reads the rest of a frame and looks at all of it before it is handed
// out.
func (c *framed) whole(kind, version int16) error {
	c.ready = append(c.ready, make([]byte, c.body)...)
	c.body = 0
	if _, err := io.ReadFull(c.Conn, c.ready[8:]); err != nil {
		return err
	}
	if create := c.listener.create.Load(); kmsg.Key(kind) == kmsg.Metadata && create != nil {
		create.asked(version, c.ready[8:])
	}
	if c.session != nil {
		c.session.notes(kind, version, c.ready)
	}
	if kmsg.Key(kind) == kmsg.Produce && !c.own {
		c.listener.produced(version, c.ready, c.RemoteAddr())
	}
	return c.idle()
}

// creator creates the topics that a metadata request asks to create.
type creator struct{ cluster *kfake.Cluster }

func (c *creator) asked(version int16, frame []byte) {
	r := kbin.Reader{Src: frame}
	r.Int32()          // correlation id
	r.NullableString() // client id
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(version)
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if req.ReadFrom(r.Src) != nil || !req.AllowAutoTopicCreation {
		return
	}
	for _, t := range req.Topics {
		if t.Topic != nil && *t.Topic != "" {
			c.cluster.CreateTopic(*t.Topic, -1, nil) //nolint:errcheck // the request's own answer tells what is wrong with it
		}
	}
}
