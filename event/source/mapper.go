package source

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// Options complete a mapping with what its text does not say.
type Options struct {
	// HashKey keys the hashed columns; at least 16 bytes when there are any.
	HashKey []byte
	// KnownAt overrides the mapping: "event_time", or the name of a field in
	// the form of the event's own time. Empty leaves it to the mapping.
	KnownAt string
	// File is read once ahead where a time is spread; nil for a topic.
	File *File
}

// Mapped is one event that a row gave. Key and Text are valid until the next
// call of [Mapper.Map].
type Mapped struct {
	Kind event.Kind
	Time int64  // µs
	Key  []byte // of the Kafka record
	Text []byte // the envelope
}

// Mapper turns rows into events. It is for one goroutine; rows that belong to
// a file must come in the file's order.
type Mapper struct {
	filter    *expression.Program
	drop      map[string]bool
	hashes    map[string]bool
	mac       hash.Hash
	events    []*eventMapper
	addresses *event.AddressReader
	vm        *machine
	fields    []event.NamedValue
	out       []Mapped
	texts     []byte
	years     map[string]*years
}

// ErrNoHashKey means that a mapping hashes columns and no key was given.
var ErrNoHashKey = errors.New("the mapping hashes fields: give a hash key of at least 16 bytes")

// NewMapper compiles a mapping. Its faults are joined.
func NewMapper(m *Mapping, o Options) (*Mapper, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	mp := &Mapper{addresses: event.NewAddressReader(event.DefaultDecoderConfig()), vm: newMachine(), drop: setOf(m.Drop), hashes: setOf(m.Hash)}
	if len(m.Hash) > 0 {
		if len(o.HashKey) < 16 {
			return nil, ErrNoHashKey
		}
		mp.mac = hmac.New(sha256.New, o.HashKey)
	}
	b := &builder{options: o, mapping: m}
	if err := b.count(); err != nil {
		return nil, err
	}
	mp.years = b.years
	mp.filter = b.condition("filter", m.Filter)
	for i, e := range m.Events {
		b.where = fmt.Sprintf("events[%d]", i)
		mp.events = append(mp.events, b.event(e))
	}
	return mp, errors.Join(b.errs...)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// Map returns the events of a row: none where the filter or their conditions
// say so. The error is a [RowError].
func (m *Mapper) Map(row Row) ([]Mapped, error) {
	m.out, m.texts = m.out[:0], m.texts[:0]
	m.vm.reset()
	for _, y := range m.years {
		y.place(row)
	}
	row.Fields = m.protect(row.Fields)
	if ok, err := m.vm.truth(m.filter, row); err != nil || !ok {
		return nil, rowError(row, err)
	}
	for _, e := range m.events {
		ok, err := m.vm.truth(e.when, row)
		if err == nil && ok {
			err = m.add(e, row)
		}
		if err != nil {
			return nil, rowError(row, err)
		}
	}
	return m.out, nil
}

func rowError(row Row, err error) error {
	if err == nil {
		return nil
	}
	return RowError{row.Index, err}
}

// truth runs a condition; none is true.
func (m *machine) truth(e *expression.Program, row Row) (bool, error) {
	if e == nil {
		return true, nil
	}
	out, err := m.run(e, row)
	if err != nil {
		return false, err
	}
	b, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("expression %q gave %T, not true or false", e, out)
	}
	return b, nil
}

// protect drops and hashes fields before anything sees them.
func (m *Mapper) protect(fields []event.NamedValue) []event.NamedValue {
	if len(m.drop) == 0 && len(m.hashes) == 0 {
		return fields
	}
	m.fields = m.fields[:0]
	for _, f := range fields {
		if m.drop[f.Name] {
			continue
		}
		if m.hashes[f.Name] && !f.Value.IsNull() {
			m.mac.Reset()
			m.mac.Write([]byte(plainText(f.Value)))
			f.Value = event.Text(hex.EncodeToString(m.mac.Sum(nil)))
		}
		m.fields = append(m.fields, f)
	}
	return m.fields
}

