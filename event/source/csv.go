package source

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/kedge-ml/kedge/event"
)

// csvFile reads comma-separated values. A first pass over the whole file
// decides the columns' types and counts the rows.
type csvFile struct {
	r       io.ReaderAt
	size    int64
	comma   rune
	headed  bool // the first line is the header
	columns []string
	types   []event.Type
	nulls   map[string]bool
	n       int64
}

func newCSV(r io.ReaderAt, size int64, f Format) (*csvFile, error) {
	c := &csvFile{r: r, size: size, comma: ',', headed: len(f.Header) == 0, columns: f.Header, nulls: setOf(f.Nulls)}
	c.nulls[""] = true
	if f.Comma != "" {
		c.comma, _ = utf8.DecodeRuneInString(f.Comma)
	}
	if c.headed {
		header, err := c.open().Read()
		if err != nil {
			return nil, fmt.Errorf("the header line: %w", err)
		}
		c.columns = append(c.columns, header...)
	}
	return c, c.infer(f.Columns)
}

func (c *csvFile) open() *csv.Reader {
	in := bufio.NewReaderSize(io.NewSectionReader(c.r, 0, c.size), 1<<16)
	if mark, err := in.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		in.Discard(3) // three bytes are there: Peek saw them
	}
	r := csv.NewReader(in)
	r.Comma, r.ReuseRecord, r.FieldsPerRecord = c.comma, true, -1
	return r
}

// infer gives each column the narrowest type that every cell has, and text
// where none does. Stated types go before.
func (c *csvFile) infer(stated map[string]event.ColumnType) error {
	c.types = make([]event.Type, len(c.columns))
	fixed := make([]bool, len(c.columns))
	for i, name := range c.columns {
		if t, ok := stated[name]; ok {
			c.types[i], fixed[i] = t.Elem, true
		}
	}
	err := c.records(func(index int64, record []string, err error) bool {
		c.n = index + 1
		for i, cell := range record[:min(len(record), len(c.columns))] {
			if !fixed[i] && !c.nulls[cell] {
				c.types[i] = wider(c.types[i], cell)
			}
		}
		return true
	})
	for i, t := range c.types {
		if t == event.Unknown { // no cell had a value
			c.types[i] = event.String
		}
	}
	return err
}

// wider returns the type that holds both what a column had so far and a cell.
func wider(t event.Type, cell string) event.Type {
	if t == event.String {
		return t
	}
	switch now := cellType(cell); {
	case t == event.Unknown || t == now:
		return now
	case t == event.Int64 && now == event.Float64, t == event.Float64 && now == event.Int64:
		return event.Float64
	}
	return event.String
}

// cellType is conservative: "007", "+1" and "1_000" are texts, as codes and
// phone numbers are.
func cellType(cell string) event.Type {
	switch cell {
	case "true", "false", "True", "False", "TRUE", "FALSE":
		return event.Bool
	case "NaN", "nan", "inf", "-inf", "Infinity", "-Infinity":
		return event.Float64
	}
	digits := cell
	if digits != "" && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || digits[0] < '0' || digits[0] > '9' || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return event.String
	}
	if _, err := strconv.ParseInt(cell, 10, 64); err == nil {
		return event.Int64
	}
	for _, r := range digits {
		if (r < '0' || r > '9') && r != '.' && r != 'e' && r != 'E' && r != '-' && r != '+' {
			return event.String
		}
	}
	if _, err := strconv.ParseFloat(cell, 64); err == nil {
		return event.Float64
	}
	return event.String
}

func (c *csvFile) total() int64 { return c.n }

// records visits all records; a fault in one is passed on, one of the reader
// ends it.
func (c *csvFile) records(visit func(index int64, record []string, err error) bool) error {
	in := c.open()
	if c.headed {
		if _, err := in.Read(); err != nil {
			return err
		}
	}
	for index := int64(0); ; index++ {
		record, err := in.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.As(err, &bad):
			return err
		}
		if !visit(index, record, err) {
			return nil
		}
	}
}

func (c *csvFile) read(yield func(Row, error) bool) {
	fields := make([]event.NamedValue, len(c.columns))
	stopped := false
	err := c.records(func(index int64, record []string, bad error) bool {
		if bad == nil && len(record) != len(c.columns) {
			bad = fmt.Errorf("has %d cells, the header %d", len(record), len(c.columns))
		}
		if bad == nil {
			bad = c.fill(fields, record)
		}
		if bad != nil {
			bad = RowError{index, bad}
		}
		stopped = !yield(Row{Index: index, Fields: fields}, bad)
		return !stopped
	})
	if err != nil && !stopped {
		yield(Row{Index: c.n}, err)
	}
}

func (c *csvFile) fill(fields []event.NamedValue, record []string) error {
	for i, cell := range record {
		v, err := c.cell(c.types[i], cell)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.columns[i], err)
		}
		fields[i] = event.NamedValue{Name: c.columns[i], Value: v}
	}
	return nil
}

func (c *csvFile) cell(t event.Type, cell string) (event.Value, error) {
	if c.nulls[cell] {
		return event.Value{}, nil
	}
	switch t {
	case event.Bool:
		b, err := strconv.ParseBool(cell)
		return event.Flag(b), err
	case event.Int64, event.Int32:
		i, err := strconv.ParseInt(cell, 10, 64)
		return event.Int(i), err
	case event.Float64, event.Float32:
		f, err := strconv.ParseFloat(cell, 64)
		return event.Float(f), err
	case event.Timestamp:
		micros, err := event.ParseTime([]byte(cell))
		return event.Time(micros), err
	}
	if !utf8.ValidString(cell) {
		return event.Value{}, errors.New("is not valid UTF-8")
	}
	return event.Text(cell), nil
}
