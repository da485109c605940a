package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// OpenLoop asks a server on schedule, whether or not it has answered what
// was asked before, from one thread that never sleeps and leaves no garbage: what
// it measures is the server and the kernel between, not a scheduler of its own.
type OpenLoop struct {
	Addr        string   // address and port
	Requests    [][]byte // sent in turn
	Connections int
	Rate        float64       // requests a second; 0: as soon as a connection is free
	N           int           // how many at most
	For         time.Duration // how long at most; 0: until all are answered
	Whole       Whole         // nil: [WholeHTTP]
}

// Whole finds an answer's end: a status of 0 says that more is to come.
type Whole func(answer []byte) (status int, err error)

// Answered is what came of it.
type Answered struct {
	Took            []time.Duration // of those answered with 200, from when each was due
	FromSent        []time.Duration // of the same, from when each was sent: without what a stall before it cost
	Refused, Failed int             // with 429, and with anything else
	Elapsed         time.Duration
}

// asking is one connection.
type asking struct {
	fd   int
	buf  []byte
	have int
	due  time.Duration
	sent time.Duration
}

// Run needs a processor of its own for as long as it takes.
func (l OpenLoop) Run() (out *Answered, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(poll) //nolint:errcheck // nothing was written to it
	conns := make([]asking, l.Connections)
	free := make([]int, 0, l.Connections)
	for i := range conns {
		if conns[i], err = dial(l.Addr, poll, i); err != nil {
			return nil, err
		}
		defer syscall.Close(conns[i].fd) //nolint:errcheck // every answer was read
		free = append(free, i)
	}
	whole := l.Whole
	if whole == nil {
		whole = WholeHTTP
	}
	out = &Answered{Took: make([]time.Duration, 0, l.N), FromSent: make([]time.Duration, 0, l.N)}
	events := make([]syscall.EpollEvent, 256)
	start := time.Now()
	for sent, done := 0, 0; done < l.N && (l.For == 0 || time.Since(start) < l.For); {
		for sent < l.N && len(free) > 0 {
			due := time.Since(start)
			if l.Rate > 0 {
				if at := time.Duration(float64(sent) / l.Rate * 1e9); at > due {
					break
				} else {
					due = at
				}
			}
			c := &conns[free[len(free)-1]]
			free, c.due, c.sent, c.have = free[:len(free)-1], due, time.Since(start), 0
			if c.send(l.Requests[sent%len(l.Requests)]) != nil {
				return nil, errors.New("open loop: a connection takes no request")
			}
			sent++
		}
		n, err := syscall.EpollWait(poll, events, 0)
		if err != nil && err != syscall.EINTR {
			return nil, fmt.Errorf("open loop: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			status, err := conns[e.Fd].read(whole)
			if err != nil {
				return nil, fmt.Errorf("open loop: %w", err)
			}
			if status == 0 {
				continue // more is to come
			}
			switch status {
			case 200:
				now := time.Since(start)
				out.Took, out.FromSent = append(out.Took, now-conns[e.Fd].due), append(out.FromSent, now-conns[e.Fd].sent)
			case 429:
				out.Refused++
			default:
				out.Failed++
			}
			free, done = append(free, int(e.Fd)), done+1
		}
	}
	out.Elapsed = time.Since(start)
	return out, nil
}

func dial(addr string, poll, i int) (c asking, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return c, err
	}
	if c.fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		return c, err
	}
	c.buf = make([]byte, 64<<10)
	return c, errors.Join(
		syscall.Connect(c.fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
		syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.SetNonblock(c.fd, true),
		syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, c.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}),
	)
}

func (c *asking) send(request []byte) error {
	for len(request) > 0 {
		n, err := syscall.Write(c.fd, request)
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			return err
		}
		request = request[max(n, 0):]
	}
	return nil
}

// read answers the status when the answer is whole, 0 before.
func (c *asking) read(whole Whole) (status int, err error) {
	if c.have == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := syscall.Read(c.fd, c.buf[c.have:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return 0, nil
	}
	if err != nil || n == 0 {
		return 0, fmt.Errorf("the server ends a connection (%v)", err)
	}
	c.have += n
	return whole(c.buf[:c.have])
}

// WholeHTTP takes answers that state their length.
func WholeHTTP(got []byte) (status int, err error) {
	end := bytes.Index(got, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	_, after, ok := bytes.Cut(got[:end+2], []byte("Content-Length: "))
	length, _, _ := bytes.Cut(after, []byte("\r\n"))
	size, err := strconv.Atoi(string(length))
	if !ok || err != nil {
		return 0, fmt.Errorf("an answer does not state its length: %.200s", got)
	}
	if len(got) < end+4+size {
		return 0, nil
	}
	return strconv.Atoi(string(got[9:12]))
}
