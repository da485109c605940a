package trainer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"sync"
	"unsafe"
)

// The parent and its training process speak in frames: one byte for the kind,
// eight for the length (little-endian), the payload.
const (
	frameJob        = 'J' // → JSON, first
	frameData       = 'D' // → float32 values, as the job announced
	frameResume     = 'S' // → library state
	frameCancel     = 'X' // → empty
	frameRound      = 'R' // ← JSON
	frameLog        = 'L' // ← text
	frameCheckpoint = 'K' // ← JSON header, newline, library state
	frameGolden     = 'G' // ← float32 values
	frameModel      = 'M' // ← model file
	frameDone       = 'E' // ← JSON, last
)

// maxFrame bounds what either side allocates for one frame.
const maxFrame = 64 << 30

// frameWriter writes whole frames from several goroutines.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(kind byte, parts ...[]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	head := binary.LittleEndian.AppendUint64([]byte{kind}, uint64(n))
	if _, err := f.w.Write(head); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *frameWriter) json(kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(kind, text)
}

// readHead reads a frame's kind and length.
func readHead(r io.Reader) (kind byte, n int, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, err
	}
	size := binary.LittleEndian.Uint64(head[1:])
	if size > maxFrame {
		return 0, 0, fmt.Errorf("a frame of %d bytes", size)
	}
	return head[0], int(size), nil
}

// readFrame reads a whole frame.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	kind, n, err := readHead(r)
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return kind, payload, err
}

// readFloats fills dst from a data frame.
func readFloats(r io.Reader, dst []float32) error {
	kind, n, err := readHead(r)
	if err != nil {
		return err
	}
	if kind != frameData || n != 4*len(dst) {
		return fmt.Errorf("frame %q of %d bytes where %d values were announced", kind, n, len(dst))
	}
	_, err = io.ReadFull(r, floatBytes(dst))
	return err
}

// floatBytes views values as the bytes that the other process, on the same
// machine, reads the same way.
func floatBytes(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// floatsOf copies bytes into values.
func floatsOf(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
