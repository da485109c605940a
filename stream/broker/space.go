package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lookEvery is how often the free space is looked at: at 400 MB/s a tenth of a
// gigabyte is written between two looks.
const lookEvery = 250 * time.Millisecond

// space refuses requests that write while the disk has little free space.
type space struct {
	dir     string
	reserve int64
	cluster *kfake.Cluster
	log     *slog.Logger

	free      atomic.Int64
	low       atomic.Bool // below the reserve: no producing
	exhausted atomic.Bool // below a quarter of it: no commits either
	hands     []*hand
}

// hand refuses one kind of request while a condition holds.
type hand struct {
	kind      kmsg.Key
	when      *atomic.Bool
	refuse    func(kmsg.Request) (kmsg.Response, error)
	installed atomic.Bool
}

func newSpace(cfg Config, cluster *kfake.Cluster) *space {
	s := &space{dir: cfg.DataDir, reserve: cfg.ReserveBytes, cluster: cluster, log: cfg.Logger}
	s.hands = []*hand{
		{kind: kmsg.Produce, when: &s.low, refuse: refuseProduce},
		{kind: kmsg.OffsetCommit, when: &s.exhausted, refuse: refuseWrite},
		{kind: kmsg.CreateTopics, when: &s.exhausted, refuse: refuseWrite},
		{kind: kmsg.InitProducerID, when: &s.exhausted, refuse: refuseWrite},
	}
	return s
}

func (s *space) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.look(); err != nil {
				s.log.Error("look at the embedded broker's disk", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// look measures the disk and switches refusing on or off.
func (s *space) look() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	free, size := int64(fs.Bavail)*int64(fs.Bsize), int64(fs.Blocks)*int64(fs.Bsize)
	if s.reserve == 0 {
		s.reserve = min(256<<20, size/20)
	}
	s.free.Store(free)
	s.exhausted.Store(free < s.reserve/4)
	low := free < s.reserve
	if was := s.low.Swap(low); was != low {
		s.log.Warn("embedded broker's disk", "dir", s.dir, "free_bytes", free, "reserve_bytes", s.reserve, "refusing", low)
	}
	for _, h := range s.hands {
		if h.when.Load() && !h.installed.Swap(true) {
			s.cluster.ControlKey(int16(h.kind), s.handle(h))
		}
	}
	return nil
}

// handle refuses, and takes itself out when there is space again, so that a
// broker with space pays nothing.
func (s *space) handle(h *hand) func(kmsg.Request) (kmsg.Response, error, bool) {
	return func(req kmsg.Request) (kmsg.Response, error, bool) {
		if !h.when.Load() {
			h.installed.Store(false)
			s.cluster.DropControl()
			return nil, nil, false
		}
		s.cluster.KeepControl()
		resp, err := h.refuse(req)
		return resp, err, true
	}
}

// errNoSpace closes connections whose requests cannot be answered by an error.
var errNoSpace = errors.New("no space left for writes")

// refuseProduce answers with an error that clients repeat after a while.
func refuseProduce(r kmsg.Request) (kmsg.Response, error) {
	req := r.(*kmsg.ProduceRequest)
	if req.Acks == 0 {
		return nil, errNoSpace
	}
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.BaseOffset = p.Partition, kerr.KafkaStorageError.Code, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// refuseWrite answers a commit with an error that clients repeat, and closes
// the connection of anything else.
func refuseWrite(r kmsg.Request) (kmsg.Response, error) {
	req, ok := r.(*kmsg.OffsetCommitRequest)
	if !ok {
		return nil, errNoSpace
	}
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, kerr.CoordinatorNotAvailable.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
