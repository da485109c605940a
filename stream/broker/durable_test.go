package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/internal/testenv"
)

type place struct {
	partition int32
	offset    int64
}

// acked remembers what the broker acknowledged.
type acked struct {
	mu      sync.Mutex
	records map[place]string
	commit  int64
	errs    []error
}

func (a *acked) promise(r *kgo.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.errs = append(a.errs, err)
		return
	}
	a.records[place{r.Partition, r.Offset}] = string(r.Value)
}

func (a *acked) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.records)
}

// load produces, and commits offsets, until ctx ends.
func (a *acked) load(ctx context.Context, t *testing.T, addr string, round int) {
	c := client(t, addr, kgo.DefaultProduceTopic("load"), kgo.RecordDeliveryTimeout(2*time.Second), kgo.ProducerBatchMaxBytes(32<<10))
	defer c.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			c.Produce(ctx, &kgo.Record{Key: fmt.Appendf(nil, "%d", i), Value: fmt.Appendf(nil, "%d/%d %0100d", round, i, i)}, a.promise)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			a.mu.Lock()
			next := a.commit + 1
			a.mu.Unlock()
			if commit(ctx, c, next) == nil {
				a.mu.Lock()
				a.commit = next
				a.mu.Unlock()
			}
		}
	})
	wg.Wait()
}

// commit stores an offset for group "g" as a client outside any generation.
func commit(ctx context.Context, c *kgo.Client, offset int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = "g", -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = "load"
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset, rp.Metadata = offset, kmsg.StringPtr(fmt.Sprintf("at %d", offset))
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

func committed(ctx context.Context, t *testing.T, addr string) int64 {
	t.Helper()
	c := client(t, addr)
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = "g"
	rt := kmsg.NewOffsetFetchRequestTopic()
	rt.Topic, rt.Partitions = "load", []int32{0}
	req.Topics = append(req.Topics, rt)
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = "g"
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = "load", []int32{0}
	rg.Topics = append(rg.Topics, gt)
	req.Groups = append(req.Groups, rg)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Groups) != 1 || len(resp.Groups[0].Topics) != 1 {
		return -1
	}
	return resp.Groups[0].Topics[0].Partitions[0].Offset
}

// verify reads everything back and compares it with what was acknowledged.
func (a *acked) verify(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	left := make(map[place]string, len(a.records))
	for k, v := range a.records {
		left[k] = v
	}
	c := client(t, addr, kgo.ConsumeTopics("load"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for len(left) > 0 && ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		fs := c.PollFetches(short)
		cancel()
		if fs.Empty() {
			break
		}
		fs.EachRecord(func(r *kgo.Record) {
			at := place{r.Partition, r.Offset}
			if want, ok := left[at]; ok && want != string(r.Value) {
				t.Fatalf("%v holds %.40q, acknowledged was %.40q", at, r.Value, want)
			}
			delete(left, at)
		})
	}
	if len(left) > 0 {
		t.Fatalf("%d of %d acknowledged records are gone", len(left), len(a.records))
	}
	if got := committed(ctx, t, addr); got < a.commit {
		t.Fatalf("commit %d was acknowledged, %d is there", a.commit, got)
	}
}

func TestKillLosesNoAcknowledgedRecordOrCommit(t *testing.T) {
	dir := t.TempDir()
	ctx := within(t, 2*time.Minute)
	a := &acked{records: map[place]string{}, commit: -1}
	for round := range 4 {
		b := startChild(t, config(dir))
		a.verify(ctx, t, b.addr)
		before := a.count()
		loading, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); a.load(loading, t, b.addr, round) }()
		testenv.Eventually(t, 30*time.Second, func() error {
			if n := a.count() - before; n < 20_000 {
				return fmt.Errorf("%d records acknowledged", n)
			}
			return nil
		})
		b.kill()
		stop()
		<-done
	}
	b := startChild(t, config(dir))
	a.verify(ctx, t, b.addr)
	b.stop(t)
	t.Logf("%d records, %d commits, 4 kills", a.count(), a.commit)
}

