package features

import (
	"fmt"
	"math"
	"slices"
)

// windowPart is one epoch of one partition of a topic that windows follow.
type windowPart struct {
	topic string
	partitionEpoch
}

// reached is how far a part is folded in. Where several topics bring the events
// of a key, no single position says which of them a window holds.
type reached struct {
	*windowPart
	offset int64 // the last one; -1: none
	index  int32 // of the last row within its record
}

// holds reports whether a row of the part's partition lies behind what was folded in.
func (r reached) holds(v Version) bool {
	return v.Epoch < r.epoch || v.Epoch == r.epoch && (v.Offset < r.offset || v.Offset == r.offset && v.Index <= r.index)
}

// noPart is that of rows that came from what is stored.
const noPart = -1

// part finds a part's place in the lists of the shards, or makes one; t.mu is held.
func (t *windowTable) part(topic string, at partitionEpoch) int {
	i := slices.IndexFunc(t.parts, func(p *windowPart) bool { return p.topic == topic && p.partitionEpoch == at })
	if i >= 0 {
		return i
	}
	p := &windowPart{topic, at}
	t.parts = append(t.parts, p)
	for i := range t.shards {
		t.shards[i].mu.Lock()
		t.reached[i] = append(t.reached[i], reached{p, -1, 0})
		t.shards[i].mu.Unlock()
	}
	if isForeign(topic) {
		t.mixed.Store(true)
	}
	return len(t.parts) - 1
}

// begin says that a part is folded in before an offset; t.mu is held.
func (t *windowTable) begin(part int, next int64) {
	for i := range t.shards {
		t.shards[i].mu.Lock()
		t.reached[i][part].offset, t.reached[i][part].index = next-1, math.MaxInt32
		t.shards[i].mu.Unlock()
	}
}

// reach notes that a row of a part was met; the shard's lock is held.
func (t *windowTable) reach(shard uint64, part int, v Version) {
	if part == noPart {
		return
	}
	if r := &t.reached[shard][part]; !r.holds(v) {
		r.offset, r.index = v.Offset, v.Index
	}
}

// appendReached writes what was folded in as the served topic has it.
func appendReached(dst []byte, all []reached) []byte {
	dst = append(dst, `,"folded":[`...)
	for i, r := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"topic":`...), r.topic)
		dst = fmt.Appendf(dst, `,"partition":%d,"epoch":%d,"offset":%d,"index":%d}`, r.partition, r.epoch, r.offset, r.index)
	}
	return append(dst, ']')
}

// folded reads what appendReached wrote; nil when there is none.
func (r *servedReader) folded() (out []reached) {
	list := r.n.member("folded")
	if list == nil {
		return nil
	}
	for i := range list.items {
		n := &list.items[i]
		topic := n.member("topic")
		if topic == nil || topic.kind != kindString {
			_ = r.fail("folded")
			return nil
		}
		at := partitionEpoch{int32(r.integer(n, "partition")), int32(r.integer(n, "epoch"))}
		out = append(out, reached{&windowPart{topic.text, at}, r.integer(n, "offset"), int32(r.integer(n, "index"))})
	}
	return out
}

// had reports whether the windows of a read had a row folded in, by where it was
// in its log.
func (s *sample) had(topic string, v Version) bool {
	if s.folded == nil { // only its own topic had been read
		last := s.version
		return !isForeign(topic) && v.Partition == last.Partition && (v.Epoch < last.Epoch || v.Epoch == last.Epoch && v.Offset <= last.Offset)
	}
	return slices.ContainsFunc(s.folded, func(r reached) bool {
		return r.partition == v.Partition && r.topic == topic && r.holds(v)
	})
}
