package pair

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/stream"
)

// place is one record of a foreign topic.
type place struct {
	tp     stream.TopicPartition
	offset int64
}

// half is a record on its way to its outcome.
type half struct {
	source.Half
	place
	time    int64 // µs, of the record
	arrived int64 // µs, when it was read
	logEnd  int64 // no outcome of it or of what follows it in its partition lies before, in the pairs topic
	key     []byte
	value   []byte // as it was, as much as a dead letter keeps
	done    bool   // its outcome is in the pairs topic
	over    bool   // its outcome is decided
}

func (h *half) size() int64 {
	return int64(len(h.Text)+len(h.key)+len(h.value)+2*len(h.ID)) + halfOverhead
}

// What a half and the id of a finished pair take beside their bytes.
const (
	halfOverhead = 400
	doneOverhead = 64
)

// outcome is what becomes of one half or two.
type outcome struct {
	kind   string
	halves []*half
	reason event.Reason // of a dead letter
	detail string
}

// Kinds of outcomes, as metrics name them.
const (
	paired    = "paired"
	unpaired  = "unpaired"
	duplicate = "duplicate"
	refused   = "refused"
)

// lane is how far a partition of a foreign topic is.
type lane struct {
	next    int64 // offset to read
	newest  int64 // largest record time met
	open    []*half
	live    int     // of those, without a stored outcome
	settled offsets // that have outcomes from before this process
	last    int64   // largest of those; −1: none
}

// offsets is a set of offsets from a first one on.
type offsets struct {
	from int64
	bits []uint64
}

func (s *offsets) add(offset int64) {
	at := int((offset - s.from) / 64)
	if at >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, at+1-len(s.bits))...)
	}
	s.bits[at] |= 1 << uint((offset-s.from)%64)
}

func (s *offsets) has(offset int64) bool {
	at := int((offset - s.from) / 64)
	return offset >= s.from && at < len(s.bits) && s.bits[at]>>uint((offset-s.from)%64)&1 == 1
}

// pool joins halves. It knows neither Kafka nor the clock, and is for one
// goroutine at a time.
type pool struct {
	wait, limit int64 // µs, bytes
	largest     int   // bytes of a pair
	lanes       map[stream.TopicPartition]*lane
	halves      map[string]*half // that wait, by id: never both of a pair
	order       []*half          // all that were added, by arrival; those whose outcome is decided are skipped
	out         []outcome        // decided and not taken yet
	outBytes    int64
	bytes       int64 // of halves that wait
	logEnd      int64 // of the pairs topic
	recovered   int64 // where the outcomes of settled offsets begin in it
	moved       bool  // the positions may be others than when they were last committed

	seed     maphash.Seed
	finished map[uint64]struct{} // ids of pairs, as digests
	lately   []finishedID        // the same, by time
	remember int                 // how many at most
}

type finishedID struct {
	digest  uint64
	at, log int64 // µs; where the pair is in the pairs topic, or before that
}

func newPool(wait, limit int64, largest int) *pool {
	return &pool{wait: wait, limit: limit, largest: largest, lanes: map[stream.TopicPartition]*lane{}, halves: map[string]*half{},
		seed: maphash.MakeSeed(), finished: map[uint64]struct{}{}, remember: int(limit / 4 / doneOverhead)}
}

// open begins a partition at an offset.
func (p *pool) open(tp stream.TopicPartition, from int64) *lane {
	l := &lane{next: from, newest: math.MinInt64, settled: offsets{from: from}, last: -1}
	p.lanes[tp] = l
	return l
}

// settle notes an outcome that the pairs topic has already.
func (p *pool) settle(at place) {
	l := p.lanes[at.tp]
	if l == nil || at.offset < l.next {
		return
	}
	l.settled.add(at.offset)
	l.last = max(l.last, at.offset)
}

// meet notes that a record was read, and reports whether it has an outcome from
// before.
func (p *pool) meet(at place, time int64) (settled bool) {
	l := p.lanes[at.tp]
	p.moved = true
	l.next, l.newest = max(l.next, at.offset+1), max(l.newest, time)
	return l.settled.has(at.offset)
}

// pass notes that everything before an offset was read: there are offsets without
// a record.
func (p *pool) pass(tp stream.TopicPartition, next int64) {
	l := p.lanes[tp]
	p.moved = true
	l.next = max(l.next, next)
	if l.next > l.last {
		l.settled.bits = nil
	}
}

// track makes the position wait for a half's outcome.
func (p *pool) track(h *half) {
	l := p.lanes[h.tp]
	h.logEnd = p.logEnd
	if h.offset <= l.last {
		h.logEnd = p.recovered
	}
	l.live++
	if l.open = append(l.open, h); len(l.open) > 2*l.live+slack {
		l.open = slices.DeleteFunc(l.open, func(h *half) bool { return h.done })
	}
}

// slack is how long a list may be without being looked through for what is over:
// one half that waits holds up all that came after it.
const slack = 1024

// add takes a half.
func (p *pool) add(h *half) {
	p.track(h)
	other := p.halves[h.ID]
	_, again := p.finished[maphash.String(p.seed, h.ID)]
	switch {
	case other == nil && !again:
		p.halves[h.ID] = h
		if p.order = append(p.order, h); len(p.order) > 2*len(p.halves)+slack {
			p.order = slices.DeleteFunc(p.order, func(h *half) bool { return h.over })
		}
		p.bytes += h.size()
		p.shed()
	case other == nil || other.Response == h.Response:
		p.decide(outcome{kind: duplicate, halves: []*half{h}})
	default:
		p.take(other)
		p.finish([]byte(h.ID), h.arrived, p.logEnd)
		p.decide(p.join(other, h))
	}
}

