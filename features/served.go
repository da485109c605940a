package features

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/stream"
)

// ServedTopic is the log of a namespace's served vectors.
func ServedTopic(namespace string) string { return "kedge." + namespace + ".served" }

// ServedConfig says how much of what is served is written down.
type ServedConfig struct {
	Share     float64 // 0..1; every vector then counts for 1/Share. Default 0.01, negative: nothing
	ByRequest bool    // whole requests, by chance; else all reads of the keys that are chosen, the same in every process
	Held      int     // vectors that wait for the broker; default 10,000
	HeldBytes int64   // and their bytes; default 16 MiB. Beyond either they are dropped and counted
	Scope     telemetry.Scope
}

// ServedLog writes samples of what requests were answered to the served topic.
// A request never waits for it.
type ServedLog struct {
	cfg      ServedConfig
	producer *stream.Producer
	queue    chan vector
	held     atomic.Int64 // bytes in queue
	counts   struct{ written, dropped, failed atomic.Int64 }
}

// vector is one row as a request got it: the features asked of one view, for
// one key.
type vector struct {
	view    *View
	at      int64
	key     []byte
	row     Row // a copy of its own; the zero Row: not found
	columns []string
	folded  []reached // of windows that several topics bring the events of
}

// pick is a row of an answer that is to be written down.
type pick struct{ view, row int }

// NewServedLog makes a log; Run writes it.
func NewServedLog(cfg ServedConfig, p *stream.Producer) *ServedLog {
	if cfg.Share == 0 {
		cfg.Share = 0.01
	}
	if cfg.Held == 0 {
		cfg.Held = 10_000
	}
	if cfg.HeldBytes == 0 {
		cfg.HeldBytes = 16 << 20
	}
	return &ServedLog{cfg: cfg, producer: p, queue: make(chan vector, cfg.Held)}
}

// Chances are compared as numbers of 53 bits, which a float64 holds.
const chanceBits = 53

// chooseRequest reports whether all of a request's vectors are taken.
func (l *ServedLog) chooseRequest() bool {
	return l != nil && l.cfg.ByRequest && rand.Float64() < l.cfg.Share
}

// chooseKey reports whether all reads of a key are taken. Every process of an
// installation answers alike.
func (l *ServedLog) chooseKey(key []byte) bool {
	if l == nil || l.cfg.ByRequest {
		return false
	}
	h := uint64(14695981039346656037) // FNV-1a, which is stable, mixed by a multiplication of 128 bits
	for _, c := range key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	high, low := bits.Mul64(h, 0x9e3779b97f4a7c15)
	return float64((high^low)>>(64-chanceBits)) < l.cfg.Share*(1<<chanceBits)
}

// record takes an answer's picked rows, or counts what there is no room for.
func (l *ServedLog) record(p *plan, a *answer, now int64) {
	for _, k := range a.picks {
		v := &p.views[k.view]
		if a.encodeKey(v, k.row) != nil {
			continue // it was encoded once: cannot be
		}
		rows := &a.rows[k.view]
		l.put(vector{view: v.view, at: now, key: append([]byte(nil), a.key...), row: rows.Row(k.row).clone(), columns: p.columnsOf(k.view), folded: rows.reachedBy(k.row)})
	}
}

func (l *ServedLog) put(v vector) {
	size := v.bytes()
	if l.held.Add(size) <= l.cfg.HeldBytes {
		select {
		case l.queue <- v:
			return
		default:
		}
	}
	l.held.Add(-size)
	l.counts.dropped.Add(1)
}

func (v *vector) bytes() int64 {
	return int64(128 + len(v.key) + len(v.row.slot) + len(v.row.block) + 16*len(v.columns) + 24*len(v.folded))
}

// Bounds of one hand-over to the producer.
const (
	servedBatch  = 512
	servedLinger = 100 * time.Millisecond
)

// Run writes until ctx ends. What the broker refuses is counted and left.
func (l *ServedLog) Run(ctx context.Context) error {
	if err := l.watch(l.cfg.Scope.Meter); err != nil {
		return fmt.Errorf("served log: register metrics: %w", err)
	}
	for {
		select {
		case v := <-l.queue:
			l.write(ctx, l.gather(v))
		case <-ctx.Done():
			return nil
		}
	}
}

// gather waits a moment for company, so that a batch is worth its request.
func (l *ServedLog) gather(first vector) []vector {
	out := []vector{first}
	full := time.NewTimer(servedLinger)
	defer full.Stop()
	for len(out) < servedBatch {
		select {
		case v := <-l.queue:
			out = append(out, v)
		case <-full.C:
			return out
		}
	}
	return out
}

