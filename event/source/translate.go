package source

import (
	"errors"

	"github.com/kedge-ml/kedge/event"
)

// Translator turns the records of one source into events. It is for one
// goroutine. What it makes of a record depends only on the record, the
// definition, the hash key and the schemas that the record names.
type Translator struct {
	reader *RecordReader
	mapper *Mapper
	texts  []byte
	parts  []part
}

// part is one event of a record: its envelope within the translator's texts.
type part struct {
	kind     event.Kind
	from, to int
}

// NewTranslator compiles a definition.
func NewTranslator(d *Definition, o Options) (*Translator, error) {
	mapper, err := NewMapper(d.identified(), o)
	if err != nil {
		return nil, err
	}
	reader, err := NewReader(d)
	return &Translator{reader: reader, mapper: mapper}, err
}

// AddSchema is [RecordReader.AddSchema].
func (t *Translator) AddSchema(id int, text string) error { return t.reader.AddSchema(id, text) }

// Translate adds what becomes of a record to a unit: its events, whole, or one
// dead letter of the record as it is. Its only error is a [NeedSchemaError],
// which leaves the unit as it was.
func (t *Translator) Translate(u *event.Unit, d *event.Decoder, r event.Record, headers func(func(name, value []byte) bool)) error {
	if t.reader.pairs && t.noPair(u, d, r, headers) {
		return nil
	}
	silent, err := t.read(Record{Key: r.Key, Value: r.Value, Time: r.Time, Headers: headers})
	var need *NeedSchemaError
	switch {
	case errors.As(err, &need):
		return err
	case err != nil:
		d.Refuse(u, r, mappingReason(err), err.Error())
		return nil
	}
	u.Begin(r, silent)
	for i, p := range t.parts {
		u.Kind = p.kind
		d.DecodePart(u, r, int32(i), t.texts[p.from:p.to])
	}
	return nil
}

// noPair takes what else is in a pairs topic: a half that became a dead letter, and
// the filling of an erasure. (One that came twice has no value: it is silent.)
func (t *Translator) noPair(u *event.Unit, d *event.Decoder, r event.Record, headers func(func(name, value []byte) bool)) bool {
	if reason, detail := refusal(headers); reason != "" {
		d.Refuse(u, r, reason, detail)
		return true
	}
	if string(r.Value) != event.ErasedRecord {
		return false
	}
	u.Begin(r, 0)
	d.DecodePart(u, r, 0, r.Value)
	return true
}

// read maps a record and returns how many of its rows gave no event.
func (t *Translator) read(r Record) (silent int, err error) {
	t.texts, t.parts = t.texts[:0], t.parts[:0]
	rows := 0
	err = t.reader.Rows(r, func(row Row) error {
		rows++
		events, err := t.mapper.Map(row)
		if len(events) == 0 {
			silent++
		}
		for _, e := range events {
			from := len(t.texts)
			t.texts = append(t.texts, e.Text...)
			t.parts = append(t.parts, part{e.Kind, from, len(t.texts)})
		}
		return err
	})
	if rows == 0 {
		silent = 1
	}
	return silent, err
}

// Events returns the envelopes of a record, valid until the next call.
func (t *Translator) Events(r Record) ([]Mapped, error) {
	if _, err := t.read(r); err != nil {
		return nil, err
	}
	out := make([]Mapped, len(t.parts))
	for i, p := range t.parts {
		out[i] = Mapped{Kind: p.kind, Text: t.texts[p.from:p.to]}
	}
	return out, nil
}

func mappingReason(err error) event.Reason {
	if refused, ok := event.IsRefused(err); ok {
		return refused.Reason
	}
	return event.ReasonMapping
}
