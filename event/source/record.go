package source

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twmb/avro"

	"github.com/kedge-ml/kedge/event"
)

// Formats of a topic's records. A file's are in [Format].
const (
	formatJSON        = "json"
	formatAvro        = "avro"
	formatProtobuf    = "protobuf"
	formatCloudEvents = "cloudevents"
	formatDebezium    = "debezium"
)

func topicFormats() []string {
	return []string{formatJSON, formatAvro, formatProtobuf, formatCloudEvents, formatDebezium}
}

// Fields that every row of a topic has beside its own: the record's key as
// text, and the time that the broker or the producer gave it. `all: true` does
// not take them.
const (
	KeyField  = "_key"
	TimeField = "_time"
	// IndexField counts the elements of an exploded array from 0.
	IndexField = "_index"
	// pairField has the id of a pair.
	pairField = "_pair"
	// headersField has the headers that are text, in the halves of a pair.
	headersField = "_headers"
)

// Record is one record of a topic.
type Record struct {
	Key, Value []byte
	Time       int64                                     // µs
	Headers    func(yield func(name, value []byte) bool) // nil: none
}

// NeedSchemaError says that a record names a schema that the reader has not
// got: fetch it from the schema registry, [RecordReader.AddSchema], and read
// the record again.
type NeedSchemaError struct{ ID int }

func (e *NeedSchemaError) Error() string { return fmt.Sprintf("schema %d is needed", e.ID) }

// RecordReader reads the records of a topic as rows. It is for one goroutine.
type RecordReader struct {
	parser *recordParser
	x      *exploder
	text   func(Record) ([]byte, error) // the record as JSON; empty: it says nothing
	pairs  bool                         // the records are of a pairs topic
	meta   []event.NamedValue

	schemas map[int]*avro.Schema // by registry id; nil: the registry does not have it
}

// NewRecordReader returns a reader for a mapping's topic.
func NewRecordReader(m *Mapping) (*RecordReader, error) {
	r := &RecordReader{
		parser: newRecordParser(), x: &exploder{field: m.Explode, reader: event.NewFieldReader(event.DefaultDecoderConfig())},
		schemas: map[int]*avro.Schema{},
	}
	err := r.choose(m.Format)
	if err != nil {
		err = fmt.Errorf("format: %w", err)
	}
	return r, err
}

// NewReader returns a reader for the topic that a definition's mapping reads: of a
// paired source, its pairs topic.
func NewReader(d *Definition) (*RecordReader, error) {
	r, err := NewRecordReader(&d.Mapping)
	if err == nil && d.Pair != nil {
		r.text, r.pairs = pairText, true
	}
	return r, err
}

func (r *RecordReader) choose(f Format) (err error) {
	switch f.Type {
	case "", formatJSON, "jsonl":
		r.text = func(rec Record) ([]byte, error) { return bytes.TrimSpace(rec.Value), nil }
	case formatAvro:
		r.text, err = r.avroText(f)
	case formatProtobuf:
		r.text, err = protobufText(f)
	case formatCloudEvents:
		r.text = cloudEventText
	case formatDebezium:
		r.text = debeziumText
	default:
		err = fmt.Errorf("type %q is for files: a topic's is one of %v", f.Type, topicFormats())
	}
	return err
}

// AddSchema gives the reader what the schema registry has under an id. An
// empty text says that it has nothing.
func (r *RecordReader) AddSchema(id int, text string) error {
	if text == "" {
		r.schemas[id] = nil
		return nil
	}
	s, err := avro.Parse(text)
	if err != nil {
		r.schemas[id] = nil
		return fmt.Errorf("schema %d: %w", id, err)
	}
	r.schemas[id] = s
	return nil
}

