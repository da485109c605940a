package source

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// Pair says that a request and its response are records of their own. The
// mapping then sees both as one row: request.… and response.….
type Pair struct {
	// Topic has the responses; empty: the source's topic has both.
	Topic string `yaml:"topic,omitempty"`
	// ID is what a request and its response have in common, read from either.
	ID Value `yaml:"id"`
	// Request and Response are expressions: where they are true, a record is one.
	// Needed where both are in one topic; records that are neither are left out.
	Request  string `yaml:"request,omitempty"`
	Response string `yaml:"response,omitempty"`
	// Wait is how long the one waits for the other; 10 minutes when zero.
	Wait event.Duration `yaml:"wait,omitempty"`
}

// Bounds on [Pair.Wait].
const (
	defaultWait = 10 * time.Minute
	maxWait     = 24 * time.Hour
)

func (p *Pair) validate(own string) error {
	errs := []error{p.ID.validateID()}
	switch one := p.Topic == ""; {
	case one && (p.Request == "" || p.Response == ""):
		errs = append(errs, errors.New("state which records are a request and which a response, or the topic of the responses"))
	case p.Topic == own:
		errs = append(errs, errors.New("topic: that is the source's own: leave it out"))
	case !one:
		errs = append(errs, checkTopic(p.Topic))
	}
	if w := time.Duration(p.Wait); w != 0 && (w < time.Second || w > maxWait) {
		errs = append(errs, fmt.Errorf("wait: %v is not between 1s and %v", w, maxWait))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pair: %w", err)
	}
	return nil
}

func (v Value) validateID() error {
	if v.Const != nil || v.IsZero() {
		return errors.New("id: state the field or the expression that a request and its response have in common")
	}
	return nil
}

// WaitMicros is how long a half waits, in µs.
func (p *Pair) WaitMicros() int64 {
	if p.Wait == 0 {
		return defaultWait.Microseconds()
	}
	return time.Duration(p.Wait).Microseconds()
}

const pairsSuffix = ".pairs"

// PairsTopic is the topic of Kedge's own that holds the pairs of a source.
func PairsTopic(namespace, name string) string {
	return "kedge." + namespace + "." + name + pairsSuffix
}

// CheckPairsTopic says whether a paired source may have a name: its topic has it.
func CheckPairsTopic(namespace, name string) error {
	if strings.Contains(name, ".") || checkTopic(name+pairsSuffix) != nil || len(PairsTopic(namespace, name)) > 249 {
		return fmt.Errorf("source %q has pairs: its name becomes a part of a topic's: want letters, digits, _ or -", name)
	}
	return nil
}

// IsPairsTopic reports whether a topic holds the pairs of a source.
func IsPairsTopic(topic string) bool {
	return strings.HasPrefix(topic, "kedge.") && strings.HasSuffix(topic, pairsSuffix)
}

// Half is a request or a response.
type Half struct {
	ID       string
	Response bool
	Text     []byte // the record as a JSON object, with _key, _time and _headers
}

// HalfReader reads the records of a paired source as halves. It is for one
// goroutine.
type HalfReader struct {
	records           *RecordReader
	id                *valueMapper
	request, response *expression.Program
	own, other        string
	vm                *machine
}

// NewHalfReader compiles a definition that has a Pair.
func NewHalfReader(d *Definition) (*HalfReader, error) {
	records, err := NewRecordReader(&d.Mapping)
	if err != nil {
		return nil, err
	}
	b := &builder{where: "pair"}
	h := &HalfReader{records: records, own: d.Topic, other: d.Pair.Topic, vm: newMachine(), id: b.value("id", d.Pair.ID),
		request: b.condition("request", d.Pair.Request), response: b.condition("response", d.Pair.Response)}
	return h, errors.Join(b.errs...)
}

// AddSchema is [RecordReader.AddSchema].
func (h *HalfReader) AddSchema(id int, text string) error { return h.records.AddSchema(id, text) }