func (l *ServedLog) write(ctx context.Context, vectors []vector) {
	byTopic := map[string][]stream.Message{}
	for i := range vectors {
		v := &vectors[i]
		l.held.Add(-v.bytes())
		m, err := l.message(v)
		if err != nil {
			l.cfg.Scope.Log.Warn("a served vector cannot be written", "view", v.view.Name, telemetry.LogError, err)
			l.counts.failed.Add(1)
			continue
		}
		topic := ServedTopic(v.view.Schema.Namespace)
		byTopic[topic] = append(byTopic[topic], m)
	}
	for topic, msgs := range byTopic {
		failed := 0
		if err := l.producer.Produce(ctx, topic, msgs...); err != nil {
			failed = failures(err, len(msgs))
			l.cfg.Scope.Log.Warn("served vectors were not written", telemetry.LogTopic, topic, "vectors", failed, telemetry.LogError, err)
		}
		l.counts.written.Add(int64(len(msgs) - failed))
		l.counts.failed.Add(int64(failed))
	}
}

// failures counts the messages of a call that are not stored for certain.
func failures(err error, all int) (n int) {
	var some *stream.ProduceError
	if !errors.As(err, &some) {
		return all
	}
	for _, err := range some.Errs {
		n += b2i(err != nil)
	}
	return n
}

// message is a vector as the served topic holds it. Values are written as
// envelopes have them, exactly, and JSON as text.
func (l *ServedLog) message(v *vector) (stream.Message, error) {
	keys := make([]event.Column, len(v.view.Schema.Keys()))
	for i, f := range v.view.Schema.Keys() {
		keys[i] = newColumn(f.Type, false)
	}
	if err := decodeKey(keys, v.key); err != nil {
		return stream.Message{}, err
	}
	out := append(appendString([]byte(`{"view":`), v.view.Name), `,"key":`...)
	start := len(out)
	for i, f := range v.view.Schema.Keys() {
		out = append(appendString(append(out, "{,"[b2i(i > 0)]), f.Name), ':')
		out = event.AppendValue(out, keys[i].Value(0))
	}
	out = append(out, '}')
	key := append([]byte(nil), out[start:]...)
	out = appendEnvelopeTime(append(out, `,"served_at":`...), v.at)
	status := NotFound
	if v.row.Found() {
		status = Present
		if v.view.Expired(v.row.Version().EventTime, v.at) {
			status = OutsideMaxAge
		}
		out = v.row.Version().appendJSON(append(out, `,"version":`...))
	}
	if v.folded != nil {
		out = appendReached(out, v.folded)
	}
	out = append(out, `,"status":"`+status.String()+`","values":{`...)
	for i, name := range v.columns {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, name), ':')
		column := v.row.Column(name)
		if status != Present || column < 0 {
			out = append(out, "null"...)
			continue
		}
		c := newColumn(v.row.layout.columns[column].typ, true)
		v.row.AppendTo(&c, column)
		out = event.AppendValue(out, jsonAsText(c.Value(0)))
	}
	by := "key"
	if l.cfg.ByRequest {
		by = "request"
	}
	return stream.Message{Key: key, Value: fmt.Appendf(out, `},"uid":%d,"sampled_by":%q,"weight":%s}`, v.view.UID, by, event.AppendFloat(nil, 1/l.cfg.Share))}, nil
}

// jsonAsText makes strings of JSON values: as JSON they would lose how they
// were written.
func jsonAsText(v event.Value) event.Value {
	if v.Type.Elem == event.JSON {
		v.Type.Elem = event.String
		for i := range v.List {
			v.List[i] = jsonAsText(v.List[i])
		}
	}
	return v
}

// appendJSON writes the version as the served topic has it, times in µs.
func (v Version) appendJSON(dst []byte) []byte {
	return fmt.Appendf(dst, `{"event_time":%d,"created":%d,"epoch":%d,"partition":%d,"offset":%d,"index":%d}`, v.EventTime, v.Created, v.Epoch, v.Partition, v.Offset, v.Index)
}

func (l *ServedLog) watch(meter metric.Meter) error {
	served, err := meter.Int64ObservableCounter(telemetry.MetricServedVectors, metric.WithDescription("Sampled feature vectors by what became of them"))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for outcome, n := range map[string]*atomic.Int64{"written": &l.counts.written, "dropped": &l.counts.dropped, "failed": &l.counts.failed} {
			o.ObserveInt64(served, n.Load(), metric.WithAttributes(attribute.String("outcome", outcome)))
		}
		return nil
	}, served)
	return err
}
