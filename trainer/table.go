package trainer

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// Table says what the columns of a file are.
type Table struct {
	Label      string
	Weight     string // optional column
	Time       string // column of timestamps; else rows are Start, Start+Step, …
	Start      time.Time
	Step       time.Duration
	Drop       []string // columns that are no inputs
	Categories []string // numeric columns that are categories
	Monotone   map[string]int
}

func (t *Table) special(name string) bool {
	return name == t.Label || name == t.Weight && t.Weight != "" || name == t.Time && t.Time != "" || slices.Contains(t.Drop, name)
}

func (t *Table) field(name, kind string) Field {
	return Field{Name: name, Type: kind, Category: slices.Contains(t.Categories, name), Monotone: t.Monotone[name]}
}

// times are those of n rows from the from-th on, where no column has them.
func (t *Table) times(from, n int) []int64 {
	if t.Step == 0 {
		return nil
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = t.Start.Add(time.Duration(from+i) * t.Step).UnixMicro()
	}
	return out
}

// chunkRows is how many rows of a file are in memory besides the matrix.
const chunkRows = 8192

// ReadCSV reads comma-separated values with a header. A column is numeric when
// all values of the first rows are; an empty value is missing.
func ReadCSV(r io.Reader, t Table, cfg BuilderConfig) (*Matrix, error) {
	in := csv.NewReader(bufio.NewReaderSize(r, 1<<20))
	in.ReuseRecord = false
	header, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("read CSV header: %w", err)
	}
	c := &csvTable{Table: t, header: header}
	for {
		records, err := readRecords(in)
		if err != nil {
			return nil, fmt.Errorf("read CSV: %w", err)
		}
		if len(records) == 0 {
			break
		}
		if err := c.add(records, cfg); err != nil {
			return nil, err
		}
	}
	if c.builder == nil {
		return nil, fmt.Errorf("%w: the file has a header only", ErrNoRows)
	}
	return c.builder.Matrix()
}

func readRecords(in *csv.Reader) ([][]string, error) {
	var out [][]string
	for len(out) < chunkRows {
		rec, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

type csvTable struct {
	Table
	header  []string
	inputs  []int // columns of the file
	label   int
	weight  int
	time    int
	builder *Builder
	texts   bool // the label is
	fields  []Field
	rows    int
}

// begin decides types from the first rows.
func (c *csvTable) begin(records [][]string, cfg BuilderConfig) error {
	c.label, c.weight, c.time = slices.Index(c.header, c.Label), -1, -1
	if c.Weight != "" {
		c.weight = slices.Index(c.header, c.Weight)
	}
	if c.Time != "" {
		c.time = slices.Index(c.header, c.Time)
	}
	if c.label < 0 || c.weight < 0 && c.Weight != "" || c.time < 0 && c.Time != "" {
		return fmt.Errorf("%w: the file has no column %q, %q or %q; it has %v", ErrParam, c.Label, c.Weight, c.Time, c.header)
	}
	for i, name := range c.header {
		if !c.special(name) {
			c.inputs = append(c.inputs, i)
			c.fields = append(c.fields, c.field(name, csvType(records, i)))
		}
	}
	kind := csvType(records, c.label)
	c.texts = kind == "String"
	var err error
	c.builder, err = NewBuilder(c.fields, kind, cfg)
	return err
}

func csvType(records [][]string, column int) string {
	for _, r := range records {
		if _, err := strconv.ParseFloat(r[column], 64); err != nil && r[column] != "" {
			return "String"
		}
	}
	return "Float64"
}

func (c *csvTable) add(records [][]string, cfg BuilderConfig) error {
	if c.builder == nil {
		if err := c.begin(records, cfg); err != nil {
			return err
		}
	}
	chunk := Chunk{Columns: make([]ChunkColumn, len(c.inputs)), Time: c.times(c.rows, len(records))}
	var err error
	for i, column := range c.inputs {
		if chunk.Columns[i], err = csvColumn(records, column, c.fields[i].Type == "String", c.header[column]); err != nil {
			return err
		}
	}
	if chunk.Label, err = csvColumn(records, c.label, c.texts, c.Label); err != nil {
		return err
	}
	if c.weight >= 0 {
		w, err := csvColumn(records, c.weight, false, c.Weight)
		if err != nil {
			return err
		}
		chunk.Weight = w.Numbers
	}
	if c.time >= 0 {
		for _, r := range records {
			at, err := time.Parse(time.RFC3339, r[c.time])
			if err != nil {
				return fmt.Errorf("%w: time: %w", ErrType, err)
			}
			chunk.Time = append(chunk.Time, at.UnixMicro())
		}
	}
	c.rows += len(records)
	return c.builder.Append(chunk)
}

func csvColumn(records [][]string, column int, texts bool, name string) (out ChunkColumn, err error) {
	for _, r := range records {
		text := r[column]
		if texts {
			out.Texts = append(out.Texts, text)
			out.Missing = append(out.Missing, text == "")
			continue
		}
		v := math.NaN()
		if text != "" {
			if v, err = strconv.ParseFloat(text, 64); err != nil {
				return out, fmt.Errorf("%w: column %q is numeric in the first rows, then has %q", ErrType, name, text)
			}
		}
		out.Numbers = append(out.Numbers, v)
	}
	return out, nil
}
