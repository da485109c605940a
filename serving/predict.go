package serving

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/serving/oip"
)

// Call says what a caller wants beside the tensors.
type Call struct {
	Model    string
	Version  string      // pins a version; empty lets the routing choose
	Variant  string      // pins the version behind a variant, where Version is empty
	Entity   string      // the entity's key, for sticky experiments
	Key      string      // the entity's key as a JSON object, for the record
	ID       string      // prediction id; one is made when empty. Row i of several gets "<id>/<i>".
	Deadline time.Time   // zero for none
	Trace    string      // W3C trace id
	Parent   string      // traceparent header, sent on with the record
	Rows     []EntityRow // asks by key instead of by tensors
	Explain  int         // how many contributions to compute per row; 0 for none
}

// Answer is what the routed version computed.
type Answer struct {
	ID      string
	Version string
	Variant string
	Rows    int
	Width   int
	Values  []float32 // Rows × Width
	Model   *Model
	Queue   time.Duration
	Compute time.Duration

	fetched *fetched      // of a request by key
	suffix  string        // of the ids of a shadow's rows
	why     []explanation // per row, where asked for
}

// rowID is the prediction id of one row.
func (a *Answer) rowID(row int) string {
	if a.Rows > 1 {
		return a.ID + "/" + strconv.Itoa(row) + a.suffix
	}
	return a.ID + a.suffix
}

// scratch is the memory of one request.
type scratch struct {
	req    oip.Request
	body   []byte
	rows   []float32
	values []float32
	out    []byte
	key    []byte // of the record in out
	inputs []event.NamedValue
	scores []event.NamedFloat
	got    fetched

	entities *entityReader // nil until the first request by key

	tensors []*oip.Tensor // parallel to the inputs; empty for a matrix
	kept    []float32     // of the values, what is recorded
	first   float64       // of a row's outputs
}

// pool hands scratch from request to request.
type pool struct{ p sync.Pool }

func (p *pool) get() *scratch {
	if sc, ok := p.p.Get().(*scratch); ok {
		return sc
	}
	return &scratch{}
}

func (p *pool) put(sc *scratch) { p.p.Put(sc) }

// maxID bounds a request's id, in bytes: it is the key of its record and a part of
// every row's id.
const maxID = 1024

// predict admits, routes, computes and records one request whose tensors are
// in sc.req. The answer's values live in sc.
func (s *Server) predict(ctx context.Context, sc *scratch, call Call) (Answer, error) {
	began := s.now()
	d, st, m, choice, err := s.hold(&call)
	if err == nil && len(call.ID) > maxID {
		m.release()
		err = fmt.Errorf("%w: the id has %d bytes: want at most %d", ErrInput, len(call.ID), maxID)
	}
	if err != nil {
		s.refused(call.Model)
		return Answer{}, err
	}
	defer m.release()
	a, err := s.answer(ctx, sc, d, m, call)
	if err != nil {
		d.failed(m, err)
		return Answer{}, err
	}
	a.Version, a.Variant, a.ID = choice.Version, choice.Variant, call.ID
	if a.ID == "" {
		a.ID = uuid.NewString()
	}
	d.count(&a, s.now())
	if s.sampled(ctx) {
		s.spans(ctx, &a, began)
		defer s.recording(ctx, &call)()
	}
	if err := s.record(ctx, sc, st.policy, m, &a, call); err != nil {
		return Answer{}, err
	}
	s.measure(ctx, &a, s.now().Sub(began))
	s.shadows(ctx, sc, st, m, a, call)
	return a, nil
}

// answer looks features up where the caller sent keys, and computes.
func (s *Server) answer(ctx context.Context, sc *scratch, d *deployed, m *Model, call Call) (Answer, error) {
	if call.Rows == nil {
		return s.compute(ctx, sc, d, m, call)
	}
	if err := s.fetch(ctx, sc, m, call); err != nil {
		return Answer{}, err
	}
	a, err := s.compute(ctx, sc, d, m, call)
	a.fetched = &sc.got
	return a, err
}

// fetch makes tensors of keys. It holds no place at the gate: look-ups are in
// memory, or one round trip.
func (s *Server) fetch(ctx context.Context, sc *scratch, m *Model, call Call) error {
	began := s.now()
	sc.req.Reset()
	err := s.cfg.Features.fetch(ctx, &sc.got, &sc.req, m, call.Rows, began)
	sc.got.took = s.now().Sub(began)
	return err
}

