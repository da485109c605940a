package event

import (
	"time"
	"unicode/utf8"

	"github.com/kedge-ml/kedge/event/expression"
)

// DecoderVersion names the mapping from bytes to rows. A unit that was cut by
// one version is never finished by another.
const DecoderVersion = 2

// DecoderConfig bounds what the decoder takes.
type DecoderConfig struct {
	MaxRecordBytes int           // a longer record is a dead letter; it is not parsed
	MaxDeadBytes   int           // how much of a bad record a dead letter keeps
	MaxDepth       int           // brackets inside brackets
	FutureBound    time.Duration // how far event_time may be ahead of the broker's clock
	DeclaredOnly   bool          // events of unknown views and models are dead letters
	ErasureKey     string        // of [ErasureHash]
}

// DefaultDecoderConfig returns the bounds that hold unless they are set.
func DefaultDecoderConfig() DecoderConfig {
	return DecoderConfig{MaxRecordBytes: 4 << 20, MaxDeadBytes: 64 << 10, MaxDepth: 64, FutureBound: 10 * time.Minute}
}

// Decoder turns envelopes into rows. What it makes of a record depends only on
// the record, the unit's catalog, its own config and [DecoderVersion]. One
// goroutine uses it at a time; in the steady state it does not allocate.
//
// A record becomes one row (a packed one: one for each that it holds), whole, or one dead letter and nothing else, or a
// duplicate, or evidence for a proposal. A member that stands twice in an
// object the decoder reads makes the record malformed: the producer meant one
// of the two and nobody can tell which.
type Decoder struct {
	keyReader
	cfg    DecoderConfig
	u      *Unit
	rec    Record
	index  int32
	env    envelope
	drafts [Labels + 1]*plan // stand in for subjects without a definition

	deferred []deferredMember
	keys     []Evidence
	evidence []Evidence
	overflow []byte
	record   []byte              // as it came
	proto    protoReader         // rewrites Protobuf envelopes
	machine  *expression.Machine // runs conversions; nil until there is one
	former   []Value
	pack     unpacker
}

// envelope is what one event said outside its value columns.
type envelope struct {
	seen, nulls  memberSet
	plan         *plan
	held         bool // the row must wait for a definition
	stored       int  // value columns written
	overflown    int64
	unknown      int64
	namespace    []byte
	subject      []byte
	version      []byte
	id           []byte
	trace        []byte
	predictionID []byte
	eventTime    int64
	created      int64
	knownAt      int64
	del          bool
	withdrawn    bool
	versioned    *target // a view with versions: which one is known in the end
	versions     int64   // how often a feature event says of which it is
	versionAt    int     // and where
}

type deferredMember struct {
	member member
	pos    int
}

// NewDecoder returns a decoder.
func NewDecoder(cfg DecoderConfig) *Decoder {
	d := &Decoder{cfg: cfg}
	d.maxDepth = cfg.MaxDepth
	for _, k := range []Kind{Features, Predictions, Labels} {
		t := &target{schema: NewSchema(k, "", "", 0, nil, nil), inferred: true, draft: true}
		d.drafts[k] = newPlan(t, "")
	}
	return d
}

// Decode adds what becomes of one record to u.
func (d *Decoder) Decode(u *Unit, r Record) {
	if u.Kind == Predictions && IsPacked(r.Value) {
		d.decodePacked(u, r)
		return
	}
	u.Counts.Records++
	d.DecodePart(u, r, 0, r.Value)
}

// DecodePart adds one event of a record that holds several, index counting
// from 0. It does not count the record.
func (d *Decoder) DecodePart(u *Unit, r Record, index int32, value []byte) {
	u.met(r.Time)
	d.begin(u, r, index, value)
	d.record = value
	if string(value) == ErasedRecord {
		u.Counts.Tombstoned++
		return
	}
	ok := d.envelopeText(value) && d.event() && d.finish()
	if p := d.env.plan; p != nil && (!ok || d.env.held) {
		p.batch.rollback()
	}
	switch {
	case !ok && d.fault.reason != "" && d.mentionsErased():
		u.Counts.Tombstoned++
	case !ok && d.fault.reason != "":
		d.bury()
	case ok && d.env.held:
		d.propose()
	}
}

// envelopeText checks what needs no parsing and sets the scanner to the event's
// JSON.
func (d *Decoder) envelopeText(value []byte) bool {
	return startText(&d.scanner, &d.proto, value, d.cfg.MaxRecordBytes)
}

