package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kedge-ml/kedge/serving/ort"
	"github.com/kedge-ml/kedge/stream"
)

// Errors that callers branch on.
var (
	ErrUnknownModel   = errors.New("unknown model")
	ErrUnknownVersion = errors.New("unknown version")
	ErrInUse          = errors.New("the version is in use")
	ErrRuntime        = errors.New("the model's runtime is not there")
)

// Config bounds a Server.
type Config struct {
	Namespace string
	Only      string        // the one model whose deployment is followed; empty: all of the namespace
	Computing int           // requests of one model that compute at once; 0 means one per core
	Waiting   int           // requests of one model that may wait for a place
	Wait      time.Duration // and how long, as far as can be foreseen; 0 for any time
	Ring      int           // records waiting for the broker
	RingBytes int           // and their bytes
	Drain     time.Duration // how long shutdown delivers what is in the ring
	MaxBody   int64         // bytes of a request
	Features  *Features     // where inputs come from when a caller sends keys; nil without an online store
	// Hides says by a column's name what whoever sends a request may not see of
	// looked-up features and contributions; nil: nothing is hidden.
	Hides func(context.Context) func(column string) bool
	// Denied is told what a caller was refused beyond its route's permission; nil:
	// nobody is told.
	Denied func(ctx context.Context, what, target string)
	ONNX   ort.Config // how a native model's process is run; Library empty: ONNX models are refused
}

// DefaultConfig fits tree models on a small machine.
func DefaultConfig() Config {
	return Config{Namespace: "default", Computing: runtime.GOMAXPROCS(0), Waiting: 256, Wait: 20 * time.Millisecond, Ring: 1 << 16, RingBytes: 64 << 20, Drain: 10 * time.Second, MaxBody: 16 << 20, ONNX: ort.DefaultConfig()}
}

// Server holds the models that answer. Reads take no lock: what a request
// needs hangs off one pointer that a change replaces.
type Server struct {
	cfg    Config
	log    *slog.Logger
	rec    *recorder
	change sync.Mutex
	send   produce
	models atomic.Pointer[map[string]*deployed]
	now    func() time.Time
	meters *meters      // nil: nobody measures
	tracer trace.Tracer // nil: nobody traces

	others     newcomers // whom computations let first
	outcomes   outcomeLog
	unknown    atomic.Uint64            // requests about models that are not there
	repository atomic.Pointer[Follower] // who carries out load and unload; nil without one
}

// deployed is one model: its versions, its routing and its gate.
type deployed struct {
	name  string
	gate  *gate
	state atomic.Pointer[state]
	stats stats
}

// state is what a change replaces as a whole, so that a request never sees a
// routing without its versions.
type state struct {
	routing  Routing
	policy   Policy
	versions map[string]*Model
}

// stats counts in the form in which clients of the protocol ask for it.
type stats struct {
	success, failure, rows, rejected atomic.Uint64
	queueNS, computeNS               atomic.Uint64
	lastMS                           atomic.Int64
}

// serves reports whether deployments of a model are followed.
func (s *Server) serves(model string) bool { return s.cfg.Only == "" || s.cfg.Only == model }

// NewServer returns a server without models. Predictions are recorded through
// p, or not at all where it is nil; Run must be running for them to leave.
func NewServer(cfg Config, p *stream.Producer, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, log: log, now: time.Now}
	if p != nil {
		s.send = p.Produce
	}
	s.rec = newRecorder(cfg.Ring, cfg.RingBytes, "kedge."+cfg.Namespace+".predictions", s.send, log)
	s.models.Store(&map[string]*deployed{})
	return s
}

// Run delivers records until ctx ends. Models answer on, for requests that are
// under way; the process of a native one ends with this one.
func (s *Server) Run(ctx context.Context) error {
	s.rec.run(ctx, s.cfg.Drain)
	return nil
}

// Records returns what became of predictions' records.
func (s *Server) Records() RecordCounts { return s.rec.Counts() }

// Load makes a version known. The first version of a model becomes its
// champion; any later one waits for a routing. Loading a version again takes
// the old one's place at once, and requests under way end on the old one.
func (s *Server) Load(m Model) error {
	if err := m.prepare(); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	m.warm()
	s.change.Lock()
	defer s.change.Unlock()
	d := s.find(m.Name)
	if d == nil {
		d = &deployed{name: m.Name, gate: newGate(max(1, s.computing()), s.cfg.Waiting, s.cfg.Wait)}
		d.gate.others = &s.others
		d.state.Store(&state{routing: Routing{Champion: m.Version}, policy: Block, versions: map[string]*Model{m.Version: &m}})
		s.publish(d)
		return nil
	}
	old := d.state.Load()
	next := old.with(&m)
	d.state.Store(&next)
	if replaced := old.versions[m.Version]; replaced != nil {
		replaced.release()
	}
	return nil
}

func (s *Server) computing() int {
	if s.cfg.Computing > 0 {
		return s.cfg.Computing
	}
	return runtime.GOMAXPROCS(0)
}

// warm computes one row of missing values, so that the first request finds
// code and data in place.
func (m *Model) warm() {
	if m.Predictor != nil { // a native one has computed its golden rows
		m.Predictor.Predict(make([]float32, m.width()), make([]float32, m.Predictor.Features()))
	}
}

// with copies the state with one more version.
func (st *state) with(m *Model) state {
	next := *st
	next.versions = make(map[string]*Model, len(st.versions)+1)
	for k, v := range st.versions {
		next.versions[k] = v
	}
	next.versions[m.Version] = m
	return next
}

func (s *Server) find(name string) *deployed { return (*s.models.Load())[name] }

