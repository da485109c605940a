package broker

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// snapshotFile is where kfake keeps what it knows of a partition at a clean
// stop. Without a current one it reads the whole partition into memory.
const snapshotFile = "snapshot.json"

// snapshot is the part of the file that a partition without transactions
// needs.
type snapshot struct {
	Version          int               `json:"version"`
	HighWatermark    int64             `json:"high_watermark"`
	LastStableOffset int64             `json:"last_stable_offset"`
	LogStartOffset   int64             `json:"log_start_offset"`
	Epoch            int32             `json:"epoch"`
	LeaderNode       int32             `json:"leader_node,omitempty"`
	MaxTimestamp     int64             `json:"max_timestamp"`
	CreatedAt        time.Time         `json:"created_at"`
	Segments         []snapshotSegment `json:"segments"`
}

type snapshotSegment struct {
	BaseOffset int64 `json:"base_offset"`
	Size       int64 `json:"size"`
	MinEpoch   int32 `json:"min_epoch,omitempty"`
	MaxEpoch   int32 `json:"max_epoch,omitempty"`
}

// errReplay says that a partition has to be read by kfake itself: it holds
// transactions, whose outcome only a replay finds, or torn batches.
var errReplay = errors.New("needs a replay")

// takeSnapshots writes, for every partition that a crash left without a
// current snapshot, one that says what its files hold, so that a start after
// a crash needs as little memory as one after a clean stop.
func takeSnapshots(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, partitionsDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := takeSnapshot(filepath.Join(dir, partitionsDir, e.Name()))
		if err != nil && !errors.Is(err, errReplay) && !errors.Is(err, syscall.ENOSPC) { // it only saves memory
			return fmt.Errorf("look through partition %s: %w", e.Name(), err)
		}
	}
	return nil
}

func takeSnapshot(dir string) error {
	segs, err := segments(dir)
	if err != nil || len(segs) == 0 || current(dir, segs) {
		return err
	}
	s := &snapshot{Version: 1, LogStartOffset: -1, MaxTimestamp: -1, CreatedAt: time.Now()}
	for _, seg := range segs {
		if err := s.scan(filepath.Join(dir, fmt.Sprintf("%d.dat", seg.base)), seg); err != nil {
			return err
		}
	}
	if s.LogStartOffset < 0 {
		return errReplay // no record at all
	}
	s.LastStableOffset = s.HighWatermark
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, snapshotFile), raw)
}

// current reports whether the snapshot describes the files as they are.
func current(dir string, segs []segment) bool {
	raw, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	var s snapshot
	if err != nil || json.Unmarshal(raw, &s) != nil || len(s.Segments) != len(segs) {
		return false
	}
	for i, seg := range segs {
		if s.Segments[i].BaseOffset != seg.base || s.Segments[i].Size != seg.size {
			return false
		}
	}
	return true
}

// Layout of a record batch on disk.
const (
	batchFrame      = 12 // offset and length
	batchEpoch      = 12
	batchCRC        = 17
	batchAttributes = 21
	batchLastDelta  = 23
	batchMaxTime    = 35
	batchHeader     = 61

	attrTransactional = 0x10
)

// scan adds what a segment holds.
func (s *snapshot) scan(path string, seg segment) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	entry := snapshotSegment{BaseOffset: seg.base, Size: seg.size}
	buf := make([]byte, batchHeader)
	for first := true; ; first = false {
		b, err := readBatch(r, buf, seg.size, castagnoli)
		if errors.Is(err, io.EOF) {
			s.Segments = append(s.Segments, entry)
			return nil
		}
		if err != nil {
			return err
		}
		buf = b
		s.add(b, &entry, first)
	}
}

func (s *snapshot) add(b []byte, entry *snapshotSegment, first bool) {
	base := int64(binary.BigEndian.Uint64(b))
	epoch := int32(binary.BigEndian.Uint32(b[batchEpoch:]))
	if s.LogStartOffset < 0 {
		s.LogStartOffset = base
	}
	if first {
		entry.MinEpoch, entry.MaxEpoch = epoch, epoch
	}
	entry.MinEpoch, entry.MaxEpoch = min(entry.MinEpoch, epoch), max(entry.MaxEpoch, epoch)
	s.HighWatermark = base + int64(binary.BigEndian.Uint32(b[batchLastDelta:])) + 1
	s.Epoch = epoch
	s.MaxTimestamp = max(s.MaxTimestamp, int64(binary.BigEndian.Uint64(b[batchMaxTime:])))
}

// readBatch reads a whole batch into buf or a larger one; io.EOF at the end.
func readBatch(r io.Reader, buf []byte, limit int64, castagnoli *crc32.Table) ([]byte, error) {
	buf = buf[:batchHeader]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errReplay
		}
		return nil, err
	}
	size := batchFrame + int64(binary.BigEndian.Uint32(buf[8:]))
	if size < batchHeader || size > limit || binary.BigEndian.Uint16(buf[batchAttributes:])&attrTransactional != 0 {
		return nil, errReplay
	}
	if size > int64(cap(buf)) {
		buf = append(make([]byte, 0, size), buf...)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf[batchHeader:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errReplay
		}
		return nil, err
	}
	if binary.BigEndian.Uint32(buf[batchCRC:]) != crc32.Checksum(buf[batchAttributes:], castagnoli) {
		return nil, errReplay
	}
	return buf, nil
}
