package serving

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/stream"
)

// record puts a request's predictions on their way: rows that differ in id, inputs
// and output alone together, in packed records; others one by one.
func (s *Server) record(ctx context.Context, sc *scratch, policy Policy, m *Model, a *Answer, call Call) error {
	if s.rec.send == nil {
		return nil
	}
	if a.fetched != nil || a.why != nil || a.Width == 0 {
		return s.recordEach(ctx, sc, policy, m, a, call)
	}
	queue, compute := ms(a.Queue), ms(a.Compute)
	shared := event.Prediction{EventTime: s.now().UnixMicro(), Key: orElse(call.Key, call.entityKey()), Variant: a.Variant,
		QueueMS: &queue, ComputeMS: &compute, Threshold: m.Signature.Threshold, Trace: call.Trace}
	sc.matchInputs(m)
	count := sc.rowsPerRecord(m, a, len(shared.Key)+len(call.Trace))
	for first := 0; first < a.Rows; {
		n := min(count, a.Rows-first)
		if sc.pack(m, a, &shared, first, n); len(sc.out) > 2*recordBytes && n > 1 {
			count = n / 2 // these rows are longer than the others
			continue
		}
		if err := s.rec.put(ctx, policy, sc.parcel(a.ID, n, &call)); err != nil {
			return fmt.Errorf("record prediction %s: %w", a.ID, err)
		}
		first += n
	}
	return nil
}

// recordBytes is about how long a packed record becomes, and twice that is the
// most for one of several rows: half of what brokers take by default.
const recordBytes = 256 << 10

// rowsPerRecord is how many rows of average length make a packed record, of which
// what they share is copied for each when it is read.
func (sc *scratch) rowsPerRecord(m *Model, a *Answer, shared int) int {
	row := 4*a.Width + 8*len(m.Signature.Inputs) + (shared+2*len(a.ID))/16
	for _, t := range sc.tensors {
		text := 0
		for _, b := range t.Bytes {
			text += len(b)
		}
		row += text / max(1, a.Rows)
	}
	return min(max(1, recordBytes/max(1, row)), event.MaxPackedRows)
}

// pack writes rows [first, first+n) of an answer and their exact inputs into sc.out.
func (sc *scratch) pack(m *Model, a *Answer, shared *event.Prediction, first, n int) {
	p := &m.packer
	out := p.Begin(sc.out[:0], event.PackedRows{First: first, Count: n, Numbered: a.Rows > 1, ID: a.ID, Suffix: a.suffix}, shared)
	if len(sc.tensors) == 0 {
		out = packMatrix(out, p, &sc.req.Inputs[0], len(m.Signature.Inputs), first, n)
	}
	for _, t := range sc.tensors {
		out = packTensor(out, p, t, first, n)
	}
	if width := m.recorded; width == a.Width {
		sc.out = p.Output(out, a.Values[first*width:(first+n)*width])
		return
	}
	sc.kept = sc.kept[:0]
	for row := first; row < first+n; row++ {
		sc.kept = append(sc.kept, a.Values[row*a.Width:row*a.Width+m.recorded]...)
	}
	sc.out = p.Output(out, sc.kept)
}

// packMatrix turns a matrix of floats into columns.
func packMatrix(out []byte, p *event.Packer, t *oip.Tensor, width, first, n int) []byte {
	for i := range width {
		if t.Datatype == oip.FP32 {
			out = p.Column(out, event.Float32, nil)
			at := len(out)
			out = slices.Grow(out, 4*n)[:at+4*n]
			for dst, k := out[at:], first*width+i; len(dst) >= 4; dst, k = dst[4:], k+width {
				binary.LittleEndian.PutUint32(dst, math.Float32bits(float32(t.Floats[k])))
			}
			continue
		}
		out = p.Column(out, event.Float64, nil)
		for row := first; row < first+n; row++ {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(t.Floats[row*width+i]))
		}
	}
	return out
}

// packTensor writes one input's values in the width in which they were sent.
func packTensor(out []byte, p *event.Packer, t *oip.Tensor, first, n int) []byte {
	var nulls []bool
	if len(t.Nulls) > 0 {
		nulls = t.Nulls[first : first+n]
	}
	switch t.Datatype {
	case oip.FP32:
		out = p.Column(out, event.Float32, nulls)
		for _, v := range t.Floats[first : first+n] {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(v)))
		}
	case oip.FP64:
		out = p.Column(out, event.Float64, nulls)
		for _, v := range t.Floats[first : first+n] {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v))
		}
	case oip.BOOL:
		out = p.Column(out, event.Bool, nulls)
		for _, v := range t.Bools[first : first+n] {
			out = append(out, byte(flag(v)))
		}
	case oip.BYTES:
		out = p.Column(out, event.String, nulls)
		for _, v := range t.Bytes[first : first+n] {
			out = event.AppendPackedText(out, v)
		}
	default:
		out = p.Column(out, event.Int64, nulls)
		for _, v := range t.Ints[first : first+n] {
			out = binary.LittleEndian.AppendUint64(out, uint64(v))
		}
	}
	return out
}

// packing prepares what all records of a version share.
func (m *Model) packing() {
	var inputs, outputs []string
	for _, in := range m.Signature.Inputs {
		inputs = append(inputs, in.Name)
	}
	kind, first := event.OutputValue, m.Signature.Outputs[0]
	switch m.Signature.Task {
	case model.Binary:
		kind = event.OutputScore
	case model.MultiClass:
		kind, outputs = event.OutputScores, first.Classes
	case model.Quantiles:
		kind = event.OutputQuantiles
		for _, q := range first.Quantiles {
			outputs = append(outputs, quantileName(q))
		}
	}
	m.recorded = max(1, len(outputs))
	m.packer = event.NewPacker(m.Name, m.Version, inputs, kind, m.recorded, outputs)
}

func quantileName(q float64) string { return strconv.FormatFloat(q, 'g', -1, 64) }

// recordEach puts one event per row on its way, as JSON: rows of entities have keys
// and feature times of their own, explained ones their contributions.
func (s *Server) recordEach(ctx context.Context, sc *scratch, policy Policy, m *Model, a *Answer, call Call) error {
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
		if err := s.rec.put(ctx, policy, sc.parcel(id, 1, &call)); err != nil {
			return fmt.Errorf("record prediction %s: %w", id, err)
		}
	}
	return nil
}

// parcel is the record in sc.out, of so many rows; it is valid as long as that.
func (sc *scratch) parcel(id string, rows int, call *Call) parcel {
	sc.key = append(sc.key[:0], id...)
	return parcel{msg: stream.Message{Key: sc.key, Value: sc.out, Headers: call.headers()}, rows: rows}
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
			sc.scores = append(sc.scores, event.NamedFloat{Name: quantileName(q), Value: float64(vals[i])})
		}
		return event.Output{Quantiles: sc.scores}
	}
	return event.Output{Value: &sc.first}
}