// join makes a pair of two halves, unless it is larger than a record may be.
func (p *pool) join(a, b *half) outcome {
	if n := len(a.Text) + len(b.Text); n > p.largest {
		return outcome{kind: refused, halves: []*half{a, b}, reason: event.ReasonTooLarge, detail: fmt.Sprintf("the request and the response have %d bytes together, at most %d", n, p.largest)}
	}
	return outcome{kind: paired, halves: []*half{a, b}}
}

// refuse makes a dead letter of a record that cannot be read as a half.
func (p *pool) refuse(h *half, reason event.Reason, detail string) {
	p.track(h)
	p.decide(outcome{kind: refused, halves: []*half{h}, reason: reason, detail: detail})
}

func (p *pool) decide(o outcome) {
	for _, h := range o.halves {
		h.over = true
		p.outBytes += h.size()
	}
	p.out = append(p.out, o)
}

// take removes a half from those that wait.
func (p *pool) take(h *half) {
	delete(p.halves, h.ID)
	p.bytes -= h.size()
	h.over = true
}

// finish remembers the id of a pair, so that a half that comes twice is known for
// one.
func (p *pool) finish(id []byte, at, log int64) {
	digest := maphash.Bytes(p.seed, id)
	p.finished[digest] = struct{}{}
	p.lately = append(p.lately, finishedID{digest, at, log})
	for len(p.lately) > p.remember {
		p.forget()
	}
}

func (p *pool) forget() {
	delete(p.finished, p.lately[0].digest)
	p.lately = p.lately[1:]
}

// shed gives the oldest halves up where the memory is used up.
func (p *pool) shed() {
	for p.bytes > p.limit {
		h := p.oldest()
		if h == nil {
			return
		}
		p.giveUp(h, "the memory for halves that wait is used up: raise sources.pair_memory, or lower the wait")
	}
}

// oldest returns the half that has waited longest.
func (p *pool) oldest() *half {
	for len(p.order) > 0 && p.order[0].over {
		p.order[0] = nil
		p.order = p.order[1:]
	}
	if len(p.order) == 0 {
		return nil
	}
	return p.order[0]
}

func (p *pool) giveUp(h *half, detail string) {
	p.take(h)
	what := "the response"
	if h.Response {
		what = "the request"
	}
	p.decide(outcome{kind: unpaired, halves: []*half{h}, reason: event.ReasonUnpaired, detail: what + " to id " + h.ID + " did not come: " + detail})
}

// due reports whether there may be something to expire, by the clock.
func (p *pool) due(now int64) bool {
	h := p.oldest()
	return h != nil && (h.time+p.wait <= now || h.arrived+p.wait <= now)
}

// expire gives up the halves whose wait is over: every partition has records as
// late, or has been read to the end that it had when now was read.
func (p *pool) expire(now int64, ends map[stream.TopicPartition]stream.Offsets) {
	for len(p.lately) > 0 && p.lately[0].at+p.wait < now {
		p.forget()
	}
	for h := p.oldest(); h != nil && p.passed(h, now, ends); h = p.oldest() {
		p.giveUp(h, "the wait is over")
	}
}

func (p *pool) passed(h *half, now int64, ends map[stream.TopicPartition]stream.Offsets) bool {
	for tp, l := range p.lanes {
		end, asked := ends[tp]
		caughtUp := asked && l.next >= end.Last && h.arrived+p.wait <= now
		if l.newest < h.time+p.wait && !caughtUp {
			return false
		}
	}
	return true
}

// outcomes takes what was decided.
func (p *pool) outcomes() []outcome {
	out := p.out
	p.out, p.outBytes = nil, 0
	return out
}

// stored notes that outcomes are in the pairs topic.
func (p *pool) stored(list []outcome) {
	p.moved = true
	for _, o := range list {
		for _, h := range o.halves {
			h.done = true
			h.Text, h.key, h.value = nil, nil, nil
			p.lanes[h.tp].live--
		}
	}
	p.logEnd += int64(len(list))
}

// positions are where a successor has to begin: in each partition at its first
// half without a stored outcome, and in the pairs topic where outcomes of what
// follows it begin.
func (p *pool) positions() (at map[stream.TopicPartition]int64, log int64) {
	at, log = make(map[stream.TopicPartition]int64, len(p.lanes)), p.logEnd
	if len(p.lately) > 0 {
		log = min(log, p.lately[0].log)
	}
	for tp, l := range p.lanes {
		for len(l.open) > 0 && l.open[0].done {
			l.open[0] = nil
			l.open = l.open[1:]
		}
		at[tp] = l.next
		if len(l.open) > 0 {
			at[tp] = l.open[0].offset
			log = min(log, l.open[0].logEnd)
		}
		if l.next <= l.last { // of what was settled before, not all was passed yet
			log = min(log, p.recovered)
		}
	}
	return at, log
}

func (p *pool) partitions() []stream.TopicPartition {
	return slices.SortedFunc(maps.Keys(p.lanes), func(a, b stream.TopicPartition) int {
		if a.Topic != b.Topic {
			return strings.Compare(a.Topic, b.Topic)
		}
		return int(a.Partition - b.Partition)
	})
}