// compute checks the deadline before it waits, when its place comes, and
// before it computes.
func (s *Server) compute(ctx context.Context, sc *scratch, d *deployed, m *Model, call Call) (Answer, error) {
	if call.Explain > 0 && m.Predictor == nil {
		return Answer{}, fmt.Errorf("%w: explain: contributions are of trees and linear models, %s version %s is an ONNX model", ErrInput, m.Name, m.Version)
	}
	var queue time.Duration
	var err error
	if m.native != nil {
		if err := d.gate.join(call.Deadline, s.now, m.native.company(&sc.req)); err != nil {
			return Answer{}, err
		}
		defer d.gate.part()
	} else {
		if queue, err = d.gate.enter(ctx, call.Deadline, s.now); err != nil {
			return Answer{}, err
		}
		defer d.gate.leave()
	}
	rows, n, err := m.rows(sc.rows, &sc.req)
	if err != nil {
		return Answer{}, err
	}
	sc.rows = rows
	began := s.now()
	if passed(call.Deadline, began) {
		return Answer{}, ErrDeadline
	}
	sc.values = grow(sc.values, n*m.width())
	batched, err := m.predict(ctx, call.Deadline, sc.values, rows)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Rows: n, Width: m.width(), Values: sc.values, Model: m, Queue: queue + batched}
	if call.Explain > 0 {
		a.why = m.explain(rows, a.Values, n, call.Explain)
	}
	ended := s.now()
	a.Compute = ended.Sub(began) - batched
	d.gate.observe(a.Compute, ended)
	return a, nil
}

// failed counts a request that got no answer. A full queue and a caller that
// left say nothing about the version.
func (d *deployed) failed(m *Model, err error) {
	d.stats.failure.Add(1)
	switch {
	case errors.Is(err, ErrBusy):
		d.stats.rejected.Add(1)
	case !errors.Is(err, context.Canceled):
		m.live.requests.Add(1)
		m.live.failed.Add(1)
	}
}

func (d *deployed) count(a *Answer, now time.Time) {
	took := a.Queue + a.Compute
	if a.fetched != nil {
		took += a.fetched.took
	}
	a.Model.live.requests.Add(1)
	a.Model.live.answered(took, a.Values, a.Width)
	d.stats.success.Add(1)
	d.stats.rows.Add(uint64(a.Rows))
	d.stats.queueNS.Add(uint64(a.Queue))
	d.stats.computeNS.Add(uint64(a.Compute))
	d.stats.lastMS.Store(now.UnixMilli())
}

// shadows computes what other versions would have said, after the answer is
// made. A shadow's failure is nobody's failure.
func (s *Server) shadows(ctx context.Context, sc *scratch, st *state, answered *Model, a Answer, call Call) {
	policy := st.policy
	if policy == Block {
		policy = Drop // the answer is made: nobody waits for a shadow
	}
	for _, v := range st.routing.Shadows {
		m := st.versions[v]
		if m == nil || m == answered {
			continue
		}
		own, said, err := s.shadow(ctx, sc, m, call)
		if err != nil {
			s.log.Warn("shadow: the request does not fit the version", "model", m.Name, "version", v, "error", err)
			continue
		}
		said.ID, said.suffix, said.Version, said.Variant = a.ID, "/"+v, v, VariantShadow
		if err := s.record(ctx, own, policy, m, &said, call); err != nil {
			return
		}
	}
}

// shadow computes in memory of its own: the caller's answer lies in sc.
func (s *Server) shadow(ctx context.Context, sc *scratch, m *Model, call Call) (*scratch, Answer, error) {
	own := &scratch{req: sc.req}
	said := Answer{Width: m.width(), Model: m}
	if !m.acquire() {
		return nil, said, ErrRuntime
	}
	defer m.release()
	if call.Rows != nil {
		own.req = oip.Request{}
		if err := s.fetch(ctx, own, m, call); err != nil {
			return nil, said, err
		}
		said.fetched = &own.got
	}
	rows, n, err := m.rows(nil, &own.req)
	if err != nil {
		return nil, said, err
	}
	began := s.now()
	said.Rows, said.Values = n, make([]float32, n*m.width())
	_, err = m.predict(ctx, time.Time{}, said.Values, rows)
	said.Compute = s.now().Sub(began)
	return own, said, err
}
