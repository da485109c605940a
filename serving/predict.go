package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/stream"
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

// appendRowID appends what rowID returns.
func (a *Answer) appendRowID(dst []byte, row int) []byte {
	dst = append(dst, a.ID...)
	if a.Rows > 1 {
		dst = strconv.AppendInt(append(dst, '/'), int64(row), 10)
	}
	return append(dst, a.suffix...)
}

// scratch is the memory of one request.
type scratch struct {
	req    oip.Request
	body   []byte
	rows   []float32
	values []float32
	out    []byte
	inputs []event.NamedValue
	scores []event.NamedFloat
	got    fetched

	form    event.PredictionForm // its memory is used again
	tensors []*oip.Tensor        // parallel to the inputs; empty for a matrix
	ends    []int                // of ids and records in out
	first   float64              // of a row's outputs
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

// predict admits, routes, computes and records one request whose tensors are
// in sc.req. The answer's values live in sc.
func (s *Server) predict(ctx context.Context, sc *scratch, call Call) (Answer, error) {
	began := s.now()
	d, st, m, choice, err := s.hold(&call)
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
	if err := s.fetch(sc, m, call); err != nil {
		return Answer{}, err
	}
	a, err := s.compute(ctx, sc, d, m, call)
	a.fetched = &sc.got
	return a, err
}

// fetch makes tensors of keys. It holds no place at the gate: look-ups are in
// memory.
func (s *Server) fetch(sc *scratch, m *Model, call Call) error {
	began := s.now()
	sc.req.Reset()
	err := s.cfg.Features.fetch(&sc.got, &sc.req, m, call.Rows, began)
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
		if err := d.gate.join(call.Deadline, s.now); err != nil {
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
	a.Compute = s.now().Sub(began) - batched
	d.gate.observe(a.Compute)
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
		if err := s.fetch(own, m, call); err != nil {
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

// record puts one event per row on its way.
func (s *Server) record(ctx context.Context, sc *scratch, policy Policy, m *Model, a *Answer, call Call) error {
	if s.rec.send == nil {
		return nil
	}
	if a.fetched == nil && a.why == nil {
		return s.recordAll(ctx, sc, policy, m, a, call)
	}
	now := s.now().UnixMicro()
	queue, compute := ms(a.Queue), ms(a.Compute)
	for row := range a.Rows {
		id := a.rowID(row)
		p := event.Prediction{
			Model: m.Name, Version: a.Version, ID: id, EventTime: now, Key: call.Key,
			Inputs: sc.namedInputs(m, row), Output: sc.output(a, row), Variant: a.Variant,
			QueueMS: &queue, ComputeMS: &compute, Threshold: m.Signature.Threshold, Weight: 1, Trace: call.Trace,
		}
		a.remember(&p, row, call)
		if p.Key == "" {
			p.Key = call.entityKey()
		}
		sc.out = event.AppendPredictionJSON(sc.out[:0], p)
		buf := make([]byte, 0, len(id)+len(sc.out))
		buf = append(append(buf, id...), sc.out...)
		msg := stream.Message{Key: buf[:len(id):len(id)], Value: buf[len(id):], Headers: call.headers()}
		if err := s.rec.put(ctx, policy, msg); err != nil {
			return fmt.Errorf("record prediction %s: %w", id, err)
		}
	}
	return nil
}

// entityKey is the record's key where a caller named an entity alone.
func (c *Call) entityKey() string {
	if c.Entity == "" {
		return ""
	}
	return string(append(event.AppendString([]byte(`{"entity":`), c.Entity), '}'))
}

func (c *Call) headers() []stream.Header {
	if c.Parent == "" {
		return nil
	}
	return []stream.Header{{Name: "traceparent", Value: []byte(c.Parent)}}
}

// recordAll is record for rows that differ in id, inputs and output alone: what
// they share is written once, and all lie in one piece of memory.
func (s *Server) recordAll(ctx context.Context, sc *scratch, policy Policy, m *Model, a *Answer, call Call) error {
	queue, compute := ms(a.Queue), ms(a.Compute)
	shared := event.Prediction{EventTime: s.now().UnixMicro(), Key: orElse(call.Key, call.entityKey()), Variant: a.Variant,
		QueueMS: &queue, ComputeMS: &compute, Threshold: m.Signature.Threshold, Weight: 1, Trace: call.Trace}
	form := m.form
	form.Adopt(&sc.form)
	form.Share(&shared)
	sc.form = form
	sc.matchInputs(m)
	sc.out, sc.ends = sc.out[:0], sc.ends[:0]
	for row := range a.Rows {
		sc.out = a.appendRowID(sc.out, row)
		id := sc.out[sc.end():]
		sc.ends = append(sc.ends, len(sc.out))
		sc.out = sc.appendRow(form.Begin(sc.out, id), &form, m, a, row)
		sc.ends = append(sc.ends, len(sc.out))
	}
	headers := call.headers()
	all, from := bytes.Clone(sc.out), 0
	for i := 0; i < len(sc.ends); i += 2 {
		key, end := sc.ends[i], sc.ends[i+1]
		msg := stream.Message{Key: all[from:key:key], Value: all[key:end:end], Headers: headers}
		if err := s.rec.put(ctx, policy, msg); err != nil {
			return fmt.Errorf("record prediction %s: %w", all[from:key], err)
		}
		from = end
	}
	return nil
}

func (sc *scratch) end() int {
	if len(sc.ends) == 0 {
		return 0
	}
	return sc.ends[len(sc.ends)-1]
}

// matchInputs finds each input's tensor once; none means one matrix.
func (sc *scratch) matchInputs(m *Model) {
	sc.tensors = sc.tensors[:0]
	if m.isMatrix(&sc.req) {
		return
	}
	for i := range m.Signature.Inputs {
		sc.tensors = append(sc.tensors, find(&sc.req, m.Signature.Inputs[i].Name))
	}
}

// appendRow appends the exact inputs and the output of one row.
func (sc *scratch) appendRow(dst []byte, form *event.PredictionForm, m *Model, a *Answer, row int) []byte {
	switch k := len(m.Signature.Inputs); {
	case len(sc.tensors) > 0:
		for i, t := range sc.tensors {
			dst = form.Value(dst, i, tensorValue(t, row))
		}
	case sc.req.Inputs[0].Datatype == oip.FP32:
		for i, v := range sc.req.Inputs[0].Floats[row*k : (row+1)*k] {
			dst = form.Float32(dst, i, float32(v))
		}
	default:
		for i := range k {
			dst = form.Value(dst, i, floatValue(&sc.req.Inputs[0], row*k+i))
		}
	}
	return form.End(dst, sc.output(a, row))
}

// remember adds what only some requests have: keys and feature times, and why
// the answer is what it is.
func (a *Answer) remember(p *event.Prediction, row int, call Call) {
	if a.fetched != nil {
		took := ms(a.fetched.took)
		p.FeaturesMS, p.FeatureTimes, p.Key = &took, a.fetched.times[row], call.Rows[row].KeyText
	}
	if a.why != nil {
		p.Attributions = a.why[row].top
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// namedInputs gives the exact inputs of one row, as the producer of any other
// prediction would name them.
func (sc *scratch) namedInputs(m *Model, row int) []event.NamedValue {
	sc.inputs = sc.inputs[:0]
	matrix := m.isMatrix(&sc.req)
	for i, in := range m.Signature.Inputs {
		var v event.Value
		if matrix {
			v = floatValue(&sc.req.Inputs[0], row*len(m.Signature.Inputs)+i)
		} else {
			v = tensorValue(find(&sc.req, in.Name), row)
		}
		sc.inputs = append(sc.inputs, event.NamedValue{Name: in.Name, Value: v})
	}
	return sc.inputs
}

func tensorValue(t *oip.Tensor, row int) event.Value {
	switch {
	case t == nil, len(t.Nulls) > row && t.Nulls[row]:
		return event.Value{}
	case t.Datatype == oip.BYTES:
		return event.Text(string(t.Bytes[row]))
	case t.Datatype == oip.BOOL:
		return event.Flag(t.Bools[row])
	case t.Datatype == oip.FP32 || t.Datatype == oip.FP64:
		return floatValue(t, row)
	}
	return event.Int(t.Ints[row])
}

// floatValue is a number in the width in which it was sent, so that the record
// has 0.1 where a caller wrote 0.1.
func floatValue(t *oip.Tensor, i int) event.Value {
	v := event.Float(t.Floats[i])
	if t.Datatype == oip.FP32 {
		v.Type.Elem = event.Float32
	}
	return v
}

func named(dst []event.NamedFloat, names []string, vals []float32) []event.NamedFloat {
	for i, name := range names {
		dst = append(dst, event.NamedFloat{Name: name, Value: float64(vals[i])})
	}
	return dst
}

// output puts a row's result into the envelope's form: class probabilities as
// scores, one probability or number as score or value.
func (sc *scratch) output(a *Answer, row int) event.Output {
	vals := a.Values[row*a.Width : (row+1)*a.Width]
	sig := a.Model.Signature
	sc.first = float64(vals[0])
	switch sig.Task {
	case model.Binary:
		return event.Output{Score: &sc.first}
	case model.MultiClass:
		sc.scores = named(sc.scores[:0], sig.Outputs[0].Classes, vals)
		return event.Output{Scores: sc.scores}
	case model.Quantiles:
		sc.scores = sc.scores[:0]
		for i, q := range sig.Outputs[0].Quantiles {
			sc.scores = append(sc.scores, event.NamedFloat{Name: strconv.FormatFloat(q, 'g', -1, 64), Value: float64(vals[i])})
		}
		return event.Output{Quantiles: sc.scores}
	}
	return event.Output{Value: &sc.first}
}
