package features

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
)

// ServerConfig says how features are asked for over HTTP.
type ServerConfig struct {
	Limits   Limits
	PushWait time.Duration                            // how long a push waits to be readable; default 5 s
	MaxPush  int64                                    // bytes of a push; default 64 MiB
	Now      func() int64                             // µs; nil: the machine's clock
	Served   *ServedLog                               // is given what is served; nil: nothing is written down
	Hides    func(context.Context, auth.Caller) Hides // what a caller may not see; nil: nothing
	Scope    telemetry.Scope
}

// Server answers Feast's HTTP interface over the online tables. It is an
// http.Handler for a port of its own; [Server.Paths] lists what to mount beside
// other handlers. Who calls comes with the request's context.
type Server struct {
	cfg     ServerConfig
	online  *Online
	writer  *Writer
	ready   func() error
	answers sync.Pool
	metrics metrics
}

// NewServer makes the handler. writer may be nil: then nothing can be pushed.
// ready says why requests cannot be answered yet; nil: they always can.
func NewServer(cfg ServerConfig, o *Online, w *Writer, ready func() error) (*Server, error) {
	cfg.Limits = cfg.Limits.orDefault()
	if cfg.PushWait == 0 {
		cfg.PushWait = 5 * time.Second
	}
	if cfg.MaxPush == 0 {
		cfg.MaxPush = 64 << 20
	}
	if cfg.Now == nil {
		cfg.Now = func() int64 { return time.Now().UnixMicro() }
	}
	if ready == nil {
		ready = func() error { return nil }
	}
	s := &Server{cfg: cfg, online: o, writer: w, ready: ready}
	s.answers.New = func() any { return &exchange{} }
	return s, s.metrics.init(cfg.Scope.Meter)
}

// exchange is the reusable memory of one request.
type exchange struct {
	body   []byte
	answer answer
}

// keptMemory is the size up to which an exchange's buffers are kept for the
// next request.
const keptMemory = 4 << 20

func (s *Server) release(x *exchange) {
	if cap(x.body)+cap(x.answer.out) <= keptMemory {
		s.answers.Put(x)
	}
}

// Paths are the paths that the server answers.
func (s *Server) Paths() []string {
	return []string{"/get-online-features", "/push", "/write-to-online-store", "/materialize", "/materialize-incremental", "/health"}
}

// PlainPaths are those of the paths that are asked often and for little, for
// [web.Limits].
func PlainPaths() []string { return []string{"/get-online-features"} }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/get-online-features" && r.Method == http.MethodPost {
		s.getOnlineFeatures(w, r)
		return
	}
	var handle func(*http.Request) (status int, body []byte, err error)
	method := http.MethodPost
	switch r.URL.Path {
	case "/get-online-features":
	case "/push":
		handle = s.push
	case "/write-to-online-store":
		handle = s.write
	case "/materialize":
		handle = func(r *http.Request) (int, []byte, error) { return s.materialize(r, false) }
	case "/materialize-incremental":
		handle = func(r *http.Request) (int, []byte, error) { return s.materialize(r, true) }
	case "/health":
		handle, method = s.health, http.MethodGet
	default:
		respond(w, http.StatusNotFound, []byte(`{"detail":"Not Found"}`))
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		respond(w, http.StatusMethodNotAllowed, []byte(`{"detail":"Method Not Allowed"}`))
		return
	}
	start := time.Now()
	status, body, err := handle(r)
	if err != nil {
		status, body = s.errorBody(r, err)
	}
	respond(w, status, body)
	s.metrics.observe(r.Context(), r.URL.Path, status, time.Since(start), 0)
}

func (s *Server) getOnlineFeatures(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	x := s.answers.Get().(*exchange)
	defer s.release(x)
	status, body := http.StatusOK, []byte(nil)
	err := s.answer(r, x)
	if err != nil {
		status, body = s.errorBody(r, err)
	} else {
		body = x.answer.out
		if wantsArrow(r) {
			w.Header()["Content-Type"] = arrowMedia
		}
	}
	respond(w, status, body)
	s.metrics.observe(r.Context(), "/get-online-features", status, time.Since(start), x.answer.n)
}

