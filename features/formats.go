package features

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/csv"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// Format is a file format of entity frames and their answers.
type Format string

// Formats.
const (
	CSV     Format = "csv"
	Parquet Format = "parquet"
	Arrow   Format = "arrow" // IPC stream
)

// FormatOf finds the format that a file name's ending or a media type names.
func FormatOf(name string) (Format, bool) {
	name, _, _ = strings.Cut(name, ";")
	switch name = strings.ToLower(strings.TrimSpace(name)); {
	case name == "text/csv", strings.HasSuffix(name, ".csv"), name == "csv":
		return CSV, true
	case strings.Contains(name, "parquet"), strings.HasSuffix(name, ".pq"):
		return Parquet, true
	case strings.Contains(name, "arrow"), strings.HasSuffix(name, ".feather"):
		return Arrow, true
	}
	return "", false
}

// MediaType is the format's name in HTTP.
func (f Format) MediaType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8"
	case Parquet:
		return "application/vnd.apache.parquet"
	}
	return "application/vnd.apache.arrow.stream"
}

// frameBatch is how many rows files are read by.
const frameBatch = 64 << 10

// OpenFrame reads an entity frame. A Parquet file needs r to be an *os.File;
// another r is spooled into dir first (empty: the system's). Close it when done.
// One that decompresses to more than 512 MiB at a time is refused.
func OpenFrame(ctx context.Context, f Format, r io.Reader, dir string) (*FileFrame, error) {
	return openFrame(ctx, f, r, dir, newBounded(maxFrameMemory))
}

func openFrame(ctx context.Context, f Format, r io.Reader, dir string, b *bounded) (*FileFrame, error) {
	switch f {
	case CSV:
		return openCSV(r)
	case Arrow:
		return guarded(b, func() (*FileFrame, error) {
			rd, err := ipc.NewReader(r, ipc.WithAllocator(b))
			if err != nil {
				return nil, badRequest("read the entity frame: not an Arrow stream: %w", err)
			}
			return &FileFrame{schema: rd.Schema(), next: b.next(recordsOf(rd)), close: func() error { rd.Release(); return nil }}, nil
		})
	case Parquet:
		return guarded(b, func() (*FileFrame, error) { return openParquet(ctx, r, dir, b) })
	}
	return nil, badRequest("entity frame format %q: want csv, parquet or arrow", f)
}

// FileFrame is an entity frame from a file.
type FileFrame struct {
	schema *arrow.Schema
	next   func() (arrow.RecordBatch, error)
	close  func() error
}

// Schema is the frame's columns.
func (f *FileFrame) Schema() *arrow.Schema { return f.schema }

// Read returns the next rows, io.EOF after the last.
func (f *FileFrame) Read() (arrow.RecordBatch, error) { return f.next() }

// Close removes what was spooled.
func (f *FileFrame) Close() error { return f.close() }

func recordsOf(r array.RecordReader) func() (arrow.RecordBatch, error) {
	return func() (arrow.RecordBatch, error) {
		if r.Next() {
			return r.RecordBatch(), nil
		}
		if err := r.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
}

func openParquet(ctx context.Context, r io.Reader, dir string, b *bounded) (*FileFrame, error) {
	f, remove, err := spooled(r, dir)
	if err != nil {
		return nil, err
	}
	pf, err := file.NewParquetReader(f, file.WithReadProps(parquet.NewReaderProperties(b)))
	if err != nil {
		remove()
		return nil, badRequest("read the entity frame: not Parquet: %w", err)
	}
	fr, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: frameBatch}, b)
	if err != nil {
		remove()
		return nil, badRequest("read the entity frame: %w", err)
	}
	rr, err := fr.GetRecordReader(ctx, nil, nil)
	if err != nil {
		remove()
		return nil, badRequest("read the entity frame: %w", err)
	}
	return &FileFrame{schema: rr.Schema(), next: b.next(recordsOf(rr)), close: func() error { rr.Release(); remove(); return nil }}, nil
}

// spooled is r as a file; remove deletes what was written for it.
func spooled(r io.Reader, dir string) (f *os.File, remove func(), err error) {
	if f, ok := r.(*os.File); ok {
		return f, func() {}, nil
	}
	if f, err = os.CreateTemp(dir, "kedge-frame-*"); err != nil {
		return nil, nil, fmt.Errorf("spool the entity frame: %w", err)
	}
	remove = func() {
		_ = f.Close()           // nothing was written that matters
		_ = os.Remove(f.Name()) // the system clears its own folder
	}
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		remove()
		return nil, nil, badRequest("spool the entity frame: %w", err)
	}
	return f, remove, nil
}

// CreateFrame writes an answer in a format.
func CreateFrame(f Format, w io.Writer) (FrameWriter, error) {
	switch f {
	case CSV:
		return &csvFrame{out: w}, nil
	case Arrow:
		return &arrowFrame{out: w}, nil
	case Parquet:
		return &parquetFrame{out: w}, nil
	}
	return nil, badRequest("answer format %q: want csv, parquet or arrow", f)
}

type csvFrame struct {
	out    io.Writer
	w      *csv.Writer
	schema *arrow.Schema // until something was written
}

func (f *csvFrame) Open(s *arrow.Schema) error {
	for _, c := range s.Fields() {
		if arrow.IsNested(c.Type.ID()) {
			return badRequest("column %s is a %s, which CSV cannot hold: ask for parquet or arrow", c.Name, c.Type)
		}
	}
	f.w, f.schema = csv.NewWriter(f.out, s, csv.WithHeader(true), csv.WithNullWriter("")), s
	return nil
}

func (f *csvFrame) Write(r arrow.RecordBatch) error {
	f.schema = nil
	return f.w.Write(r)
}

// Close writes the head line of a table without rows too.
func (f *csvFrame) Close() error {
	if f.schema != nil {
		b := array.NewRecordBuilder(memory.DefaultAllocator, f.schema)
		defer b.Release()
		none := b.NewRecordBatch()
		defer none.Release()
		if err := f.w.Write(none); err != nil {
			return err
		}
	}
	f.w.Flush()
	return f.w.Error()
}

type arrowFrame struct {
	out io.Writer
	w   *ipc.Writer
}

func (f *arrowFrame) Open(s *arrow.Schema) error {
	f.w = ipc.NewWriter(f.out, ipc.WithSchema(s))
	return nil
}

func (f *arrowFrame) Write(r arrow.RecordBatch) error { return f.w.Write(r) }
func (f *arrowFrame) Close() error                    { return f.w.Close() }

type parquetFrame struct {
	out io.Writer
	w   *pqarrow.FileWriter
}

func (f *parquetFrame) Open(s *arrow.Schema) (err error) {
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithDictionaryDefault(false), parquet.WithMaxRowGroupLength(rowGroup))
	f.w, err = pqarrow.NewFileWriter(s, onlyWriter{f.out}, props, pqarrow.DefaultWriterProps())
	return err
}

func (f *parquetFrame) Write(r arrow.RecordBatch) error { return f.w.WriteBuffered(r) }
func (f *parquetFrame) Close() error                    { return f.w.Close() }

// rowGroup is how many rows of a Parquet answer are held before they are written.
const rowGroup = 128 << 10

// onlyWriter keeps the file open: it is not the writer's to close.
type onlyWriter struct{ io.Writer }
