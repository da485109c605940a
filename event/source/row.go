package source

import (
	"fmt"

	"github.com/kedge-ml/kedge/event"
)

// Row is one record of a foreign stream or file: flat fields in the order the
// record has them. Rows that a reader yields share memory with the next one.
type Row struct {
	Index  int64 // counting from 0
	Fields []event.NamedValue
	Meta   []event.NamedValue // what is known about the record; found by name, not part of "all"
}

// Field returns a field by name; a field that is absent is null.
func (r Row) Field(name string) event.Value {
	for i := range r.Fields {
		if r.Fields[i].Name == name {
			return r.Fields[i].Value
		}
	}
	for i := range r.Meta {
		if r.Meta[i].Name == name {
			return r.Meta[i].Value
		}
	}
	return event.Value{}
}

// RowError says that one row could not be read or mapped. The rows after it
// may still be good.
type RowError struct {
	Row int64 // counting from 0
	Err error
}

func (e RowError) Error() string { return fmt.Sprintf("row %d: %v", e.Row, e.Err) }

// Unwrap returns the cause.
func (e RowError) Unwrap() error { return e.Err }