func (s *Server) answer(r *http.Request, x *exchange) (err error) {
	if x.body, err = readBody(r, x.body[:0], s.cfg.Limits.MaxBody); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return &apiError{status: http.StatusServiceUnavailable, class: "FeastError", message: err.Error()}
	}
	a := &x.answer
	a.served = s.cfg.Served
	if !a.req.parse(x.body) {
		n, err := parseBody(x.body, readShape())
		if err != nil {
			return err
		}
		a.req.fromNode(n)
	}
	c := auth.From(r.Context())
	a.hides = s.hidesOf(r.Context(), c)
	b := s.online.book(c.Namespace)
	if wantsArrow(r) {
		return a.makeArrow(r.Context(), b, s.cfg.Limits, s.cfg.Now())
	}
	return a.make(r.Context(), b, s.cfg.Limits, s.cfg.Now())
}

// readBody reads a request's body into dst.
func readBody(r *http.Request, dst []byte, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return dst, tooLarge(limit)
	}
	if n := int(r.ContentLength); n >= 0 && cap(dst) < n+1 {
		dst = make([]byte, 0, n+1)
	}
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Body.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case int64(len(dst)) > limit:
			return dst, tooLarge(limit)
		case err == io.EOF:
			return dst, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return dst, &apiError{status: http.StatusRequestTimeout, class: "FeastError", message: "the request body did not arrive in time", cause: err}
		case err != nil:
			return dst, badRequest("read request body: %w", err)
		}
	}
}

func tooLarge(limit int64) error {
	return &apiError{status: http.StatusRequestEntityTooLarge, class: "FeastError", message: "request body is larger than " + strconv.FormatInt(limit, 10) + " bytes: split the request"}
}

var (
	jsonType   = []string{"application/json"}
	arrowMedia = []string{"application/vnd.apache.arrow.stream"}
)

// respond writes a whole answer. An empty body has no content type, as Feast's
// has none.
func respond(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	if len(body) > 0 && h["Content-Type"] == nil {
		h["Content-Type"] = jsonType
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone is not our error
}

// errorBody maps an error to what Feast's client understands. This is the one
// place where features' errors get their HTTP status.
func (s *Server) errorBody(r *http.Request, err error) (int, []byte) {
	var api *apiError
	var invalid *invalidError
	switch {
	case errors.As(err, &invalid):
		return http.StatusUnprocessableEntity, invalid.appendDetail(nil)
	case errors.As(err, &api) && api.class == "":
		return api.status, append(appendString([]byte(`{"detail":`), api.message), '}')
	case errors.As(err, &api):
		return api.status, api.appendDetail(nil)
	case errors.Is(err, ErrStoreAway):
		s.cfg.Scope.Log.WarnContext(r.Context(), "the shared online store gave no answer", telemetry.LogError, err, "path", r.URL.Path)
		return http.StatusServiceUnavailable, (&apiError{class: "FeastError", message: ErrStoreAway.Error() + ": try again"}).appendDetail(nil)
	case errors.Is(err, ErrBehind), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, (&apiError{class: "FeastError", message: err.Error()}).appendDetail(nil)
	case errors.Is(err, context.Canceled):
		return 499, nil // the client is gone
	}
	s.cfg.Scope.Log.ErrorContext(r.Context(), "feature request failed", telemetry.LogError, err, "path", r.URL.Path)
	return http.StatusServiceUnavailable, (&apiError{class: "FeastError", message: "the write could not be stored: try again; the server's log has the cause"}).appendDetail(nil)
}

func (s *Server) health(*http.Request) (int, []byte, error) {
	if s.ready() != nil {
		return http.StatusServiceUnavailable, nil, nil
	}
	return http.StatusOK, nil, nil
}
