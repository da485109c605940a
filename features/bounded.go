package features

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// maxFrameMemory bounds what is held of an entity frame at a time. A file of a
// few kilobytes can claim, and decompress to, any size.
const maxFrameMemory = 512 << 20

// bounded is memory of which only so much may be in use. Whoever asks for more
// panics with errFrameMemory: the readers that ask have no other way to stop,
// and [FileFrame.Read] is what they stop at.
type bounded struct {
	memory.Allocator
	limit int64
	used  atomic.Int64
	over  atomic.Bool
}

var errFrameMemory = errors.New("the entity frame needs more memory than one may")

func newBounded(limit int64) *bounded {
	return &bounded{Allocator: memory.NewGoAllocator(), limit: limit}
}

func (b *bounded) take(n int) {
	if b.used.Add(int64(n)) > b.limit {
		b.used.Add(-int64(n))
		b.over.Store(true)
		panic(errFrameMemory)
	}
}

// Allocate takes memory.
func (b *bounded) Allocate(n int) []byte {
	b.take(n)
	return b.Allocator.Allocate(n)
}

// Reallocate makes room in what was taken before.
func (b *bounded) Reallocate(n int, old []byte) []byte {
	b.take(n - len(old))
	return b.Allocator.Reallocate(n, old)
}

// Free gives memory back.
func (b *bounded) Free(old []byte) {
	b.used.Add(-int64(len(old)))
	b.Allocator.Free(old)
}

// guarded runs a reader of what somebody sent. What it panics with is an error
// of the file: the formats' readers trust much of what a file says.
func guarded[T any](b *bounded, read func() (T, error)) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = badRequest("read the entity frame: %v", r)
		}
		if err != nil && b.over.Load() {
			err = &apiError{status: http.StatusRequestEntityTooLarge, class: "FeastError",
				message: fmt.Sprintf("the entity frame needs more than %d MiB at a time once it is decompressed: write it with smaller row groups or record batches, or send it in parts", b.limit>>20)}
		}
	}()
	return read()
}

// next reads on within the bound.
func (b *bounded) next(read func() (arrow.RecordBatch, error)) func() (arrow.RecordBatch, error) {
	return func() (arrow.RecordBatch, error) { return guarded(b, read) }
}
