package demo

import (
	"container/heap"
	"math"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Config shapes the stream.
type Config struct {
	Seed  uint64
	Rate  float64   // predictions a second
	Began time.Time // the storm's clock starts here
}

// Event is one envelope on its way to its topic.
type Event struct {
	Kind  event.Kind
	Time  time.Time // when it happens, which is when it is to be produced
	Key   []byte    // Kafka key
	Value []byte
	Trace *Trace // of a prediction that its caller traces
}

// Trace is what a caller who traces a prediction knows of it.
type Trace struct {
	Parent            string // W3C traceparent of the caller's span
	Version           string // that answered
	Features, Compute time.Duration
}

// maxLabelDelay is the longest that the truth takes.
const maxLabelDelay = 10 * time.Minute

// Stream yields events in the order in which they happen.
type Stream struct {
	cfg     Config
	cursor  time.Time // next second to generate, whole
	past    bool      // events state their own time as known_at
	pending labelHeap // labels not due yet
}

// NewStream starts at a time; labels of earlier predictions that fall due after
// it are part of the stream.
func NewStream(cfg Config, from time.Time) *Stream {
	s := &Stream{cfg: cfg, cursor: from.Truncate(time.Second)}
	for t := s.cursor.Add(-maxLabelDelay - time.Second); t.Before(s.cursor); t = t.Add(time.Second) {
		for _, r := range s.rides(t) {
			if !r.labelAt.Before(s.cursor) {
				heap.Push(&s.pending, r)
			}
		}
	}
	return s
}

// Advance returns the events from where the stream stands up to a time, whole
// seconds only. For a past that is written only now, events state their own
// time as known_at; otherwise they leave that to the broker's clock.
func (s *Stream) Advance(to time.Time, past bool) []Event {
	s.past = past
	var out []Event
	for next := s.cursor.Add(time.Second); !next.After(to); next = next.Add(time.Second) {
		out = append(out, s.drivers(s.cursor)...)
		for _, r := range s.rides(s.cursor) {
			out = append(out, s.prediction(r))
			heap.Push(&s.pending, r)
		}
		for len(s.pending) > 0 && s.pending[0].labelAt.Before(next) {
			out = append(out, s.label(heap.Pop(&s.pending).(ride)))
		}
		s.cursor = next
	}
	return out
}

// At is where the stream stands.
func (s *Stream) At() time.Time { return s.cursor }

// The storm begins stormAfter after the stream, rises for stormRise, and lasts
// stormFor; the next one follows every stormEvery.
const (
	stormAfter = 5 * time.Minute
	stormRise  = 2 * time.Minute
	stormFor   = 25 * time.Minute
	stormEvery = time.Hour
)

// storm is its strength at a time, 0 to 1.
func (c Config) storm(t time.Time) float64 {
	since := t.Sub(c.Began) - stormAfter
	if since < 0 {
		return 0
	}
	since %= stormEvery
	if since > stormFor {
		return math.Max(0, 1-float64(since-stormFor)/float64(stormRise))
	}
	return math.Min(1, float64(since)/float64(stormRise))
}

// labelHeap orders rides by when their truth is known, then by id.
type labelHeap []ride

func (h labelHeap) Len() int { return len(h) }
func (h labelHeap) Less(i, j int) bool {
	if !h[i].labelAt.Equal(h[j].labelAt) {
		return h[i].labelAt.Before(h[j].labelAt)
	}
	return h[i].id < h[j].id
}
func (h labelHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *labelHeap) Push(x any)   { *h = append(*h, x.(ride)) }
func (h *labelHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