// plainText is a value as text: strings as they are, the rest as JSON.
func plainText(v event.Value) string {
	if v.Type.Elem == event.String && !v.Type.List {
		return v.Text
	}
	return string(event.AppendValue(nil, v))
}

func (m *Mapper) add(e *eventMapper, row Row) error {
	if skip, err := e.absent(row, m.vm); err != nil || skip {
		return err
	}
	from := len(m.texts)
	at, text, err := e.append(m.texts, row, m.vm)
	if err != nil {
		return err
	}
	m.texts = text
	address, err := m.addresses.Read(text[from:])
	if err != nil {
		return err
	}
	end := len(m.texts)
	m.texts = append(m.texts, address.Key...)
	m.out = append(m.out, Mapped{Kind: e.kind, Time: at, Text: m.texts[from:end:end], Key: m.texts[end:len(m.texts):len(m.texts)]})
	return nil
}

// builder compiles a mapping's parts and collects faults.
type builder struct {
	mapping *Mapping
	options Options
	where   string
	years   map[string]*years
	errs    []error
}

func (b *builder) fail(what string, err error) {
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s: %s: %w", b.where, what, err))
	}
}

func (b *builder) condition(what, text string) *expression.Program {
	if text == "" {
		return nil
	}
	e, err := expression.Compile(text)
	b.fail(what, err)
	return e
}

// count reads the file once where a time is spread over years.
func (b *builder) count() error {
	b.years = map[string]*years{}
	for _, e := range b.mapping.Events {
		for _, t := range []Time{e.Time, e.Created, e.KnownAt} {
			if t.Spread != nil && t.Spread.Year != "" {
				b.years[t.Spread.Year] = &years{field: t.Spread.Year, counts: map[int64]int64{}, met: map[int64]int64{}}
			}
		}
	}
	if len(b.years) == 0 {
		return nil
	}
	if b.options.File == nil {
		return errNeedsFile
	}
	for row, err := range b.options.File.Rows() {
		var bad RowError
		if errors.As(err, &bad) {
			continue // it will not be mapped either
		}
		if err != nil {
			return err
		}
		for _, y := range b.years {
			y.count(row)
		}
	}
	return nil
}

func (b *builder) clock(what string, spec Time) *clock {
	if spec.IsZero() {
		return nil
	}
	total := int64(0)
	if b.options.File != nil {
		total = b.options.File.Total()
	}
	c, err := newClock(spec, total, b.years)
	b.fail(what, err)
	return c
}

// value compiles a value; nil when none is stated.
func (b *builder) value(what string, v Value) *valueMapper {
	if v.IsZero() {
		return nil
	}
	if n := countTrue(v.Field != "", v.Const != nil, v.Expr != ""); n != 1 {
		b.fail(what, errors.New("state one of field, const and expr"))
		return nil
	}
	vm := &valueMapper{field: v.Field}
	if v.Const != nil {
		c, err := event.FromNative(v.Const)
		b.fail(what, err)
		vm.constant = c
	}
	vm.expr = b.condition(what, v.Expr)
	return vm
}

func countTrue(list ...bool) (n int) {
	for _, b := range list {
		if b {
			n++
		}
	}
	return n
}

func (b *builder) named(what string, m map[string]Value) []namedMapper {
	var list []namedMapper
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if v := b.value(what+"."+name, m[name]); v != nil {
			list = append(list, namedMapper{name, v})
		}
	}
	return list
}

// valueMapper reads one value from a row.
type valueMapper struct {
	field    string
	constant event.Value
	expr     *expression.Program
}

type namedMapper struct {
	name  string
	value *valueMapper
}

func (v *valueMapper) of(row Row, m *machine) (event.Value, error) {
	switch {
	case v == nil:
		return event.Value{}, nil
	case v.field != "":
		return row.Field(v.field), nil
	case v.expr != nil:
		out, err := m.run(v.expr, row)
		if err != nil {
			return event.Value{}, err
		}
		return event.FromNative(out)
	}
	return v.constant, nil
}
