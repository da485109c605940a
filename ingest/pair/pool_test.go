package pair

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/stream"
)

// script is what foreign topics hold: by partition, in order.
type script map[stream.TopicPartition][]half

// randomScript has ids with as many requests and responses as copies says, in any
// order over four partitions of one topic or two.
func randomScript(r *rand.Rand, ids int, copies func() (requests, responses int)) script {
	var all []half
	for i := range ids {
		requests, responses := copies()
		for n := range requests + responses {
			all = append(all, half{Half: source.Half{ID: fmt.Sprint("id-", i), Response: n >= requests, Text: []byte("{}")}})
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	topics := []string{"requests", "responses"}
	one := r.IntN(2) == 0
	out := script{}
	for _, h := range all {
		topic := topics[0]
		if h.Response && !one {
			topic = topics[1]
		}
		tp := stream.TopicPartition{Topic: topic, Partition: int32(r.IntN(2))}
		h.place = place{tp, int64(len(out[tp]))}
		out[tp] = append(out[tp], h)
	}
	return out
}

// judged is what the pairs topic should say of each half, by a search over all of
// them: of an id with both, one pair and else repeats; of one without, one that
// is unpaired and else repeats.
func judged(s script) map[string]map[string]int {
	sides := map[string][2]int{}
	for _, list := range s {
		for _, h := range list {
			n := sides[h.ID]
			if h.Response {
				n[1]++
			} else {
				n[0]++
			}
			sides[h.ID] = n
		}
	}
	out := map[string]map[string]int{}
	for id, n := range sides {
		if n[0] > 0 && n[1] > 0 {
			out[id] = map[string]int{paired: 2, duplicate: n[0] + n[1] - 2}
		} else {
			out[id] = map[string]int{unpaired: 1, duplicate: n[0] + n[1] - 1}
		}
	}
	return out
}

// written is one record of the pairs topic.
type written struct {
	kind   string
	id     string
	places []place
}

// player plays a script to pools that die.
type player struct {
	r        *rand.Rand
	s        script
	log      []written
	offsets  map[stream.TopicPartition]int64 // committed
	since    int64
	remember int // ids; 0: as many as there are
	blind    bool
	crashes  int
}

// begin makes a pool as a process that starts does.
func (p *player) begin() *pool {
	pool := newPool(1_000_000, 1<<30, 1<<20)
	if p.remember > 0 {
		pool.remember = p.remember
	}
	for _, tp := range slices.SortedFunc(maps.Keys(p.s), func(a, b stream.TopicPartition) int { return strings.Compare(a.String(), b.String()) }) {
		pool.open(tp, p.offsets[tp])
	}
	pool.logEnd, pool.recovered = int64(len(p.log)), p.since
	for i := p.since; i < pool.logEnd && !p.blind; i++ {
		for _, at := range p.log[i].places {
			pool.settle(at)
		}
		if p.log[i].kind == paired {
			pool.finish([]byte(p.log[i].id), 0, i)
		}
	}
	return pool
}

// write brings some of what was decided to the log; the process may die on the
// way, and before it has committed.
func (p *player) write(pool *pool) (died bool) {
	list := pool.outcomes()
	n := len(list)
	mortal := p.crashes < 60
	if mortal && p.r.IntN(8) == 0 {
		n, died = p.r.IntN(n+1), true
	}
	for _, o := range list[:n] {
		w := written{kind: o.kind, id: o.halves[0].ID}
		for _, h := range o.halves {
			w.places = append(w.places, h.place)
		}
		p.log = append(p.log, w)
	}
	if died || mortal && p.r.IntN(8) == 0 {
		return true
	}
	pool.stored(list)
	if p.r.IntN(4) > 0 {
		p.offsets, p.since = pool.positions()
	}
	return false
}

// play reads everything, dying on the way, and then waits until all is over.
func (p *player) play() {
	p.offsets = map[stream.TopicPartition]int64{}
	for pool := p.begin(); ; {
		var ready []stream.TopicPartition
		for _, tp := range pool.partitions() {
			if pool.lanes[tp].next < int64(len(p.s[tp])) {
				ready = append(ready, tp)
			}
		}
		if len(ready) > 0 && p.r.IntN(6) > 0 {
			tp := ready[p.r.IntN(len(ready))]
			h := p.s[tp][pool.lanes[tp].next]
			h.done, h.over = false, false
			if !pool.meet(h.place, 0) {
				pool.add(&h)
			}
			continue
		}
		if len(ready) == 0 {
			ends := map[stream.TopicPartition]stream.Offsets{}
			for tp, list := range p.s {
				ends[tp] = stream.Offsets{Last: int64(len(list))}
			}
			pool.expire(2_000_000, ends)
		}
		if p.write(pool) {
			p.crashes++
			pool = p.begin()
		} else if len(ready) == 0 && len(pool.halves) == 0 && len(pool.out) == 0 {
			return
		}
	}
}

// faults compares the log with the judgement.
func (p *player) faults() (out []string) {
	seen, got := map[place]int{}, map[string]map[string]int{}
	for _, w := range p.log {
		for _, at := range w.places {
			seen[at]++
			if got[w.id] == nil {
				got[w.id] = map[string]int{}
			}
			got[w.id][w.kind]++
		}
	}
	for tp, list := range p.s {
		for i := range list {
			if n := seen[place{tp, int64(i)}]; n != 1 {
				out = append(out, fmt.Sprintf("%v/%d (%s) has %d outcomes", tp, i, list[i].ID, n))
			}
		}
	}
	for id, want := range judged(p.s) {
		for kind, n := range want {
			if got[id][kind] != n {
				out = append(out, fmt.Sprintf("%s: %d halves are %s, want %d", id, got[id][kind], kind, n))
			}
		}
	}
	return out
}

// TestPairsAgainstBruteForce holds that each half has the outcome that a search
// over all halves gives it, once, in whatever order they come and wherever the
// process dies. A process that does not look at what is written already finds
// itself wrong.
func TestPairsAgainstBruteForce(t *testing.T) {
	repeats := func(r *rand.Rand) func() (int, int) {
		return func() (int, int) { return r.IntN(3), r.IntN(3) }
	}
	singles := func(r *rand.Rand) func() (int, int) {
		return func() (int, int) { return min(r.IntN(5), 1), min(r.IntN(5), 1) }
	}
	for name, c := range map[string]struct {
		copies   func(r *rand.Rand) func() (int, int)
		remember int
		blind    bool
	}{
		"repeated halves":         {copies: repeats},
		"ids are soon forgotten":  {copies: singles, remember: 3},
		"without looking (wrong)": {copies: singles, blind: true},
	} {
		t.Run(name, func(t *testing.T) {
			wrong, crashes := 0, 0
			for seed := range uint64(150) {
				r := rand.New(rand.NewPCG(seed, 7))
				p := &player{r: r, s: randomScript(r, 40, c.copies(r)), remember: c.remember, blind: c.blind}
				p.play()
				crashes += p.crashes
				if f := p.faults(); len(f) > 0 {
					if wrong++; !c.blind {
						t.Fatalf("seed %d, %d crashes: %s", seed, p.crashes, strings.Join(f, "\n"))
					}
				}
			}
			if crashes < 500 {
				t.Errorf("only %d crashes", crashes)
			}
			if c.blind && wrong < 50 {
				t.Errorf("without looking at what is written only %d of 150 go wrong", wrong)
			}
		})
	}
}

// TestWait holds when a half is given up: by the records' time where there are
// more records, by the clock where a topic has ended, and never while a topic is
// behind.
func TestWait(t *testing.T) {
	a, b := stream.TopicPartition{Topic: "requests"}, stream.TopicPartition{Topic: "responses"}
	pool := newPool(100, 1<<20, 1<<20)
	pool.open(a, 0)
	pool.open(b, 0)
	ends := func(na, nb int64) map[stream.TopicPartition]stream.Offsets {
		return map[stream.TopicPartition]stream.Offsets{a: {Last: na}, b: {Last: nb}}
	}
	given := func(want ...string) {
		t.Helper()
		var got []string
		for _, o := range pool.outcomes() {
			got = append(got, o.kind+" "+o.halves[0].ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("outcomes %q, want %q", got, want)
		}
	}
	next := int64(0)
	request := func(id string, at, arrived int64) {
		h := &half{Half: source.Half{ID: id}, place: place{a, next}, time: at, arrived: arrived}
		next++
		pool.meet(h.place, at)
		pool.add(h)
	}
	request("old", 1000, 5000)
	request("new", 1050, 5001)
	pool.expire(1e9, ends(2, 1)) // the responses are behind: by the clock it is long over
	given()
	pool.meet(place{b, 0}, 1120)
	pool.expire(5010, ends(2, 2)) // a response of 1120 is there, but no request yet
	given()
	request("newer", 1110, 5020)
	pool.expire(5030, ends(9, 9))
	given("unpaired old")
	pool.meet(place{b, 1}, 1120)
	pool.expire(5110, ends(3, 2)) // both ended: by the clock, 100 after it arrived
	given("unpaired new")
	pool.expire(5119, ends(3, 2))
	given()
	pool.expire(5120, ends(3, 2))
	given("unpaired newer")
	if at, log := pool.positions(); at[a] != 0 || log != 0 {
		t.Errorf("positions %v, %d before anything is stored", at, log)
	}
}

// TestPairMemory holds that halves beyond the memory are given up, the oldest
// first, with the reason, and that a pair beyond a record's size is refused.
func TestPairMemory(t *testing.T) {
	tp := stream.TopicPartition{Topic: "t"}
	pool := newPool(100, 10*(halfOverhead+102), 150)
	pool.open(tp, 0)
	for i := range int64(12) {
		pool.add(&half{Half: source.Half{ID: fmt.Sprint(i % 100), Text: make([]byte, 98)}, place: place{tp, i}})
	}
	out := pool.outcomes()
	if len(out) != 2 || out[0].halves[0].ID != "0" || out[1].halves[0].ID != "1" || !strings.Contains(out[0].detail, "sources.pair_memory") || pool.bytes > pool.limit {
		t.Fatalf("%d given up, %d bytes of %d: %+v", len(out), pool.bytes, pool.limit, out)
	}
	pool.add(&half{Half: source.Half{ID: "5", Response: true, Text: make([]byte, 98)}, place: place{tp, 12}})
	if out = pool.outcomes(); len(out) != 1 || out[0].reason != event.ReasonTooLarge || len(out[0].halves) != 2 {
		t.Fatalf("a pair that is too large: %+v", out)
	}
}

// TestListsStayShort holds that one half that waits keeps no others in memory.
func TestListsStayShort(t *testing.T) {
	tp := stream.TopicPartition{Topic: "t"}
	pool := newPool(100, 1<<30, 1<<20)
	pool.open(tp, 0)
	offset := int64(0)
	add := func(id int, response bool) {
		pool.meet(place{tp, offset}, 0)
		pool.add(&half{Half: source.Half{ID: fmt.Sprint(id), Response: response, Text: []byte("{}")}, place: place{tp, offset}})
		offset++
	}
	add(-1, false)
	for i := range 20_000 {
		add(i, false)
		add(i, true)
		pool.stored(pool.outcomes())
	}
	if n, m := len(pool.lanes[tp].open), len(pool.order); n > 2*slack || m > 2*slack {
		t.Errorf("%d open and %d ordered halves are held for one that waits", n, m)
	}
	if at, log := pool.positions(); at[tp] != 0 || log != 0 {
		t.Errorf("position %d and %d: a successor would not read the one that waits", at[tp], log)
	}
}