func (s *Server) publish(d *deployed) {
	old := *s.models.Load()
	next := make(map[string]*deployed, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[d.name] = d
	s.models.Store(&next)
}

// SetRouting replaces a model's routing, at once and as a whole. Every version
// that it names must be loaded.
func (s *Server) SetRouting(model string, r Routing, p Policy) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("route %s: %w", model, err)
	}
	s.change.Lock()
	defer s.change.Unlock()
	d := s.find(model)
	if d == nil {
		return fmt.Errorf("route: %w: %s", ErrUnknownModel, model)
	}
	next := *d.state.Load()
	for _, v := range r.Versions() {
		if next.versions[v] == nil {
			return fmt.Errorf("route %s: %w: %s is not loaded", model, ErrUnknownVersion, v)
		}
	}
	next.routing, next.policy = r, p
	d.state.Store(&next)
	return nil
}

// Unload forgets a model, or one version of it that no routing names. Requests
// under way end undisturbed.
func (s *Server) Unload(model, version string) error {
	s.change.Lock()
	defer s.change.Unlock()
	d := s.find(model)
	if d == nil {
		return fmt.Errorf("unload: %w: %s", ErrUnknownModel, model)
	}
	if version == "" {
		next := make(map[string]*deployed)
		for k, v := range *s.models.Load() {
			if k != model {
				next[k] = v
			}
		}
		s.models.Store(&next)
		for _, m := range d.state.Load().versions {
			m.release()
		}
		return nil
	}
	return d.drop(version)
}

func (d *deployed) drop(version string) error {
	st := d.state.Load()
	for _, v := range st.routing.Versions() {
		if v == version {
			return fmt.Errorf("unload %s version %s: %w by its routing", d.name, version, ErrInUse)
		}
	}
	if st.versions[version] == nil {
		return fmt.Errorf("unload %s: %w: %s", d.name, ErrUnknownVersion, version)
	}
	next := *st
	next.versions = make(map[string]*Model)
	for k, v := range st.versions {
		if k != version {
			next.versions[k] = v
		}
	}
	d.state.Store(&next)
	st.versions[version].release()
	return nil
}

// Status describes one model.
type Status struct {
	Name     string
	Routing  Routing
	Policy   Policy
	Versions []string // sorted
}

// Models describes every model, sorted by name.
func (s *Server) Models() []Status {
	var out []Status
	for _, d := range *s.models.Load() {
		st := d.state.Load()
		out = append(out, Status{d.name, st.routing, st.policy, versionNames(st)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func versionNames(st *state) []string {
	var out []string
	for v := range st.versions {
		out = append(out, v)
	}
	sort.Strings(out)
	return out
}

// model finds the version that a request is about; an empty version means the
// champion.
func (s *Server) model(name, version string) (*deployed, *state, *Model, error) {
	d := s.find(name)
	if d == nil {
		return nil, nil, nil, fmt.Errorf("%w: %q is not found", ErrUnknownModel, name)
	}
	st := d.state.Load()
	m := st.versions[orElse(version, st.routing.Champion)]
	if m == nil {
		return nil, nil, nil, fmt.Errorf("%w: model %q has no version %q", ErrUnknownVersion, name, version)
	}
	return d, st, m, nil
}

// routings bounds how often a request is routed anew because the version that
// it met was being replaced.
const routings = 8

// hold routes a request and holds the version that answers until it is
// released.
func (s *Server) hold(call *Call) (*deployed, *state, *Model, Choice, error) {
	for range routings {
		d, st, m, c, err := s.route(call)
		if err != nil || m.acquire() {
			return d, st, m, c, err
		}
	}
	return nil, nil, nil, Choice{}, fmt.Errorf("%w: model %s is being replaced", ErrRuntime, call.Model)
}

// route chooses the version that answers one request.
func (s *Server) route(call *Call) (*deployed, *state, *Model, Choice, error) {
	pinned := call.Version
	if pinned == "" && call.Variant != "" {
		var err error
		if pinned, err = s.versionOf(call.Model, call.Variant); err != nil {
			return nil, nil, nil, Choice{}, err
		}
	}
	d, st, m, err := s.model(call.Model, pinned)
	if err != nil {
		return nil, nil, nil, Choice{}, err
	}
	c := st.routing.Route(pinned, call.Entity, rand.Uint64())
	if c.Version != m.Version {
		m = st.versions[c.Version] // SetRouting saw to it that it is loaded
	}
	return d, st, m, c, nil
}

// versionOf is the version behind a variant that a caller pins by name.
func (s *Server) versionOf(model, variant string) (string, error) {
	d := s.find(model)
	if d == nil {
		return "", fmt.Errorf("%w: %q is not found", ErrUnknownModel, model)
	}
	r := d.state.Load().routing
	for _, a := range r.arms() {
		if a.Variant == variant {
			return a.Version, nil
		}
	}
	if variant == VariantChampion {
		return r.Champion, nil
	}
	return "", fmt.Errorf("%w: model %q has no variant %q", ErrUnknownVersion, model, variant)
}

// tooBusy refuses a request before its body is decoded where the model's gate would
// refuse it afterwards.
func (s *Server) tooBusy(model string) error {
	s.others.met.Add(1)
	d := s.find(model)
	if d == nil || !d.gate.full() {
		return nil
	}
	d.stats.failure.Add(1)
	d.stats.rejected.Add(1)
	return ErrBusy
}

// refused counts a request that did not reach a version.
func (s *Server) refused(model string) {
	if d := s.find(model); d != nil {
		d.stats.failure.Add(1)
	} else {
		s.unknown.Add(1)
	}
}
