package stream_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/kafkatest"
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

// A member whose commit is refused while its heartbeats are answered, as a
// coordinator does that stood still, finds its generation over and joins again.
func testRefusedCommit(w *world) {
	w.create(1, nil)
	g := w.slowlyBeating()
	old := w.next(g)
	kafkatest.Evict(w.T, w.addr, w.topic) // and the heartbeats will not tell for half a minute
	if err := w.commit(old, 1, ""); !errors.Is(err, stream.ErrFenced) {
		w.Fatalf("the commit of one that is no member: %v", err)
	}
	ctx := limit(w.T, 15*time.Second)
	select {
	case <-old.Done:
	case <-ctx.Done():
		w.Fatal("a generation goes on after its commit was fenced")
	}
	gen, err := g.Next(ctx)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.commit(gen, 2, ""); err != nil {
		w.Error(err)
	}
}

// A member that asks for the next generation gives up the one that it has.
func testGivesUp(w *world) {
	w.create(1, nil)
	g := w.slowlyBeating()
	old := w.next(g)
	gen, err := g.Next(limit(w.T, 15*time.Second))
	if err != nil {
		w.Fatal(err)
	}
	select {
	case <-old.Done:
	default:
		w.Error("two generations at once")
	}
	if err := w.commit(gen, 1, ""); err != nil || len(gen.Assigned) != 1 {
		w.Errorf("the next generation %v: %v", gen.Assigned, err)
	}
}

// slowlyBeating is a member that learns of nothing by its heartbeats.
func (w *world) slowlyBeating() *stream.Group {
	w.Helper()
	g, err := newClient(w.T, w.addr).JoinGroup(w.ctx(), stream.GroupConfig{ID: w.topic, Topics: []string{w.topic},
		Heartbeat: 30 * time.Second, Session: 40 * time.Second})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { g.Close() })
	return g
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

// slowMember is a member, by the other library, that heartbeats and does not
// let go.
type slowMember struct {
	w    *world
	c    *kgo.Client
	join *kmsg.JoinGroupResponse
}

// joinSlowly makes a member of a client that speaks the protocol itself.
func (w *world) joinSlowly() *slowMember {
	w.Helper()
	c := w.franz()
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.ProtocolType, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = w.topic, "consumer", 6000, 30_000
	protocol := kmsg.NewJoinGroupRequestProtocol()
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{w.topic}
	protocol.Name, protocol.Metadata = "roundrobin", meta.AppendTo(nil)
	req.Protocols = append(req.Protocols, protocol)
	s := &slowMember{w: w, c: c}
	for {
		var err error
		if s.join, err = req.RequestWith(w.ctx(), c); err != nil {
			w.Fatal(err)
		}
		if s.join.ErrorCode != kerr.MemberIDRequired.Code {
			break
		}
		req.MemberID = s.join.MemberID
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = w.topic, s.join.MemberID, s.join.Generation
	sync.ProtocolType, sync.Protocol = s.join.ProtocolType, s.join.Protocol
	if res, err := sync.RequestWith(w.ctx(), c); err != nil || s.join.ErrorCode != 0 || res.ErrorCode != 0 {
		w.Fatalf("join: %v, %d, %+v", err, s.join.ErrorCode, res)
	}
	return s
}

// stay heartbeats for so long, and leaves.
func (s *slowMember) stay(d time.Duration) {
	s.w.Helper()
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = s.w.topic, s.join.MemberID, s.join.Generation
	for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if res, err := beat.RequestWith(s.w.ctx(), s.c); err != nil || res.ErrorCode != kerr.RebalanceInProgress.Code && res.ErrorCode != 0 {
			s.w.Fatalf("heartbeat: %+v, %v", res, err)
		}
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = s.w.topic, s.join.MemberID
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = s.join.MemberID
	leave.Members = append(leave.Members, member)
	if _, err := leave.RequestWith(s.w.ctx(), s.c); err != nil {
		s.w.Fatal(err)
	}
}

// A member that waits in a rebalance for another one, for longer than its own
// session, is still a member afterwards.
func testSlowMember(w *world) {
	w.create(3, nil)
	a := w.member()
	first := w.next(a)
	second := make(chan *stream.Generation)
	go func() {
		<-first.Done
		second <- w.next(a)
	}()
	slow := w.joinSlowly()
	gen := <-second
	b, bs := w.member(), make(chan *stream.Generation)
	go func() { bs <- w.next(b) }()
	<-gen.Done
	third := make(chan *stream.Generation)
	go func() { third <- w.next(a) }()
	slow.stay(8 * time.Second)
	after, other := <-third, <-bs
	if after.MemberID != first.MemberID || after.ID != other.ID || len(after.Assigned)+len(other.Assigned) != 3 {
		w.Errorf("member %s of the first generation is %s in generation %d with %d partitions; the other has %d in %d",
			first.MemberID, after.MemberID, after.ID, len(after.Assigned), len(other.Assigned), other.ID)
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