// Read reads a record of one of the source's topics. A record that is neither
// request nor response, or a tombstone, is nil. The error is a [RowError] or a
// [NeedSchemaError].
func (h *HalfReader) Read(topic string, rec Record) (*Half, error) {
	if rec.Value == nil {
		return nil, nil
	}
	text, err := h.records.text(rec)
	var need *NeedSchemaError
	switch {
	case errors.As(err, &need):
		return nil, err
	case err != nil:
		return nil, RowError{0, err}
	case len(text) == 0:
		return nil, h.records.emptyRecord(rec)
	case text[0] != '{':
		return nil, RowError{0, event.RefusedError{Reason: event.ReasonType, Detail: "a request or a response has to be an object"}}
	}
	out := &Half{Text: appendAbout(bytes.TrimRight(text, " \t\r\n"), rec)}
	row, err := h.records.parser.row(0, out.Text)
	if err != nil {
		return nil, err
	}
	h.vm.reset()
	is, err := h.side(topic, row)
	if err != nil || is == neither {
		return nil, rowError(row, err)
	}
	out.Response = is == isResponse
	r := &reading{row: row, vm: h.vm}
	if out.ID = r.text("id", h.id); r.err == nil && out.ID == "" {
		r.err = event.RefusedError{Reason: event.ReasonMissing, Detail: "it has no id to pair it by"}
	}
	return out, rowError(row, r.err)
}

type side int

const (
	neither side = iota
	isRequest
	isResponse
)

// side says what a record is: by its topic where there are two, and by the
// conditions.
func (h *HalfReader) side(topic string, row Row) (side, error) {
	if h.other == "" || topic == h.own {
		ok, err := h.vm.truth(h.request, row)
		if err != nil || ok {
			return isRequest, err
		}
	}
	if h.other == "" || topic == h.other {
		ok, err := h.vm.truth(h.response, row)
		if err != nil || ok {
			return isResponse, err
		}
	}
	return neither, nil
}

// appendAbout copies an object and adds what is known of its record.
func appendAbout(object []byte, rec Record) []byte {
	dst := bytes.Clone(object[:len(object)-1])
	if len(bytes.TrimSpace(dst)) > 1 {
		dst = append(dst, ',')
	}
	dst = append(event.AppendTime(append(dst, `"`+TimeField+`":"`...), rec.Time), '"')
	if len(rec.Key) > 0 && utf8.Valid(rec.Key) {
		dst = event.AppendString(append(dst, `,"`+KeyField+`":`...), string(rec.Key))
	}
	if rec.Headers == nil {
		return append(dst, '}')
	}
	sep := `,"` + headersField + `":{`
	rec.Headers(func(name, value []byte) bool {
		if utf8.Valid(name) && utf8.Valid(value) {
			dst = event.AppendString(append(event.AppendString(append(dst, sep...), string(name)), ':'), string(value))
			sep = ","
		}
		return true
	})
	if sep == "," {
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// AppendPair appends the record that stands for a pair.
func AppendPair(dst []byte, request, response *Half) []byte {
	dst = append(append(dst, pairBegins...), request.Text...)
	dst = append(append(dst, `,"response":`...), response.Text...)
	return append(dst, '}')
}

// identified is the mapping with an id for every event of a pair, so that a pair
// that is written twice is stored once.
func (d *Definition) identified() *Mapping {
	if d.Pair == nil {
		return &d.Mapping
	}
	m := d.Mapping
	m.Events = slices.Clone(m.Events)
	for i := range m.Events {
		if e := &m.Events[i]; e.ID.IsZero() {
			e.ID = Value{Expr: fmt.Sprintf(`%s + "/%d/" + string(%s ?? 0)`, pairField, i, IndexField)}
		}
	}
	return &m
}

const pairBegins = `{"request":`

// pairText takes the records of a pairs topic.
func pairText(rec Record) ([]byte, error) {
	if !bytes.HasPrefix(rec.Value, []byte(pairBegins)) {
		return nil, event.RefusedError{Reason: event.ReasonUnpaired, Detail: "the record is no pair of a request and its response"}
	}
	return rec.Value, nil
}

// A record of a pairs topic that is no pair says in headers what it is.
const (
	// HalfHeader names a record that went into this one: topic/partition/offset.
	HalfHeader   = "kedge-half"
	ReasonHeader = "kedge-reason" // why the record is a dead letter
	DetailHeader = "kedge-detail"
)

// refusal is why a record of a pairs topic is a dead letter; "" if it is none.
func refusal(headers func(func(name, value []byte) bool)) (reason event.Reason, detail string) {
	if headers != nil {
		headers(func(name, value []byte) bool {
			switch string(name) {
			case ReasonHeader:
				reason = event.Reason(value)
			case DetailHeader:
				detail = string(value)
			}
			return true
		})
	}
	return reason, detail
}
