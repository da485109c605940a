package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/kedge-ml/kedge/event"
)

// File is an open CSV, JSON lines or Parquet file. It can be read several
// times, one reading at a time.
type File struct {
	name    string
	rows    rowReader
	explode string
	close   func() error
}

// rowReader is one of the three formats.
type rowReader interface {
	// total is the number of rows.
	total() int64
	// read calls yield for each row until it returns false.
	read(yield func(Row, error) bool)
}

// Open opens a file for a mapping. A file that is damaged where that shows at
// once (a Parquet footer, a CSV header) is an error here; the rest shows as
// errors of [File.Rows].
func Open(path string, m *Mapping) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file, err := NewFile(filepath.Base(path), f, st.Size(), m)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file.close = f.Close
	return file, nil
}

// NewFile reads a file of a given size from r. The name's ending says the
// format where the mapping does not.
func NewFile(name string, r io.ReaderAt, size int64, m *Mapping) (*File, error) {
	kind, err := formatOf(name, m.Format)
	if err != nil {
		return nil, err
	}
	f := &File{name: name, explode: m.Explode, close: func() error { return nil }}
	switch kind {
	case "csv":
		f.rows, err = newCSV(r, size, m.Format)
	case "jsonl":
		f.rows, err = newLines(r, size)
	case "parquet":
		f.rows, err = newParquet(r, size, m.Format)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return f, nil
}

func formatOf(name string, f Format) (string, error) {
	switch f.Type {
	case "":
	case "csv", "jsonl", "parquet":
		return f.Type, nil
	case formatJSON:
		return "jsonl", nil
	default:
		return "", fmt.Errorf("read %s: the format %s is for topics; a file is csv, jsonl or parquet", name, f.Type)
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv", ".tsv":
		return "csv", nil
	case ".jsonl", ".ndjson", ".json":
		return "jsonl", nil
	case ".parquet", ".pq":
		return "parquet", nil
	}
	return "", fmt.Errorf("read %s: the name does not say the format: state format: {type: csv|jsonl|parquet} in the mapping", name)
}

// Close closes the file.
func (f *File) Close() error { return f.close() }

// Total is the number of records, for a progress bar. An exploded record
// counts once.
func (f *File) Total() int64 { return f.rows.total() }

// Rows yields the file's rows in order. A [RowError] concerns one row and the
// next may follow; after any other error the sequence ends. Row.Index counts
// the rows as they are yielded, after an explode.
func (f *File) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		x := &exploder{field: f.explode, reader: event.NewFieldReader(event.DefaultDecoderConfig())}
		f.rows.read(func(row Row, err error) bool {
			if err != nil || f.explode == "" {
				return yield(row, wrap(f.name, err))
			}
			return x.rows(row, yield)
		})
	}
}

func wrap(name string, err error) error {
	var row RowError
	if err == nil || errors.As(err, &row) {
		return err
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// exploder turns a record with an array into a row per element.
// wholeRecord is the field that holds a record which is an array itself.
const wholeRecord = "."

type exploder struct {
	field  string
	reader *event.FieldReader // of the array
	inner  *event.FieldReader // of its elements
	next   int64
	fields []event.NamedValue
	meta   []event.NamedValue
}

func (x *exploder) rows(row Row, yield func(Row, error) bool) bool {
	array := row.Field(x.field)
	if array.IsNull() {
		return true
	}
	if array.Type.Elem != event.JSON {
		return yield(row, RowError{row.Index, fmt.Errorf("%s is a %s and no array", x.field, array.Type)})
	}
	more := true
	x.meta = append(append(x.meta[:0], row.Meta...), event.NamedValue{Name: IndexField})
	index := &x.meta[len(x.meta)-1].Value
	first := x.next
	err := x.reader.Elements([]byte(array.Text), func(element []byte) error {
		fields, err := x.element(row, element)
		if err != nil {
			return err
		}
		*index = event.Int(x.next - first)
		if more = yield(Row{Index: x.next, Fields: fields, Meta: x.meta}, nil); !more {
			return errStop
		}
		x.next++
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return yield(row, RowError{row.Index, fmt.Errorf("%s: %w", x.field, err)})
	}
	return more
}

var errStop = errors.New("the consumer stopped")

func (x *exploder) element(row Row, element []byte) ([]event.NamedValue, error) {
	x.fields = x.fields[:0]
	for _, f := range row.Fields {
		if f.Name != x.field {
			x.fields = append(x.fields, f)
		}
	}
	if x.inner == nil {
		x.inner = event.NewFieldReader(event.DefaultDecoderConfig())
	}
	if x.field == wholeRecord && element[0] == '{' {
		return x.inner.Fields(x.fields, element)
	}
	wrapped := append(append(append(event.AppendString([]byte{'{'}, x.field), ':'), element...), '}')
	return x.inner.Fields(x.fields, wrapped)
}

// counter counts the records of a text file in one pass.
func countLines(r io.ReaderAt, size int64) (n int64, err error) {
	buf := make([]byte, 1<<16)
	blank := true
	for at := int64(0); at < size; {
		k, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if k == 0 && err != nil {
			return n, err
		}
		for chunk := buf[:k]; len(chunk) > 0; {
			line, rest, ended := bytes.Cut(chunk, []byte{'\n'})
			blank = blank && len(bytes.TrimSpace(line)) == 0
			if ended && !blank {
				n++
			}
			blank = blank || ended
			chunk = rest
		}
		at += int64(k)
	}
	if !blank {
		n++
	}
	return n, nil
}
