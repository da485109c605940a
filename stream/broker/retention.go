package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// sweep applies the topics' retention until ctx ends.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(b.cfg.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := b.applyRetention(time.Now()); err != nil {
			b.cfg.Logger.Error("retention of the embedded broker", "error", err)
		}
	}
}

// applyRetention deletes whole segments, as a Kafka broker does: those whose
// last write is older than the topic's retention.ms, and the oldest of a
// partition that exceeds retention.bytes. The segment that is being written
// to stays, so that a partition never forgets its offsets.
func (b *Broker) applyRetention(now time.Time) error {
	if b.cfg.DataDir == "" {
		b.cluster.ApplyRetention() // nothing outlives the process, so offsets cannot start again
		return nil
	}
	topics, err := readTopics(filepath.Join(b.cfg.DataDir, topicsFile))
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range topics {
		info := b.cluster.TopicInfo(t.Name)
		if info == nil {
			continue // deleted meanwhile
		}
		keep := b.cfg.retention(info)
		for p := range t.Partitions {
			cut, err := keep.cut(partitionDir(b.cfg.DataDir, t.Name, p), now)
			if err == nil && cut > 0 {
				err = b.delete(t.Name, p, cut)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// delete removes a partition's records below an offset.
func (b *Broker) delete(topic string, partition int, cut int64) error {
	at := b.cluster.PartitionInfo(topic, int32(partition))
	if at == nil || at.LogStartOffset >= cut {
		return nil
	}
	if err := b.cluster.DeleteRecords(topic, int32(partition), cut); err != nil {
		return fmt.Errorf("delete records of %s/%d below %d: %w", topic, partition, cut, err)
	}
	return nil
}

func partitionDir(dir, topic string, partition int) string {
	return filepath.Join(dir, partitionsDir, fmt.Sprintf("%s-%d", url.PathEscape(topic), partition))
}

// retained is how much a topic keeps; negative values keep everything.
type retained struct {
	age   time.Duration
	bytes int64 // of a partition
}

// retention returns a topic's settings, or the broker's where it has none.
func (c Config) retention(t *kfake.TopicInfo) retained {
	keep := retained{age: milliseconds(c.RetentionMS), bytes: c.partitionBytes()}
	for name, value := range t.Configs {
		if value == nil {
			continue
		}
		n, err := strconv.ParseInt(*value, 10, 64)
		switch {
		case name == "cleanup.policy" && !strings.Contains(*value, "delete"):
			return retained{age: -1, bytes: -1}
		case err == nil && name == "retention.ms":
			keep.age = milliseconds(n)
		case err == nil && name == "retention.bytes":
			keep.bytes = n
		}
	}
	return keep
}

// partitionBytes is each partition's share of a topic's size.
func (c Config) partitionBytes() int64 {
	if c.RetentionBytes < 0 {
		return -1
	}
	return max(c.RetentionBytes/int64(c.DefaultPartitions), 1)
}

// milliseconds is n ms, or for ever when that is more than a Duration holds.
func milliseconds(n int64) time.Duration {
	if n > int64(1<<63-1)/int64(time.Millisecond) {
		return -1
	}
	return time.Duration(n) * time.Millisecond
}

// segment is one file of a partition.
type segment struct {
	base    int64
	size    int64
	written time.Time
}

// cut returns the offset below which the partition's records go; 0: none.
func (t retained) cut(dir string, now time.Time) (int64, error) {
	if t.age < 0 && t.bytes < 0 {
		return 0, nil
	}
	segs, err := segments(dir)
	if err != nil || len(segs) == 0 {
		return 0, err
	}
	total := int64(0)
	for _, s := range segs {
		total += s.size
	}
	cut := int64(0)
	for i, s := range segs[:len(segs)-1] {
		old := t.age >= 0 && now.Sub(s.written) > t.age
		if !old && (t.bytes < 0 || total <= t.bytes) {
			break
		}
		total -= s.size
		cut = segs[i+1].base
	}
	return cut, nil
}

// segments lists a partition's files in order; none when it was never written.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, e := range entries {
		base, isData := strings.CutSuffix(e.Name(), ".dat")
		offset, err := strconv.ParseInt(base, 10, 64)
		if !isData || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // deleted meanwhile
		}
		out = append(out, segment{base: offset, size: info.Size(), written: info.ModTime()})
	}
	slices.SortFunc(out, func(a, b segment) int { return cmp.Compare(a.base, b.base) })
	return out, nil
}
