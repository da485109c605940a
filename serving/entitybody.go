package serving

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/web"
)

// maxEntityRows bounds the predictions that one request asks for by key.
const maxEntityRows = 1024

// entityBody is the body of POST /v1/predict/{model}: one row, or several. Its
// rows live in the reader's memory.
type entityBody struct {
	Rows     []EntityRow
	ID       string
	Version  string
	Entity   string
	Explain  int
	Features bool
	Timeout  int64 // µs
}

// entityReader reads such bodies, into memory that is used again.
type entityReader struct {
	body    *event.FieldReader // whole bodies
	fields  *event.FieldReader // keys and data
	members []event.Member
	row     []event.Member
	rows    []EntityRow
	values  []event.NamedValue
	sorted  []event.NamedValue
	text    []byte
}

func newEntityReader(maxBody int64) *entityReader {
	inner := event.DefaultDecoderConfig()
	outer := inner
	outer.MaxRecordBytes, outer.MaxDepth = int(maxBody), inner.MaxDepth+3 // body, rows and row
	return &entityReader{body: event.NewFieldReader(outer), fields: event.NewFieldReader(inner)}
}

// read takes a body apart. What it returns is valid until the next call.
func (r *entityReader) read(text []byte) (entityBody, error) {
	var b entityBody
	var key, data, rows []byte
	var err error
	if len(text) == 0 {
		return b, notTaken(errors.New("it is empty"))
	}
	if r.members, err = r.body.Members(r.members[:0], text); err != nil {
		return b, notTaken(err)
	}
	for _, m := range r.members {
		switch m.Name {
		case "key":
			key = m.Text
		case "data":
			data = m.Text
		case "rows":
			rows = m.Text
		case "id":
			err = scalar(m, &b.ID)
		case "version":
			err = scalar(m, &b.Version)
		case "entity":
			err = scalar(m, &b.Entity)
		case "explain":
			err = scalar(m, &b.Explain)
		case "features":
			err = scalar(m, &b.Features)
		case "timeout":
			err = scalar(m, &b.Timeout)
		default:
			err = fmt.Errorf("unknown field %.100q", m.Name)
		}
		if err != nil {
			return b, notTaken(err)
		}
	}
	if b.Explain < 0 || b.Timeout < 0 {
		return b, fmt.Errorf("%w: explain and timeout are not negative", ErrInput)
	}
	if string(rows) == "null" {
		rows = nil
	}
	r.rows, r.values = r.rows[:0], r.values[:0]
	if err = r.readRows(key, data, rows); err != nil {
		return b, err
	}
	b.Rows = r.rows
	return b, nil
}

func notTaken(err error) error {
	var refused event.RefusedError
	if errors.As(err, &refused) {
		err = errors.New(refused.Detail)
	}
	return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "the body is not what this route takes: %v", err)
}

// scalar reads a member that is a text, a number or a flag.
func scalar(m event.Member, to any) error {
	if s, ok := to.(*string); ok && len(m.Text) > 1 && m.Text[0] == '"' && bytes.IndexByte(m.Text, '\\') < 0 {
		*s = string(m.Text[1 : len(m.Text)-1])
		return nil
	}
	if err := event.DecodeStrict(m.Text, to); err != nil {
		return errors.New(m.Name + strings.TrimPrefix(err.Error(), "it"))
	}
	return nil
}

// readRows reads keys and data of all rows: one that the body is itself, or those
// of its list.
func (r *entityReader) readRows(key, data, rows []byte) error {
	switch {
	case rows != nil && (key != nil || data != nil):
		return fmt.Errorf("%w: send either rows, or one key and data", ErrInput)
	case rows == nil && key == nil && data == nil:
		return fmt.Errorf("%w: neither key nor data nor rows: say what the prediction is about", ErrInput)
	case rows == nil:
		return r.add(key, data)
	case rows[0] != '[':
		return notTaken(errors.New("rows is no array"))
	}
	n := 0
	if err := r.body.Elements(rows, func([]byte) error { n++; return nil }); err != nil {
		return notTaken(err)
	}
	if n == 0 || n > maxEntityRows {
		return fmt.Errorf("%w: %d rows: want 1 to %d", ErrInput, n, maxEntityRows)
	}
	return r.body.Elements(rows, r.listed)
}

// listed reads one element of the list of rows.
func (r *entityReader) listed(text []byte) (err error) {
	var key, data []byte
	if r.row, err = r.body.Members(r.row[:0], text); err != nil {
		return notTaken(err)
	}
	for _, m := range r.row {
		switch m.Name {
		case "key":
			key = m.Text
		case "data":
			data = m.Text
		default:
			return notTaken(fmt.Errorf("unknown field %.100q in rows", m.Name))
		}
	}
	return r.add(key, data)
}

func (r *entityReader) add(key, data []byte) (err error) {
	var row EntityRow
	if row.Key, err = r.named("key", key); err != nil {
		return err
	}
	if row.Data, err = r.named("data", data); err != nil {
		return err
	}
	row.KeyText = r.canonical(row.Key)
	r.rows = append(r.rows, row)
	return nil
}

func (r *entityReader) named(what string, text []byte) (_ []event.NamedValue, err error) {
	from := len(r.values)
	if r.values, err = readFields(r.values, r.fields, what, len(r.rows), text); err != nil || len(r.values) == from {
		return nil, err
	}
	return r.values[from:len(r.values):len(r.values)], nil
}

// readFields appends the members of one row's object to dst; of null, none.
func readFields(dst []event.NamedValue, r *event.FieldReader, what string, row int, text []byte) ([]event.NamedValue, error) {
	if len(text) == 0 || string(text) == "null" {
		return dst, nil
	}
	dst, err := r.Fields(dst, text)
	if err != nil {
		return dst, fmt.Errorf("%w: %s of row %d: %w", ErrInput, what, row, err)
	}
	return dst, nil
}

// canonical writes a key with its parts in order, so that equal keys are equal
// texts.
func (r *entityReader) canonical(key []event.NamedValue) string {
	if len(key) == 0 {
		return ""
	}
	r.sorted = append(r.sorted[:0], key...)
	slices.SortFunc(r.sorted, func(a, b event.NamedValue) int { return strings.Compare(a.Name, b.Name) })
	out := append(r.text[:0], '{')
	for i, p := range r.sorted {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(event.AppendString(out, p.Name), ':')
		out = event.AppendValue(out, p.Value)
	}
	r.text = append(out, '}')
	return string(r.text)
}
