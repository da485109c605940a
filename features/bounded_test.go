package features

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// texts is a record of n rows of a column of size zeros each, and their times.
func texts(n, size int) arrow.RecordBatch {
	s := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "event_timestamp", Type: arrow.FixedWidthTypes.Timestamp_us}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	v := strings.Repeat("0", size)
	for range n {
		b.Field(0).(*array.StringBuilder).Append(v)
		b.Field(1).(*array.TimestampBuilder).Append(1)
	}
	return b.NewRecordBatch()
}

// parquetBomb has a value once and n rows of it: a few kilobytes on disk.
func parquetBomb(t *testing.T, n, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	one := texts(1, size)
	defer one.Release()
	w, err := pqarrow.NewFileWriter(one.Schema(), &out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd), parquet.WithDictionaryDefault(true), parquet.WithDictionaryPageSizeLimit(1<<30), parquet.WithStats(false)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := w.WriteBuffered(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func arrowBomb(t *testing.T, n, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	r := texts(n, size)
	defer r.Release()
	w := ipc.NewWriter(&out, ipc.WithSchema(r.Schema()), ipc.WithZstd())
	if err := errors.Join(w.Write(r), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// drain reads a frame to its end and says how much memory it held at most.
func drain(t *testing.T, f Format, data []byte, limit int64) (rows int64, b *bounded, err error) {
	t.Helper()
	b = newBounded(limit)
	fr, err := openFrame(t.Context(), f, bytes.NewReader(data), t.TempDir(), b)
	if err != nil {
		return 0, b, err
	}
	defer fr.Close()
	for {
		r, err := fr.Read()
		if errors.Is(err, io.EOF) {
			return rows, b, nil
		}
		if err != nil {
			return rows, b, err
		}
		rows += r.NumRows()
	}
}

// TestFrameBombs: a small file that becomes large is refused with a status and
// what to do; read without the bound it becomes large, and within it harmless
// ones are read.
func TestFrameBombs(t *testing.T) {
	const limit = 16 << 20
	for _, c := range []struct {
		name string
		f    Format
		bomb []byte
	}{
		{"Parquet, one value in a dictionary and many rows of it", Parquet, parquetBomb(t, 300, 256<<10)},
		{"Parquet, one large value", Parquet, parquetBomb(t, 1, 40<<20)},
		{"Arrow, compressed buffers", Arrow, arrowBomb(t, 160, 256<<10)},
	} {
		if len(c.bomb) > 1<<20 {
			t.Fatalf("%s: %d bytes are no bomb", c.name, len(c.bomb))
		}
		_, b, err := drain(t, c.f, c.bomb, limit)
		var api *apiError
		if !errors.As(err, &api) || api.status != http.StatusRequestEntityTooLarge || !strings.Contains(api.message, "smaller row groups") {
			t.Errorf("%s: %v", c.name, err)
		}
		if used := b.used.Load(); used > limit {
			t.Errorf("%s: %d bytes are held", c.name, used)
		}
		if rows, _, err := drain(t, c.f, c.bomb, 1<<40); err != nil || rows == 0 { // the control: it is a file that can be read
			t.Errorf("%s without the bound: %d rows, %v", c.name, rows, err)
		}
	}
	for f, data := range map[Format][]byte{Parquet: parquetBomb(t, 1000, 10), Arrow: arrowBomb(t, 1000, 10)} {
		if rows, b, err := drain(t, f, data, limit); err != nil || rows != 1000 {
			t.Errorf("%s: %d rows, %v", f, rows, err)
		} else if left := b.used.Load(); left < 0 {
			t.Errorf("%s: %d bytes are counted as held at the end", f, left)
		}
	}
}

// TestFrameClaims: lengths that a file states are not believed before the bytes
// are there.
func TestFrameClaims(t *testing.T) {
	stream := arrowBomb(t, 10, 10)
	for at := 0; at+8 <= len(stream); at += 4 {
		lie := bytes.Clone(stream)
		binary.LittleEndian.PutUint64(lie[at:], 1<<38)
		if _, b, err := drain(t, Arrow, lie, 16<<20); b.used.Load() > 16<<20 {
			t.Errorf("offset %d: %d bytes are held, %v", at, b.used.Load(), err)
		}
	}
	file := parquetBomb(t, 10, 10)
	for at := range file {
		lie := bytes.Clone(file)
		lie[at] ^= 0x7f
		_, b, _ := drain(t, Parquet, lie, 16<<20)
		if b.used.Load() > 16<<20 {
			t.Errorf("byte %d: %d bytes are held", at, b.used.Load())
		}
	}
}