// startText sets a scanner to an envelope's JSON, which a Protobuf one is
// rewritten as.
func startText(s *scanner, p *protoReader, value []byte, limit int) bool {
	s.start(value)
	if !isProto(value) || len(value) > limit {
		return acceptText(s, limit)
	}
	text, fault := p.read(value)
	if fault != "" {
		return s.fail(ReasonMalformed, fault)
	}
	s.start(text)
	return true
}

func acceptText(s *scanner, limit int) bool {
	switch {
	case len(s.buf) > limit:
		return s.fail(ReasonTooLarge, sentence("the record has ", itoa(len(s.buf)), " bytes, at most ", itoa(limit), " are taken"))
	case len(s.buf) == 0:
		return s.fail(ReasonMalformed, "the record is empty")
	case !utf8.Valid(s.buf):
		return s.fail(ReasonEncoding, "the record is not valid UTF-8")
	}
	return true
}

// bury adds the dead letter of a failed event. A text that is no JSON at all
// is called so, whatever was noticed first.
func (d *Decoder) bury() {
	f := d.fault
	if f.reason != ReasonTooLarge && f.reason != ReasonEncoding && f.reason != ReasonMalformed {
		d.start(d.buf)
		if !d.skip() || !d.ended() {
			f = d.fault
		}
	}
	d.u.bury(d.rec, d.index, d.record, d.cfg.MaxDeadBytes, f.reason, f.detail)
}

func (u *Unit) bury(r Record, index int32, value []byte, limit int, reason Reason, detail string) {
	u.Counts.DeadLetters++
	u.Dead = append(u.Dead, DeadLetter{
		Topic: u.Topic, Partition: r.Partition, Offset: r.Offset, Index: index, Epoch: u.Epoch,
		KnownAt: r.Time, Reason: reason, Detail: detail,
		Key: append([]byte(nil), r.Key...), Value: append([]byte(nil), value[:min(len(value), limit)]...), Size: int64(len(value)),
	})
}

// Refuse counts a record that gives no events because it could not be read as
// its source says, and adds its dead letter.
func (d *Decoder) Refuse(u *Unit, r Record, reason Reason, detail string) {
	u.Counts.Records++
	u.met(r.Time)
	u.bury(r, 0, r.Value, d.cfg.MaxDeadBytes, reason, detail)
}

// Begin counts a record whose events follow by [Decoder.DecodePart], silent of
// its rows giving none: they were filtered out, or say nothing yet.
func (u *Unit) Begin(r Record, silent int) {
	u.Counts.Records++
	u.Counts.Silent += int64(silent)
	u.met(r.Time)
}

// propose hands the event's evidence to the unit.
func (d *Decoder) propose() {
	s, name := d.env.plan.schema, string(d.env.subject)
	switch s.Kind {
	case Features:
		d.u.propose(FeatureViewKind, name, "", d.keys, d.evidence)
	case Predictions:
		d.u.propose(ModelKind, name, string(d.env.version), nil, d.evidence)
	case Labels:
		d.u.propose(ModelKind, name, "", nil, nil)
	}
}

// rollback removes what an unfinished row left in the columns.
func (b *Batch) rollback() {
	for i := range b.Columns {
		b.Columns[i].Truncate(b.Rows)
	}
}

// event reads the envelope's members.
func (d *Decoder) event() bool {
	if d.peek() != '{' {
		return d.notObject("the event")
	}
	d.pos++
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			break
		}
		d.depth = 1
		if !d.nextMember() {
			return false
		}
	}
	return d.ended()
}

func (d *Decoder) nextMember() bool {
	name, ok := d.name()
	if !ok {
		return false
	}
	m := memberNamed(name)
	if m == mVersion && d.u.Kind == Features {
		d.env.versions, d.env.versionAt = d.env.versions+1, d.pos
		return d.skip()
	}
	bit := memberSet(1) << m
	if m == noMember || bit&membersOf[d.u.Kind&3] == 0 {
		d.env.unknown++
		return d.skip()
	}
	if d.env.seen&bit != 0 {
		return d.twice(name)
	}
	d.env.seen |= bit
	if d.peek() == 'n' && m != mLabel {
		d.env.nulls |= bit
		return d.literal("null")
	}
	if m.fillsColumn() && d.env.plan == nil {
		d.deferred = append(d.deferred, deferredMember{m, d.pos})
		return d.skip()
	}
	return d.member(m)
}
