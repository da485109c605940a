package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kedge-ml/kedge/stream"
)

// deaf is a connection that loses an answer, once it is told to.
type deaf struct {
	net.Conn
	lose *atomic.Bool
}

func (d deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if n > 0 && d.lose.CompareAndSwap(true, false) {
		return 0, errors.Join(errors.New("the answer is lost"), d.Close())
	}
	return n, err
}

// TestOneRequestPerLeader produces to four partitions of one leader: what one call
// brings is one request. Where the leader refuses some of it, where the answer is
// lost, and where both sides are in a hurry, every message is stored once and in its
// order.
func TestOneRequestPerLeader(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var requests, sets, refuse atomic.Int32
	var loses, lose atomic.Bool
	k.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		requests.Add(1)
		sets.Add(int32(len(req.Topics[0].Partitions)))
		if loses.CompareAndSwap(true, false) {
			lose.Store(true)
		}
		if len(req.Topics[0].Partitions) < 2 || refuse.Add(-1) < 0 {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		res.Topics = []kmsg.ProduceResponseTopic{{Topic: "t"}}
		for _, p := range req.Topics[0].Partitions {
			res.Topics[0].Partitions = append(res.Topics[0].Partitions,
				kmsg.ProduceResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.NotLeaderForPartition.Code, BaseOffset: -1})
		}
		return res, nil, true
	})
	c, err := stream.NewClient(stream.Config{Brokers: k.ListenAddrs(), Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return deaf{conn, &lose}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := c.Producer(stream.ProducerConfig{})
	turn := 0
	send := func() {
		t.Helper()
		var msgs []stream.Message
		for i := range 12 {
			msgs = append(msgs, stream.Message{Pinned: true, Partition: int32(i % 4), Value: fmt.Append(nil, turn*3+i/4)})
		}
		turn++
		if err := p.Produce(limit(t, 20*time.Second), "t", msgs...); err != nil {
			t.Fatal(err)
		}
	}
	send() // each partition asks for a producer id
	requests.Store(0)
	send()
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests for four partitions of one leader, want 1", n)
	}
	refuse.Store(1)
	send()
	loses.Store(true)
	send()
	if lose.Load() || refuse.Load() > 0 {
		t.Error("no answer was lost, or none refused")
	}
	requests.Store(0)
	send() // those that went on alone are together again
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests after the faults, want 1", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, addr: k.ListenAddrs()[0], topic: "t", c: c}
	ends := w.ends(4)
	records := w.fetch(stream.FetchConfig{}, w.starts(4), ends).records
	for p := range 4 {
		if end := ends[w.tp(p)]; end != int64(3*turn) {
			t.Errorf("partition %d has %d messages, want %d", p, end, 3*turn)
			continue
		}
		for off := range int64(3 * turn) {
			if r := records[place{int32(p), off}]; r.value != fmt.Sprintf("%q", fmt.Sprint(off)) {
				t.Errorf("partition %d offset %d holds %s", p, off, r.value)
			}
		}
	}
}
