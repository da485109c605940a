// Package files compares two files, column by column, without a server.
//
// Promises: memory follows the largest column, not the file; the same files
// give the same answer. Units: shares in [0, 1].
// May not: know the store, or write anything.
package files

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/kedge-ml/kedge/event/parquetfile"
)

// Column is one column of a file. Numbers has NaN and Categories "" with
// Missing set where there is no value; one of the two is nil.
type Column struct {
	Numbers    []float64
	Categories []string
	Missing    []bool // of Categories
}

// maxRows bounds a column, which is held whole: a few bytes of a file may stand
// for any number of rows.
const maxRows = 1 << 28

// Rows is the number of rows.
func (c *Column) Rows() int { return max(len(c.Numbers), len(c.Categories)) }

// Table is an open file.
type Table struct {
	names   []string
	lists   []string // columns that are not read: a row has several values of them
	parquet *parquet.File
	csv     map[string][]string
	closer  io.Closer
	rows    int64
}

// Open reads a file's head; the ending says what it is: .parquet, .pq or .csv.
func Open(path string) (t *Table, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s is not a whole Parquet file: %v", path, r)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		t, err = openParquet(f)
	case ".csv":
		t, err = openCSV(f)
	default:
		err = errors.New("want a file that ends in .parquet, .pq or .csv")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	t.closer = f
	return t, nil
}

// Close closes the file.
func (t *Table) Close() error { return t.closer.Close() }

// Names are the columns that can be read.
func (t *Table) Names() []string { return t.names }

// Rows is the number of rows.
func (t *Table) Rows() int64 { return t.rows }

func openParquet(f *os.File) (*Table, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file, err := parquetfile.Open(f, st.Size(), parquet.ReadBufferSize(1<<20))
	if err != nil {
		return nil, err
	}
	t := &Table{parquet: file, rows: file.NumRows()}
	if t.rows > maxRows {
		return nil, fmt.Errorf("it has %d rows, of %d at most: compare a part of them", t.rows, maxRows)
	}
	for _, path := range file.Schema().Columns() {
		leaf, ok := file.Schema().Lookup(path...)
		switch {
		case !ok || strings.HasPrefix(path[0], "__index_level"):
		case leaf.MaxRepetitionLevel > 0:
			t.lists = append(t.lists, strings.Join(path, "."))
		default:
			t.names = append(t.names, strings.Join(path, "."))
		}
	}
	return t, nil
}

func openCSV(f *os.File) (*Table, error) {
	rows, err := csv.NewReader(withoutMark(f)).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errors.New("the file is empty")
	}
	t := &Table{names: rows[0], csv: map[string][]string{}, rows: int64(len(rows) - 1)}
	for i, name := range rows[0] {
		column := make([]string, 0, len(rows)-1)
		for _, r := range rows[1:] {
			column = append(column, r[i])
		}
		if _, twice := t.csv[name]; twice {
			return nil, fmt.Errorf("two of its columns are called %q", name)
		}
		t.csv[name] = column
	}
	return t, nil
}

// withoutMark leaves out the mark with which some programs begin a file of
// texts.
func withoutMark(f io.Reader) io.Reader {
	r := bufio.NewReader(f)
	if b, err := r.Peek(3); err == nil && string(b) == "\xef\xbb\xbf" {
		_, _ = r.Discard(3) // they are there
	}
	return r
}

// Column reads one column. A column of a CSV file whose values are all numbers
// is numeric; there, what programs write for no number is missing.
func (t *Table) Column(name string) (c *Column, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("column %s: the file is damaged: %v", name, r)
		}
	}()
	if t.csv != nil {
		return csvColumn(t.csv[name]), nil
	}
	leaf, ok := t.parquet.Schema().Lookup(strings.Split(name, ".")...)
	if !ok {
		if leaf, ok = t.parquet.Schema().Lookup(name); !ok {
			return nil, fmt.Errorf("no column %q", name)
		}
	}
	r := columnReader{kind: leaf.Node.Type().Kind(), column: &Column{}, scale: 1}
	if logical := leaf.Node.Type().LogicalType(); logical != nil {
		if d, ok := logical.Value.(*format.DecimalType); ok {
			r.decimal, r.scale = true, math.Pow10(int(d.Scale))
		}
	}
	for _, group := range t.parquet.RowGroups() {
		if err := r.read(group.ColumnChunks()[leaf.ColumnIndex]); err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
	}
	return r.column, nil
}

