package telemetry

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// keptSpans is how many ended spans a process can show by itself: some ten
// megabytes, an hour of the demo stream.
const keptSpans = 16384

// Span is one ended span of a sampled trace.
type Span struct {
	ID, Parent string // 16 hex digits; no parent: empty
	Name       string
	Room       string // instrumentation scope
	Start      time.Time
	Duration   time.Duration
	Failed     string // what went wrong; empty: nothing
	Attributes []attribute.KeyValue
}

// spans keeps the newest ended spans, for a Kedge beside which no collector
// runs. It is one of the tracer's processors and is safe for concurrent use.
type spans struct {
	mu   sync.Mutex
	ring []kept
	next int // where the oldest stands once the ring is full
	most int
}

type kept struct {
	trace trace.TraceID
	Span
}

// OnStart does nothing: only what has ended is shown.
func (*spans) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps a span in place of the oldest.
func (s *spans) OnEnd(e sdktrace.ReadOnlySpan) {
	k := kept{e.SpanContext().TraceID(), Span{ID: e.SpanContext().SpanID().String(), Name: e.Name(), Room: e.InstrumentationScope().Name,
		Start: e.StartTime(), Duration: e.EndTime().Sub(e.StartTime()), Attributes: e.Attributes()}}
	if e.Parent().HasSpanID() {
		k.Parent = e.Parent().SpanID().String()
	}
	if st := e.Status(); st.Code == codes.Error {
		k.Failed = "error"
		if st.Description != "" {
			k.Failed = st.Description
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) < s.most {
		s.ring = append(s.ring, k)
		return
	}
	s.ring[s.next] = k
	s.next = (s.next + 1) % s.most
}

// Shutdown does nothing: what is kept is lost with the process.
func (*spans) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (*spans) ForceFlush(context.Context) error { return nil }

// Trace returns the spans that are kept of a trace, in the order in which they
// ended; none of an id that is no trace's.
func (t *Telemetry) Trace(id string) []Span {
	var want trace.TraceID
	if n, err := hex.Decode(want[:], []byte(id[:min(len(id), 2*len(want))])); err != nil || n != len(want) || len(id) != 2*n {
		return nil
	}
	s := t.kept
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Span
	for i := range s.ring {
		if k := &s.ring[(s.next+i)%len(s.ring)]; k.trace == want {
			out = append(out, k.Span)
		}
	}
	return out
}

// Root is the span that a trace began with in this process.
type Root struct {
	Trace string // 32 hex digits
	Span
}

// Newest returns the roots of up to n traces, the one that ended last first.
func (t *Telemetry) Newest(n int) []Root {
	s := t.kept
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool, len(s.ring))
	for i := range s.ring {
		ids[s.ring[i].ID] = true
	}
	var out []Root
	told := map[trace.TraceID]bool{}
	for i := len(s.ring) - 1; i >= 0 && len(out) < n; i-- {
		if k := &s.ring[(s.next+i)%len(s.ring)]; !ids[k.Parent] && !told[k.trace] {
			told[k.trace] = true
			out = append(out, Root{k.trace.String(), k.Span})
		}
	}
	return out
}
