package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
)

// table is a file of the past, as text; an empty value is missing.
type table struct {
	header []string
	rows   [][]string
}

// readTable reads a CSV, JSON lines or Parquet file; its columns are those of
// the first row.
func readTable(path string) (*table, error) {
	file, err := source.Open(path, &source.Mapping{})
	if err != nil {
		return nil, err
	}
	t := &table{}
	for row, err := range file.Rows() {
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		t.add(row)
	}
	return t, file.Close()
}

func (t *table) add(row source.Row) {
	if t.header == nil {
		for _, f := range row.Fields {
			t.header = append(t.header, f.Name)
		}
	}
	rec := make([]string, len(t.header))
	for i, name := range t.header {
		v := row.Field(name)
		switch {
		case v.IsNull():
		case v.Type.Elem == event.String && !v.Type.List:
			rec[i] = v.Text
		default:
			rec[i] = string(event.AppendValue(nil, v))
		}
	}
	t.rows = append(t.rows, rec)
}

// column is a column's place.
func (t *table) column(name string) (int, error) {
	at := slices.Index(t.header, name)
	if at < 0 {
		return 0, fmt.Errorf("no column %q: the file has %v", name, t.header)
	}
	return at, nil
}

// join adds a column of another file by a common id; rows that the other file
// does not know are left out.
func (t *table) join(other *table, id, column string) error {
	own, err := t.column(id)
	if err != nil {
		return err
	}
	theirs, err := other.column(id)
	if err != nil {
		return err
	}
	wanted, err := other.column(column)
	if err != nil {
		return err
	}
	known := make(map[string]string, len(other.rows))
	for _, r := range other.rows {
		known[r[theirs]] = r[wanted]
	}
	at := slices.Index(t.header, column)
	if at < 0 {
		at = len(t.header)
		t.header = append(t.header, column)
	}
	kept := t.rows[:0]
	for _, r := range t.rows {
		if v, ok := known[r[own]]; ok {
			r = append(r[:at:at], v)
			kept = append(kept, r)
		}
	}
	t.rows = kept
	return nil
}

// swapped is the table with the two classes of a column exchanged.
func (t *table) swapped(column int) (*table, error) {
	classes := map[string]string{}
	for _, r := range t.rows {
		classes[r[column]] = ""
	}
	names := make([]string, 0, len(classes))
	for c := range classes {
		names = append(names, c)
	}
	if len(names) != 2 {
		return nil, fmt.Errorf("column %q has %d different values: a rehearsal wants a label of two classes", t.header[column], len(names))
	}
	classes[names[0]], classes[names[1]] = names[1], names[0]
	out := &table{header: t.header}
	for _, r := range t.rows {
		r = slices.Clone(r)
		r[column] = classes[r[column]]
		out.rows = append(out.rows, r)
	}
	return out, nil
}

// write writes the table as CSV.
func (t *table) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	err = w.WriteAll(append([][]string{t.header}, t.rows...))
	return errors.Join(err, f.Close())
}

// numeric says of each column whether all its values are numbers, which is
// what the trainer takes it for.
func (t *table) numeric() []bool {
	out := make([]bool, len(t.header))
	for i := range out {
		out[i] = !slices.ContainsFunc(t.rows, func(r []string) bool {
			_, err := strconv.ParseFloat(r[i], 64)
			return err != nil && r[i] != ""
		})
	}
	return out
}