func csvColumn(texts []string) *Column {
	numbers := make([]float64, len(texts))
	for i, s := range texts {
		v, err := strconv.ParseFloat(s, 64)
		if slices.Contains([]string{"", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None"}, s) {
			v, err = math.NaN(), nil
		}
		if err != nil {
			missing := make([]bool, len(texts))
			for i, s := range texts {
				missing[i] = s == ""
			}
			return &Column{Categories: texts, Missing: missing}
		}
		numbers[i] = v
	}
	return &Column{Numbers: numbers}
}

type columnReader struct {
	kind   parquet.Kind
	column *Column
	words  map[string]string // texts met, so that each is kept once

	decimal bool
	scale   float64 // of a decimal: what a unit of its integer is divided by
}

func (r *columnReader) read(chunk parquet.ColumnChunk) error {
	pages := chunk.Pages()
	defer pages.Close()
	buf := make([]parquet.Value, 4096)
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buf)
			r.take(buf[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		parquet.Release(page)
	}
}

func (r *columnReader) take(values []parquet.Value) {
	bytes := r.kind == parquet.ByteArray || r.kind == parquet.FixedLenByteArray
	if bytes && !r.decimal || r.kind == parquet.Boolean {
		for _, v := range values {
			r.word(v)
		}
		return
	}
	for _, v := range values {
		x := math.NaN()
		if !v.IsNull() {
			switch r.kind {
			case parquet.Double:
				x = v.Double()
			case parquet.Float:
				x = float64(v.Float())
			case parquet.Int32:
				x = float64(v.Int32()) / r.scale
			case parquet.Int64:
				x = float64(v.Int64()) / r.scale
			default:
				x = wholeOf(v.ByteArray()) / r.scale
			}
		}
		r.column.Numbers = append(r.column.Numbers, x)
	}
}

// wholeOf reads a whole number in two's complement, the highest byte first.
func wholeOf(b []byte) float64 {
	x := 0.0
	for i, c := range b {
		if x *= 256; i == 0 {
			x = float64(int8(c))
			continue
		}
		x += float64(c)
	}
	return x
}

func (r *columnReader) word(v parquet.Value) {
	c := r.column
	c.Missing = append(c.Missing, v.IsNull())
	if v.IsNull() {
		c.Categories = append(c.Categories, "")
		return
	}
	if r.kind == parquet.Boolean {
		c.Categories = append(c.Categories, strconv.FormatBool(v.Boolean()))
		return
	}
	b := v.ByteArray()
	w, ok := r.words[string(b)]
	if !ok {
		if r.words == nil {
			r.words = map[string]string{}
		}
		w = string(b)
		if len(r.words) < 1<<20 {
			r.words[w] = w
		}
	}
	c.Categories = append(c.Categories, w)
}

// asCategories turns numbers into words, for a column that one file has as
// numbers and the other as words.
func (c *Column) asCategories() *Column {
	if c.Categories != nil || c.Numbers == nil {
		return c
	}
	out := &Column{Categories: make([]string, len(c.Numbers)), Missing: make([]bool, len(c.Numbers))}
	for i, x := range c.Numbers {
		if out.Missing[i] = math.IsNaN(x); !out.Missing[i] {
			out.Categories[i] = strconv.FormatFloat(x, 'g', -1, 64)
		}
	}
	return out
}

// Common are the columns that both files have, and those that one lacks.
func Common(a, b *Table) (both, onlyA, onlyB []string) {
	for _, n := range a.names {
		if slices.Contains(b.names, n) {
			both = append(both, n)
		} else {
			onlyA = append(onlyA, n)
		}
	}
	for _, n := range b.names {
		if !slices.Contains(a.names, n) {
			onlyB = append(onlyB, n)
		}
	}
	return both, onlyA, onlyB
}
