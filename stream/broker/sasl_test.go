package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/stream"
)

// wire is a connection on which bytes came and no more will.
type wire struct {
	net.Conn
	in *bytes.Reader
}

func (w *wire) Read(b []byte) (int, error)    { return w.in.Read(b) }
func (*wire) Write(b []byte) (int, error)     { return len(b), nil }
func (*wire) SetReadDeadline(time.Time) error { return nil }
func (*wire) RemoteAddr() net.Addr            { return hostPort("192.0.2.1:1") }
func frameOf(req kmsg.Request, v int16) []byte {
	req.SetVersion(v)
	b := kbin.AppendInt16(kbin.AppendInt16(make([]byte, 4), req.Key()), v)
	b = append(kbin.AppendInt32(b, 7), 0xff, 0xff) // no client id
	if req.IsFlexible() {
		b = append(b, 0)
	}
	b = req.AppendTo(b)
	kbin.AppendInt32(b[:0], int32(len(b)-4))
	return b
}

// hello is what a client of SASL/PLAIN begins with.
func hello(plain string) []byte {
	shake, auth := kmsg.NewPtrSASLHandshakeRequest(), kmsg.NewPtrSASLAuthenticateRequest()
	shake.Mechanism, auth.SASLAuthBytes = "PLAIN", []byte(plain)
	return append(append(frameOf(kmsg.NewPtrApiVersionsRequest(), 3), frameOf(shake, 1)...), frameOf(auth, 2)...)
}

// passes feeds bytes to a guarded connection and returns the kinds of requests
// that it handed on, and whether the guard let somebody in.
func passes(t *testing.T, data []byte) (kinds []int16, in bool) {
	guard := func(user, password string, _ net.Addr) (Client, error) {
		if user != "u" || password != "good" {
			return Client{}, errors.New("no")
		}
		in = true
		return Client{Read: []string{"t"}, Denied: func(string, string, bool) {}}, nil
	}
	users := newPrincipals(func(string, Client) error { return nil })
	l := &listener{maxFrame: 1 << 20, hello: time.Minute, frame: time.Minute, guard: guard, users: users, check: stream.NewChecker(), log: slog.New(slog.DiscardHandler)}
	c := &framed{Conn: &wire{in: bytes.NewReader(data)}, listener: l, session: newSession(users, guard, false)}
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		out = append(out, buf[:n]...)
		c.session.wrote() // kfake answers what it is handed
		if err != nil {
			break
		}
		if len(out) > len(data)+1<<10 {
			t.Fatalf("%d bytes became %d", len(data), len(out))
		}
	}
	if strings.Contains(string(data), users.secret) {
		t.Fatal("the secret was guessed")
	}
	for r := bytes.NewReader(out); ; {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return kinds, in
		}
		kinds = append(kinds, int16(binary.BigEndian.Uint16(head[4:])))
		if _, err := io.CopyN(io.Discard, r, int64(int32(binary.BigEndian.Uint32(head[:])))-4); err != nil {
			return kinds, in
		}
	}
}

// FuzzHello: whatever a client sends, kfake is handed nothing but greetings
// before the guard has let it in. That the guard lets in who it should is seen of
// the first seeds, so that the test can see.
func FuzzHello(f *testing.F) {
	fetch := frameOf(kmsg.NewPtrFetchRequest(), 11)
	f.Add(append(hello("\x00u\x00good"), fetch...))
	f.Add(append(hello("\x00u\x00bad"), fetch...))
	f.Add(append(hello("u\x00u\x00good"), fetch...))
	f.Add(append(hello("other\x00u\x00good"), fetch...))
	f.Add(append(hello("\x00kedge\x00good"), fetch...))
	f.Add(append(hello("\x00u\x00good\x00"), fetch...))
	f.Add(hello(strings.Repeat("x", maxHello)))
	f.Add(fetch)
	f.Add(hello("")[:40])
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 36, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		kinds, in := passes(t, data)
		for _, k := range kinds {
			if key := kmsg.Key(k); !in && key != kmsg.ApiVersions && key != kmsg.SASLHandshake {
				t.Errorf("%s was handed on, and nobody was let in", key.Name())
			}
		}
	})
}

// TestHello sees what FuzzHello looks for, on the one greeting that is right.
func TestHello(t *testing.T) {
	fetch := frameOf(kmsg.NewPtrFetchRequest(), 11)
	if kinds, in := passes(t, append(hello("\x00u\x00good"), fetch...)); !in || len(kinds) != 4 || kmsg.Key(kinds[3]) != kmsg.Fetch {
		t.Errorf("a good greeting: %v, let in: %t", kinds, in)
	}
	if kinds, in := passes(t, append(hello("\x00u\x00bad"), fetch...)); in || len(kinds) != 2 {
		t.Errorf("a bad greeting: %v, let in: %t", kinds, in)
	}
}