// Rows calls visit with each row that a record gives: one, or one per element
// where the mapping explodes; none for a tombstone. Row.Index counts within the
// record. The error is a [RowError], a [NeedSchemaError], or visit's.
func (r *RecordReader) Rows(rec Record, visit func(Row) error) error {
	if rec.Value == nil {
		return nil
	}
	text, err := r.text(rec)
	var need *NeedSchemaError
	switch {
	case errors.As(err, &need):
		return err
	case err != nil:
		return RowError{0, err}
	case len(text) == 0:
		return r.emptyRecord(rec)
	}
	row, err := r.parser.row(0, text)
	if err != nil {
		return err
	}
	if r.pairs {
		r.divide(&row, rec.Key)
	} else {
		r.about(rec)
	}
	row.Meta = r.meta
	if r.x.field == "" {
		return visit(row)
	}
	r.x.next = 0
	r.x.rows(row, func(row Row, bad error) bool {
		if err = bad; err == nil {
			err = visit(row)
		}
		return err == nil
	})
	return err
}

// divide takes out of a pair's fields what is about its records.
func (r *RecordReader) divide(row *Row, id []byte) {
	r.meta = append(r.meta[:0], event.NamedValue{Name: pairField, Value: event.Text(string(id))})
	fields := row.Fields[:0]
	for _, f := range row.Fields {
		if _, name, _ := strings.Cut(f.Name, "."); strings.HasPrefix(name, "_") {
			r.meta = append(r.meta, f)
		} else {
			fields = append(fields, f)
		}
	}
	row.Fields = fields
}

// emptyRecord: a change stream has records that say nothing; elsewhere an
// empty record is a fault.
func (r *RecordReader) emptyRecord(rec Record) error {
	if len(bytes.TrimSpace(rec.Value)) > 0 {
		return nil
	}
	return RowError{0, event.RefusedError{Reason: event.ReasonMalformed, Detail: "the record is empty"}}
}

func (r *RecordReader) about(rec Record) {
	r.meta = append(r.meta[:0], event.NamedValue{Name: KeyField}, event.NamedValue{Name: TimeField, Value: event.Time(rec.Time)})
	if len(rec.Key) > 0 && utf8.Valid(rec.Key) {
		r.meta[0].Value = event.Text(string(rec.Key))
	}
}

// avroText reads records in the wire format of schema registries (a zero byte,
// the schema's id in four bytes, the body), or bodies alone where the format
// states the schema.
func (r *RecordReader) avroText(f Format) (func(Record) ([]byte, error), error) {
	if f.Schema == "" {
		return func(rec Record) ([]byte, error) {
			id, body, err := framed(rec.Value)
			if err != nil {
				return nil, err
			}
			s, met := r.schemas[id]
			switch {
			case !met:
				return nil, &NeedSchemaError{id}
			case s == nil:
				return nil, notInSchema(fmt.Errorf("the schema registry has no readable schema %d", id))
			}
			return avroJSON(s, body)
		}, nil
	}
	s, err := avro.Parse(f.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return func(rec Record) ([]byte, error) { return avroJSON(s, rec.Value) }, nil
}

func framed(b []byte) (id int, body []byte, err error) {
	if len(b) < 5 || b[0] != 0 {
		return 0, nil, notInSchema(errors.New("the record does not begin with a zero byte and a schema id: state the schema if the producer writes bare Avro"))
	}
	return int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4]), b[5:], nil
}

func notInSchema(err error) error {
	return event.RefusedError{Reason: event.ReasonSchema, Detail: err.Error()}
}

func avroJSON(s *avro.Schema, body []byte) ([]byte, error) {
	var v any
	rest, err := s.Decode(body, &v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes are left after the value", len(rest))
	}
	if err != nil {
		return nil, notInSchema(fmt.Errorf("avro: %w", err))
	}
	return appendAny(nil, v)
}

// stated reports the members that only topics have.
func (f Format) stated() (names []string) {
	for name, set := range map[string]bool{"schema": f.Schema != "", "descriptors": f.Descriptors != "", "message": f.Message != ""} {
		if set {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
