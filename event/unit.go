package event

import (
	"cmp"
	"slices"
)

// Record is one Kafka record as the decoder sees it.
type Record struct {
	Partition int32
	Offset    int64
	Time      int64 // µs, when the broker appended it
	Key       []byte
	Value     []byte
	Trace     string // trace id of the traceparent header; empty if none
	KnownAt   int64  // µs; 0: Time. An event's own known_at goes before it
}

// Unit collects what the records of one unit of work become. Set the first
// group of fields, decode records in offset order, then read the second group.
// A Unit is used by one goroutine; [Unit.Reset] keeps its memory for the next.
type Unit struct {
	Topic     string
	Namespace string
	Kind      Kind
	Epoch     int32
	Catalog   *Catalog
	// Seen reports whether an event with the id stands at a smaller (offset,
	// index) of the same partition and table. nil: ids are not checked. It is
	// asked last, for events that would become rows.
	Seen func(s *Schema, id []byte, offset int64, index int32) bool

	Batches      []*Batch     // tables that got rows, in the order of their first row
	Dead         []DeadLetter // in record order
	Proposals    []Proposal   // not empty: nothing here is final, see [Proposal]
	Counts       Counts
	MaxEventTime int64 // µs, over Batches; 0 without rows
	MinKnownAt   int64 // µs
	MaxKnownAt   int64 // µs
	MinAppended  int64 // µs, over the records; 0 without records
	MaxAppended  int64 // µs

	plans   map[*target]*plan
	last    lastPlan
	drafts  drafts
	windows map[DirtyWindow]struct{}
}

// lastPlan remembers the subject of the last event, which is most often the next
// one's too.
type lastPlan struct {
	name, version []byte
	plan          *plan
}

// Counts says what became of a unit's records.
type Counts struct {
	Records     int64
	Rows        int64
	DeadLetters int64
	Duplicates  int64 // ids seen before
	Tombstoned  int64 // refused because of an erasure
	Silent      int64 // rows of a source that give no event
	Overflow    int64 // values unknown to a declared definition, kept aside
	Unknown     int64 // envelope members nobody knows, ignored
}

// plan is the mutable side of a target: its batch and what the last row taught.
type plan struct {
	*target
	batch  *Batch
	hints  []int32 // position of a member → slot, as in the last row
	minute int64   // event minute last marked dirty
	marked bool
}

// Reset empties the unit for the next range of records and keeps its memory.
// Batches handed out before are reused: be done with them.
func (u *Unit) Reset(c *Catalog) {
	if c != u.Catalog {
		u.Catalog, u.plans, u.last = c, nil, lastPlan{}
	}
	for _, p := range u.plans {
		p.batch.Reset()
		p.batch.Topic = u.Topic // a unit may be used for another topic now
		p.marked = false
	}
	u.Batches, u.Dead, u.Proposals = u.Batches[:0], u.Dead[:0], u.Proposals[:0]
	u.Counts, u.drafts = Counts{}, nil
	u.MaxEventTime, u.MinKnownAt, u.MaxKnownAt = 0, 0, 0
	u.MinAppended, u.MaxAppended = 0, 0
	clear(u.windows)
}

// Windows returns the minutes that rows were added to, ordered.
func (u *Unit) Windows() []DirtyWindow {
	list := make([]DirtyWindow, 0, len(u.windows))
	for w := range u.windows {
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b DirtyWindow) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.TableID, b.TableID), cmp.Compare(a.Minute, b.Minute))
	})
	return list
}

// Ledger returns the unit's ledger row as far as the unit knows it: the caller
// adds Partition, From, To, Dropped, Missing and Registry.
func (u *Unit) Ledger() LedgerRow {
	r := LedgerRow{
		Topic: u.Topic, Epoch: u.Epoch, Decoder: DecoderVersion,
		Records: u.Counts.Records, Rows: u.Counts.Rows, DeadLetters: u.Counts.DeadLetters,
		Duplicates: u.Counts.Duplicates, Tombstoned: u.Counts.Tombstoned, Silent: u.Counts.Silent,
		Windows: u.Windows(), Tables: make(map[string]int64, len(u.Batches)),
		MaxEventTime: u.MaxEventTime, MinKnownAt: u.MinKnownAt, MaxKnownAt: u.MaxKnownAt,
		MinAppended: u.MinAppended, MaxAppended: u.MaxAppended,
	}
	for _, b := range u.Batches {
		r.Tables[b.Schema.Table()] += int64(b.Rows)
	}
	return r
}

// plan returns the unit's plan for a target.
func (u *Unit) plan(t *target) *plan {
	p := u.plans[t]
	if p == nil {
		p = newPlan(t, u.Topic)
		if u.plans == nil {
			u.plans = map[*target]*plan{}
		}
		u.plans[t] = p
	}
	return p
}

func newPlan(t *target, topic string) *plan {
	return &plan{target: t, batch: NewBatch(t.schema, topic)}
}

// mark notes the minute of a row as dirty.
func (u *Unit) mark(p *plan, eventTime int64) {
	minute, _ := floorDiv(eventTime, 60_000_000)
	if p.marked && p.minute == minute {
		return
	}
	p.marked, p.minute = true, minute
	if u.windows == nil {
		u.windows = map[DirtyWindow]struct{}{}
	}
	s := p.schema
	u.windows[DirtyWindow{Kind: s.Kind, TableID: s.TableID, Minute: minute}] = struct{}{}
}

// met notes when the broker appended a record.
func (u *Unit) met(appended int64) {
	if u.MaxAppended == 0 {
		u.MinAppended, u.MaxAppended = appended, appended
	}
	u.MinAppended, u.MaxAppended = min(u.MinAppended, appended), max(u.MaxAppended, appended)
}

// committed counts a row that was added to p.
func (u *Unit) committed(p *plan, eventTime, knownAt int64) {
	if p.batch.Rows == 0 {
		u.Batches = append(u.Batches, p.batch)
	}
	p.batch.Rows++
	if u.Counts.Rows == 0 {
		u.MaxEventTime, u.MinKnownAt, u.MaxKnownAt = eventTime, knownAt, knownAt
	}
	u.Counts.Rows++
	u.MaxEventTime = max(u.MaxEventTime, eventTime)
	u.MinKnownAt, u.MaxKnownAt = min(u.MinKnownAt, knownAt), max(u.MaxKnownAt, knownAt)
	u.mark(p, eventTime)
}
