package ort

import (
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"
)

// The parent and its worker speak in frames: one byte for the kind, eight for
// the length (little-endian), the payload. Every frame of the parent has one
// of the worker as its answer.
const (
	frameModel  = 'M' // → JSON of workerJob, newline, model file
	frameRows   = 'P' // → float32 rows
	frameReady  = 'K' // ← empty: the model is loaded
	frameValues = 'V' // ← float32 answers
	frameError  = 'E' // ← text; the worker goes on
)

// maxFrame bounds what either side allocates for one frame.
const maxFrame = 1 << 30

// workerJob is what a worker is told before it opens the library.
type workerJob struct {
	Library string `json:"library"`
	Memory  int64  `json:"memory"` // bytes of data that the process may have
	Threads int    `json:"threads"`
	Model   Model  `json:"model"`
}

func writeFrame(w io.Writer, kind byte, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	var head [9]byte
	head[0] = kind
	binary.LittleEndian.PutUint64(head[1:], uint64(n))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads a frame into buf's memory where it is large enough.
func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint64(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	payload = buf[:n]
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

// floatBytes views values as the bytes that the other process, on the same
// machine, reads the same way.
func floatBytes(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
