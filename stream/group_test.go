package stream_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/stream"
)

// member is a member of the world's group, with a client of its own.
func (w *world) member(topics ...string) *stream.Group {
	w.Helper()
	if len(topics) == 0 {
		topics = []string{w.topic}
	}
	g, err := newClient(w.T, w.addr).JoinGroup(w.ctx(), stream.GroupConfig{ID: w.topic, Topics: topics,
		Heartbeat: 100 * time.Millisecond, Session: 6 * time.Second, Rebalance: 10 * time.Second, Watch: 200 * time.Millisecond})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { g.Close() })
	return g
}

func (w *world) next(g *stream.Group) *stream.Generation {
	w.Helper()
	gen, err := g.Next(w.ctx())
	if err != nil {
		w.Fatal(err)
	}
	return gen
}

func (w *world) commit(gen *stream.Generation, offset int64, metadata string) error {
	return gen.Commit(w.ctx(), []stream.OffsetCommit{{TopicPartition: w.tp(0), Offset: offset, Metadata: metadata}})
}

func testCommitMetadata(w *world) {
	w.create(2, nil)
	g := w.member()
	gen := w.next(g)
	want := map[stream.TopicPartition]stream.Committed{w.tp(0): {Offset: -1}, w.tp(1): {Offset: -1}}
	if !maps.Equal(gen.Assigned, want) {
		w.Errorf("first assignment %v", gen.Assigned)
	}
	metadata := `{"v":1,"e":3,"a":10,"b":20}` + strings.Repeat(" ", 3000)
	if err := gen.Commit(w.ctx(), nil); err != nil {
		w.Error(err)
	}
	if err := w.commit(gen, 10, metadata); err != nil {
		w.Fatal(err)
	}
	if err := g.Close(); err != nil {
		w.Fatal(err)
	}
	if _, err := g.Next(w.ctx()); !errors.Is(err, stream.ErrClosed) {
		w.Errorf("closed group: %v", err)
	}
	select {
	case <-gen.Done:
	case <-w.ctx().Done():
		w.Error("the generation outlived its group")
	}
	if err := w.commit(gen, 11, "late"); !errors.Is(err, stream.ErrFenced) {
		w.Errorf("commit after leaving: %v", err)
	}
	want[w.tp(0)] = stream.Committed{Offset: 10, Metadata: metadata}
	if again := w.next(w.member()); !maps.Equal(again.Assigned, want) {
		w.Errorf("second assignment %v", again.Assigned)
	}
}

// A member that did not notice that its partitions went elsewhere cannot
// commit any more; what the new owner committed stays.
func testZombie(w *world) {
	w.create(1, nil)
	zombie := w.member()
	old := w.next(zombie)
	if err := w.commit(old, 1, "old"); err != nil {
		w.Fatal(err)
	}
	fresh := w.member()
	joined := make(chan *stream.Generation)
	go func() {
		gen, err := fresh.Next(w.ctx())
		if err != nil {
			w.Error(err)
		}
		joined <- gen
	}()
	<-old.Done
	if err := w.commit(old, 2, "last words"); err != nil { // others wait for it meanwhile
		w.Errorf("commit while letting go: %v", err)
	}
	gen := <-joined // the zombie never calls Next: after the rebalance timeout it is left out
	if gen == nil || len(gen.Assigned) != 1 || gen.Assigned[w.tp(0)].Metadata != "last words" {
		w.Fatalf("new owner's assignment %+v", gen)
	}
	if err := w.commit(gen, 3, "new"); err != nil {
		w.Fatal(err)
	}
	if err := w.commit(old, 2, "zombie"); !errors.Is(err, stream.ErrFenced) {
		w.Errorf("the zombie's commit: %v", err)
	}
	at, err := w.c.Committed(w.ctx(), w.topic, w.tp(0))
	if err != nil || at[w.tp(0)] != (stream.Committed{Offset: 3, Metadata: "new"}) {
		w.Errorf("committed is %v, %v", at, err)
	}
}

// seat is a member that takes whatever it is assigned until told to leave.
type seat struct {
	group *stream.Group
	has   chan map[stream.TopicPartition]stream.Committed
}

func (w *world) sit() *seat {
	s := &seat{group: w.member(), has: make(chan map[stream.TopicPartition]stream.Committed)}
	go func() {
		for {
			gen, err := s.group.Next(w.ctx())
			if err != nil {
				close(s.has)
				return
			}
			select {
			case s.has <- gen.Assigned:
				<-gen.Done
			case <-gen.Done:
			}
		}
	}()
	return s
}

// settle waits until the seats share all partitions, each by one.
func (w *world) settle(partitions int, seats ...*seat) {
	w.Helper()
	holds := make([]map[stream.TopicPartition]stream.Committed, len(seats))
	deadline := time.After(3 * time.Minute)
	for {
		owners := map[stream.TopicPartition]int{}
		least := partitions
		for _, h := range holds {
			least = min(least, len(h))
			for tp := range h {
				owners[tp]++
			}
		}
		shared := len(owners) == partitions && least > 0
		for _, n := range owners {
			shared = shared && n == 1
		}
		if shared {
			return
		}
		for i, s := range seats {
			select {
			case holds[i] = <-s.has:
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				w.Fatalf("not settled: %v", holds)
			}
		}
	}
}

func testThreeMembers(w *world) {
	w.create(6, nil)
	a := w.sit()
	w.settle(6, a)
	b, c := w.sit(), w.sit()
	w.settle(6, a, b, c)
	if err := b.group.Close(); err != nil {
		w.Fatal(err)
	}
	w.settle(6, a, c)
	a.group.Close()
	c.group.Close()
	for _, s := range []*seat{a, b, c} {
		for range s.has { // until it has left
		}
	}
}

func testNewTopics(w *world) {
	later := w.topic + "-later"
	g, err := w.c.JoinGroup(w.ctx(), stream.GroupConfig{ID: w.topic, Topics: []string{w.topic},
		Match: func(name string) bool { return name == later }, Heartbeat: 100 * time.Millisecond, Watch: 100 * time.Millisecond})
	if err != nil {
		w.Fatal(err)
	}
	defer g.Close()
	short, cancel := context.WithTimeout(w.ctx(), 500*time.Millisecond)
	defer cancel()
	if gen, err := g.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("without a topic: %v, %v", gen, err)
	}
	w.create(1, nil)
	gen := w.next(g)
	if len(gen.Assigned) != 1 {
		w.Fatalf("one topic: %v", gen.Assigned)
	}
	if err := w.c.EnsureTopics(w.ctx(), []stream.TopicSpec{{Name: later, Partitions: 2}}); err != nil {
		w.Fatal(err)
	}
	<-gen.Done
	if gen = w.next(g); len(gen.Assigned) != 3 {
		w.Fatalf("two topics: %v", gen.Assigned)
	}
	if err := w.c.AddPartitions(w.ctx(), later, 3); err != nil {
		w.Fatal(err)
	}
	<-gen.Done
	if gen = w.next(g); len(gen.Assigned) != 4 {
		w.Fatalf("another partition: %v", gen.Assigned)
	}
	if err := gen.Commit(w.ctx(), []stream.OffsetCommit{{TopicPartition: stream.TopicPartition{Topic: later, Partition: 2}, Offset: 5}}); err != nil {
		w.Fatal(err)
	}
}
