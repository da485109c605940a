// Package parquetfile opens Parquet files of anybody's making.
//
// Promises: what [Open] returns takes memory in proportion to the bytes that the
// file has, to the rows of one page, or less. A Parquet file states lengths and
// counts that its readers believe: a footer of gigabytes, lists of billions of
// members, pages that decompress a thousandfold, five bytes that stand for two
// billion values. All of these are held against what is there, and against bounds
// that files of known writers are far from, before the library reads them.
//
// May not: read rows.
package parquetfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Bounds of what is read.
const (
	MaxFooter     = 32 << 20  // bytes of the description at the file's end
	maxMembers    = 1_000_000 // structures of it: columns times row groups, and what they hold
	maxDepth      = 64        // of structures within structures
	maxColumns    = 20_000
	maxPage       = 256 << 20 // bytes of a page, compressed or not
	maxPageValues = 16 << 20  // values of a page
	maxPageHeader = 4 << 20
	maxListValues = 1 << 16 // values of a list in one row
)

// ErrHostile is wrapped by every refusal of a file that is larger inside than its
// bytes say, or says what cannot be.
var ErrHostile = errors.New("the Parquet file claims more than it may hold")

func hostile(form string, args ...any) error {
	return fmt.Errorf("%w: "+form+"; if it is a file of your own, write it anew with smaller row groups and pages", append([]any{ErrHostile}, args...)...)
}

// Open opens a file of a given size and looks at every page of it: what is
// compressed is decompressed once for that, into nothing. A page index and bloom
// filters are not read.
func Open(r io.ReaderAt, size int64, options ...parquet.FileOption) (f *parquet.File, err error) {
	defer func() { // damaged files make the library panic
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("read its description: %v", p)
		}
	}()
	if err := checkFooter(r, size); err != nil {
		return nil, err
	}
	f, err = parquet.OpenFile(r, size, append([]parquet.FileOption{parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true)}, options...)...)
	if err != nil {
		return nil, err
	}
	return f, checkGroups(r, size, f)
}

// checkFooter walks through the description without building it.
func checkFooter(r io.ReaderAt, size int64) error {
	var end [8]byte
	if size < 12 {
		return nil // too short for any: the library says so
	}
	if _, err := r.ReadAt(end[:], size-8); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	length := int64(binary.LittleEndian.Uint32(end[:]))
	if string(end[4:]) != "PAR1" {
		return nil // the same
	}
	if length > size-12 || length > MaxFooter {
		return hostile("its description has %d bytes, of %d in the file and %d at most", length, size, int64(MaxFooter))
	}
	b := make([]byte, length)
	if _, err := r.ReadAt(b, size-8-length); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	t := &walker{b: b}
	return t.structure(0, nil)
}

// checkGroups looks at every page of every column.
func checkGroups(r io.ReaderAt, size int64, f *parquet.File) error {
	paths := f.Schema().Columns()
	if len(paths) > maxColumns {
		return hostile("it has %d columns, of %d at most", len(paths), maxColumns)
	}
	var shared codecs
	defer shared.close()
	rows := int64(0)
	for _, g := range f.Metadata().RowGroups {
		if g.NumRows < 0 || len(g.Columns) != len(paths) {
			return hostile("a row group has %d rows in %d columns of %d", g.NumRows, len(g.Columns), len(paths))
		}
		rows += g.NumRows
		for i, path := range paths {
			leaf, ok := f.Schema().Lookup(path...)
			if !ok {
				return fmt.Errorf("column %v is not in its schema", path)
			}
			c := &chunk{codecs: &shared, r: r, size: size, meta: &g.Columns[i].MetaData, rows: g.NumRows, repetition: leaf.MaxRepetitionLevel, definition: leaf.MaxDefinitionLevel}
			if err := c.check(); err != nil {
				return fmt.Errorf("column %v: %w", path, err)
			}
		}
	}
	if rows != f.NumRows() {
		return hostile("it says that it has %d rows, and its groups %d", f.NumRows(), rows)
	}
	return nil
}

// chunk is one column of a row group.
type chunk struct {
	codecs     *codecs
	r          io.ReaderAt
	size       int64
	meta       *format.ColumnMetaData
	rows       int64
	repetition int
	definition int

	values int64 // of the data pages so far
	list   int64 // values of the list that the last page ended in
}

// errLZ4: parquet-go 0.32 loses what LZ4 decompresses to unless it grows at least
// threefold, and answers zeros, or what another page left in memory.
var errLZ4 = errors.New("pages compressed by LZ4 are not read: write the file anew with snappy or zstd")

func (c *chunk) check() error {
	if c.meta.Codec == format.Lz4Raw && c.meta.NumValues > 0 {
		return errLZ4
	}
	from := c.meta.DataPageOffset
	if d := c.meta.DictionaryPageOffset; d > 0 && (d < from || from == 0) { // without rows there may be no data page
		from = d
	}
	to := from + c.meta.TotalCompressedSize
	if from < 0 || c.meta.TotalCompressedSize < 0 || to > c.size || to < from {
		return hostile("its pages lie from %d to %d, in a file of %d bytes", from, to, c.size)
	}
	if c.meta.NumValues < 0 || c.repetition == 0 && c.meta.NumValues != c.rows {
		return hostile("%d values in %d rows", c.meta.NumValues, c.rows)
	}
	for from < to {
		h, length, err := readHeader(c.r, from, to)
		if err != nil {
			return err
		}
		if h.compressed < 0 || h.compressed > to-from-length {
			return hostile("a page of %d bytes where %d are left", h.compressed, to-from-length)
		}
		if err := c.page(h, from+length); err != nil {
			return err
		}
		from += length + h.compressed
	}
	if c.values != c.meta.NumValues {
		return hostile("%d values, and it says %d", c.values, c.meta.NumValues)
	}
	return nil
}

// readHeader reads the header of a page, of which nobody says how long it is.
func readHeader(r io.ReaderAt, from, to int64) (h header, length int64, err error) {
	for want := int64(256); ; want *= 16 {
		b := make([]byte, min(want, to-from))
		if _, err := r.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return h, 0, err
		}
		t := &walker{b: b}
		h, err = t.header()
		if !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(b)) == to-from || want > maxPageHeader {
			return h, int64(t.at), err
		}
	}
}
