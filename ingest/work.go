package ingest

import (
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// work is one unit on its way: filled by a partition's reader, written by its
// writer, and then filled again.
type work struct {
	unit     event.Unit
	from     int64 // first offset
	next     int64 // one past the last
	dropped  int64
	missing  int64
	registry int64     // registry offset of the unit's catalog
	window   int64     // id window it was decoded with
	bytes    int64     // of keys and values
	held     int64     // of those, what counts against the consumer's memory
	large    int64     // bytes that are put by for it; see the type large
	first    time.Time // when the first record came; zero while there is none
	last     *mark     // the last record of the unit, for the intents after it
	traces   []string  // traceparents of sampled records, at most maxTraces
	replayed bool
	doubtful atomic.Bool // an insert failed, and may have stored its block or only its token
}

// reset makes the work an empty unit that starts at an offset.
func (w *work) reset(from int64, epoch int32, catalog *event.Catalog, registry, window int64) {
	w.unit.Epoch = epoch
	w.unit.Reset(catalog)
	w.from, w.next, w.dropped, w.missing = from, from, 0, 0
	w.doubtful.Store(false)
	w.registry, w.window, w.bytes, w.first, w.last, w.replayed = registry, window, 0, time.Time{}, nil, false
	w.traces = w.traces[:0]
}

func (w *work) empty() bool { return w.next == w.from }

// add decodes a batch that follows what the work holds. The batch can be
// released afterwards.
func (w *work) add(d *event.Decoder, b *stream.Batch) {
	w.begin()
	for i := range b.Records {
		r := &b.Records[i]
		rec := event.Record{Partition: b.Partition, Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Trace: w.met(r)}
		if len(b.Faults) > 0 && w.unread(d, b, rec) {
			continue
		}
		d.Decode(&w.unit, rec)
	}
	w.end(b)
}

// unread makes a dead letter of what stands for a batch that cannot be read. Its
// bytes are not kept: compressed, they may hold what an erasure could not find.
func (w *work) unread(d *event.Decoder, b *stream.Batch, rec event.Record) bool {
	f := b.Fault(rec.Offset)
	if f == nil {
		return false
	}
	rec.Value = f.Bytes
	d.Refuse(&w.unit, rec, event.ReasonUnreadable, f.Err.Error())
	w.unit.Dead[len(w.unit.Dead)-1].Value = nil
	return true
}

func (w *work) begin() {
	if w.first.IsZero() {
		w.first = time.Now()
	}
}

// met counts a record's bytes and returns its trace id.
func (w *work) met(r *stream.Record) string {
	w.bytes += int64(len(r.Key) + len(r.Value))
	return w.continues(r.TraceParent())
}

// continues notes a record's trace, where somebody will see it, and returns its
// id.
func (w *work) continues(parent []byte) string {
	if len(w.traces) < maxTraces && sampled(parent) {
		w.traces = append(w.traces, string(parent))
	}
	return traceID(parent)
}

func (w *work) end(b *stream.Batch) {
	if n := len(b.Records); n > 0 {
		w.last = &mark{b.Records[n-1].Offset, b.Records[n-1].Time}
	}
	w.dropped += b.Dropped
	w.missing += b.Missing
	w.next = b.Next
}

// maxTraces bounds the traces that one unit of work ends in.
const maxTraces = 32

// sampled reports whether somebody will see the trace of a W3C traceparent.
func sampled(parent []byte) bool {
	if len(parent) < 55 || parent[52] != '-' {
		return false
	}
	flags, err := strconv.ParseUint(unsafe.String(&parent[53], 2), 16, 8)
	return err == nil && flags&1 == 1
}

// traceID returns the trace id within a W3C traceparent, without copying: the
// decoder copies it into its column before the record's memory is released.
func traceID(parent []byte) string {
	if len(parent) < 55 || parent[2] != '-' || parent[35] != '-' {
		return ""
	}
	return unsafe.String(&parent[3], 32)
}

// ledger is the unit's ledger row.
func (w *work) ledger(partition int32) event.LedgerRow {
	r := w.unit.Ledger()
	r.Partition, r.From, r.To = partition, w.from, w.next-1
	r.Dropped, r.Missing, r.Registry = w.dropped, w.missing, w.registry
	return r
}

func (w *work) intent(decoder int, last *mark) intent {
	return intent{Epoch: w.unit.Epoch, From: w.from, To: w.next - 1, Decoder: decoder, Registry: w.registry, Window: w.window, Last: last}
}
