package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxHello bounds the frames of a client that has not said who it is.
const maxHello = 64 << 10

// session is what a connection to a guarded broker has proved. The guard
// decides, not kfake, which keeps passwords as they are: a good one is replaced
// by that of the user who may do the same.
type session struct {
	users  *principals
	guard  Guard
	own    bool // made within this process
	client *Client
	// passed is set while kfake has a request that it has not answered: what is
	// answered here must not overtake it. Only until the client is known.
	passed   bool
	answered chan struct{}
	denied   denials
}

func newSession(users *principals, guard Guard, own bool) *session {
	return &session{users: users, guard: guard, own: own, answered: make(chan struct{}, 1)}
}

// wrote hears that kfake has answered.
func (s *session) wrote() {
	select {
	case s.answered <- struct{}{}:
	default: // nobody waits: the client is known
	}
}

// admit decides about a frame of a client that is not known, whose first 8
// bytes are head. It returns the frame to hand on, or nil where it was answered
// here.
func (s *session) admit(conn net.Conn, wait time.Duration, kind, version int16, head []byte, body int) ([]byte, error) {
	if body > maxHello {
		return nil, fmt.Errorf("from %v: %d bytes before it said who it is", conn.RemoteAddr(), body)
	}
	frame := append(head, make([]byte, body)...)
	if _, err := io.ReadFull(conn, frame[len(head):]); err != nil {
		return nil, err
	}
	if s.passed {
		select {
		case <-s.answered:
			s.passed = false
		case <-time.After(wait):
			return nil, errors.New("the answer before was not written in time")
		}
	}
	var err error
	switch kmsg.Key(kind) {
	case kmsg.ApiVersions:
	case kmsg.SASLHandshake:
		frame, err = s.handshake(conn, version, frame)
	case kmsg.SASLAuthenticate:
		frame, err = s.authenticate(conn, version, frame)
	default:
		return nil, fmt.Errorf("from %v: request of kind %d without SASL", conn.RemoteAddr(), kind)
	}
	s.passed = frame != nil
	return frame, err
}

// known decides about a request of a client that said who it is.
func (s *session) known(kind int16) error {
	if kmsg.Key(kind) == kmsg.SASLHandshake || kmsg.Key(kind) == kmsg.SASLAuthenticate {
		return errors.New("a client said twice who it is")
	}
	if s.client.Still != nil && !s.client.Still() {
		return errors.New("what the client proved has ended")
	}
	return nil
}

// request reads a frame into a request and returns what stands before it.
func request(frame []byte, req kmsg.Request, version int16) (header []byte, correlation int32, err error) {
	req.SetVersion(version)
	r := kbin.Reader{Src: frame[8:]}
	correlation = r.Int32()
	r.NullableString() // client id
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if !r.Ok() {
		return nil, 0, fmt.Errorf("request of kind %d: its header is cut off", req.Key())
	}
	return frame[:len(frame)-len(r.Src)], correlation, req.ReadFrom(r.Src)
}

// handshake hands on PLAIN and refuses the rest: SCRAM needs what a hashed key
// does not give.
func (s *session) handshake(conn net.Conn, version int16, frame []byte) ([]byte, error) {
	req := kmsg.NewPtrSASLHandshakeRequest()
	_, correlation, err := request(frame, req, version)
	if err != nil || req.Mechanism == "PLAIN" {
		return frame, err
	}
	res := kmsg.NewPtrSASLHandshakeResponse()
	res.ErrorCode, res.SupportedMechanisms = kerr.UnsupportedSaslMechanism.Code, []string{"PLAIN"}
	return nil, answer(conn, version, correlation, res)
}

// authenticate asks the guard and hands on what kfake knows.
func (s *session) authenticate(conn net.Conn, version int16, frame []byte) ([]byte, error) {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	header, correlation, err := request(frame, req, version)
	if err != nil {
		return nil, err
	}
	user, client, err := s.identify(req.SASLAuthBytes, conn.RemoteAddr())
	if err != nil {
		res := kmsg.NewPtrSASLAuthenticateResponse()
		text := err.Error()
		res.ErrorCode, res.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &text
		return nil, errors.Join(answer(conn, version, correlation, res), err)
	}
	s.client = client
	req.SASLAuthBytes = []byte("\x00" + user + "\x00" + s.users.secret)
	out := req.AppendTo(append([]byte(nil), header...))
	kbin.AppendInt32(out[:0], int32(len(out)-4))
	return out, nil
}

func (s *session) identify(plain []byte, from net.Addr) (string, *Client, error) {
	parts := strings.Split(string(plain), "\x00")
	if len(parts) != 3 || parts[0] != "" && parts[0] != parts[1] {
		return "", nil, errors.New("want SASL/PLAIN: a user and a password")
	}
	if s.own && s.users.own(parts[1], parts[2]) {
		return owner, &Client{All: true}, nil
	}
	client, err := s.guard(parts[1], parts[2], from)
	if err != nil {
		return "", nil, err
	}
	user, err := s.users.user(client)
	return user, &client, err
}

// answer writes an answer that kfake has no part in.
func answer(conn net.Conn, version int16, correlation int32, res kmsg.Response) error {
	res.SetVersion(version)
	b := kbin.AppendInt32(make([]byte, 4), correlation)
	if res.IsFlexible() {
		b = append(b, 0) // no tags
	}
	b = res.AppendTo(b)
	kbin.AppendInt32(b[:0], int32(len(b)-4))
	_, err := conn.Write(b)
	return err
}