func TestFullDiskRefusesKeepsAndHeals(t *testing.T) {
	dir := testenv.SmallDisk(t, 32<<20)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	cfg := config(filepath.Join(dir, "data"))
	cfg.ReserveBytes = 8 << 20
	b := startChild(t, cfg)
	a := &acked{records: map[place]string{}, commit: -1}
	a.fill(ctx, t, b.addr)
	full := a.count()
	c := client(t, b.addr)
	for i := range 100 { // the reserve is there for commits
		if err := commit(ctx, c, int64(i)); err != nil {
			t.Fatal(err)
		}
		a.commit = int64(i)
	}
	b.kill()
	b = startChild(t, cfg)
	a.verify(ctx, t, b.addr)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c = client(t, b.addr, kgo.DefaultProduceTopic("load"))
	for i := range 1000 {
		c.Produce(ctx, &kgo.Record{Value: fmt.Appendf(nil, "after %d", i)}, a.promise)
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := a.count(); got != full+1000 {
		t.Fatalf("%d records acknowledged after there was space again, not %d", got, full+1000)
	}
	a.verify(ctx, t, b.addr)
}

// fill produces until the broker refuses.
func (a *acked) fill(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	c := client(t, addr, kgo.DefaultProduceTopic("load"), kgo.RecordDeliveryTimeout(time.Second), kgo.ProducerBatchMaxBytes(64<<10))
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		c.Produce(ctx, &kgo.Record{Value: fmt.Appendf(nil, "%d %01000d", i, i)}, a.promise)
		a.mu.Lock()
		failed := len(a.errs) > 0
		a.mu.Unlock()
		if failed {
			return
		}
	}
	t.Fatal("the disk never filled up")
}

// What kfake alone does when another program fills the disk: it acknowledges
// commits that it cannot write. The test holds the package comment true; if it
// fails, kfake has become better and the reserve may go.
func TestWithoutReserveACommitIsForgotten(t *testing.T) {
	dir := testenv.SmallDisk(t, 8<<20)
	ctx := within(t, time.Minute)
	cfg := config(filepath.Join(dir, "data"))
	cfg.ReserveBytes = -1
	b := startChild(t, cfg)
	c := client(t, b.addr, kgo.DefaultProduceTopic("load"))
	if err := c.ProduceSync(ctx, &kgo.Record{Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := commit(ctx, c, 1); err != nil {
		t.Fatal(err)
	}
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for block := 1 << 20; block > 0; block /= 2 { // to the last byte
		for err = nil; err == nil; {
			_, err = ballast.Write(make([]byte, block))
		}
	}
	last := int64(1)
	for i := int64(2); i < 200; i++ {
		if commit(ctx, c, i) == nil {
			last = i
		}
	}
	b.kill()
	b = startChild(t, cfg) // on the full disk, too
	got := committed(ctx, t, b.addr)
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		t.Fatal(err)
	}
	if got >= last {
		t.Fatalf("commit %d of %d acknowledged ones survived", got, last)
	}
	t.Logf("commit %d was acknowledged, %d survived", last, got)
	// The torn entry must not take later commits with it.
	if err := commit(ctx, client(t, b.addr), 1000); err != nil {
		t.Fatal(err)
	}
	b.kill()
	b = startChild(t, cfg)
	if got := committed(ctx, t, b.addr); got != 1000 {
		t.Fatalf("commit 1000 was acknowledged on a disk with space, %d survived", got)
	}
}

func TestKillKeepsAbortedTransactionsAborted(t *testing.T) {
	ctx := within(t, time.Minute)
	dir := t.TempDir()
	b := startChild(t, config(dir))
	write := func(id, value string, end func(*kgo.Client) error) {
		c := client(t, b.addr, kgo.TransactionalID(id), kgo.DefaultProduceTopic("load"))
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := c.ProduceSync(ctx, &kgo.Record{Key: []byte("k"), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := end(c); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "committed", func(c *kgo.Client) error { return c.EndTransaction(ctx, kgo.TryCommit) })
	write("b", "aborted", func(c *kgo.Client) error { return c.EndTransaction(ctx, kgo.TryAbort) })
	write("c", "open", func(*kgo.Client) error { return nil })
	b.kill()
	b = startChild(t, config(dir))
	if err := client(t, b.addr).ProduceSync(ctx, &kgo.Record{Topic: "load", Key: []byte("k"), Value: []byte("end")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c := client(t, b.addr, kgo.ConsumeTopics("load"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var got []string
	for len(got) == 0 || got[len(got)-1] != "end" {
		fs := c.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if fmt.Sprint(got) != "[committed end]" {
		t.Fatalf("read %v", got)
	}
}
