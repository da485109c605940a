package event

// Column holds one column's values. Which slices are in use follows from the
// field's type; all others stay nil. A list or map column keeps the elements
// of all rows in one inner column and the end of each row in Ends.
//
//	Bool                                 → Bools (0 or 1)
//	Int32                                → Int32s
//	Int64, Timestamp                     → Int64s (Timestamp: µs)
//	Float32                              → Float32s
//	Float64                              → Float64s
//	String, Bytes, JSON                  → Data, with row i = Data[StrEnds[i-1]:StrEnds[i]]
//	List(T)                              → Ends, Items (of type T, nullable)
//	FloatMap, StringMap, TimeMap         → Ends, Names (String), Items (Float64, String, Timestamp)
//
// Nulls is parallel to the rows of a nullable column (1 = null; the value slot
// then holds the zero value) and nil otherwise.
type Column struct {
	Type     ColumnType
	Nulls    []uint8
	Bools    []uint8
	Int32s   []int32
	Int64s   []int64
	Float32s []float32
	Float64s []float64
	Data     []byte
	StrEnds  []uint32
	Ends     []uint64
	Names    *Column
	Items    *Column
}

// Str returns the bytes of row i of a String, Bytes or JSON column. They alias
// the column.
func (c *Column) Str(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = c.StrEnds[i-1]
	}
	return c.Data[start:c.StrEnds[i]]
}

// Null reports whether row i is null.
func (c *Column) Null(i int) bool { return c.Nulls != nil && c.Nulls[i] != 0 }

// Span returns the half-open range of row i's elements within Items.
func (c *Column) Span(i int) (from, to uint64) {
	if i > 0 {
		from = c.Ends[i-1]
	}
	return from, c.Ends[i]
}

// Batch holds the rows that one unit of work has for one table, as columns
// parallel to Schema.Fields. The zero of every slice means "no rows"; Reset
// keeps the memory.
type Batch struct {
	Schema  *Schema
	Topic   string
	Rows    int
	Columns []Column
}

// NewBatch returns an empty batch for a table.
func NewBatch(s *Schema, topic string) *Batch {
	b := &Batch{Schema: s, Topic: topic, Columns: make([]Column, len(s.Fields))}
	for i, f := range s.Fields {
		b.Columns[i] = newColumn(f.Type, f.Nullable)
	}
	return b
}

func newColumn(t ColumnType, nullable bool) Column {
	c := Column{Type: t}
	if nullable {
		c.Nulls = []uint8{}
	}
	switch {
	case t.List:
		items := newColumn(ColumnType{Elem: t.Elem}, true)
		c.Items, c.Nulls = &items, nil // a null list is an empty list: ClickHouse arrays are not nullable
	case t.Elem == FloatMap, t.Elem == StringMap, t.Elem == TimeMap:
		names := newColumn(ColumnType{Elem: String}, false)
		items := newColumn(ColumnType{Elem: mapItem(t.Elem)}, false)
		c.Names, c.Items, c.Nulls = &names, &items, nil
	}
	return c
}

func mapItem(t Type) Type {
	switch t {
	case FloatMap:
		return Float64
	case TimeMap:
		return Timestamp
	}
	return String
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Rows = 0
	for i := range b.Columns {
		b.Columns[i].reset()
	}
}

func (c *Column) reset() {
	c.Bools, c.Int32s, c.Int64s = c.Bools[:0], c.Int32s[:0], c.Int64s[:0]
	c.Float32s, c.Float64s = c.Float32s[:0], c.Float64s[:0]
	c.Data, c.StrEnds, c.Ends = c.Data[:0], c.StrEnds[:0], c.Ends[:0]
	if c.Nulls != nil {
		c.Nulls = c.Nulls[:0]
	}
	if c.Names != nil {
		c.Names.reset()
	}
	if c.Items != nil {
		c.Items.reset()
	}
}

// DeadLetter is a record, or a part of one, that could not become a row. It is
// stored in the same unit of work as the rows around it.
type DeadLetter struct {
	Topic     string
	Partition int32
	Offset    int64
	Index     int32
	Epoch     int32
	KnownAt   int64 // µs, broker append time
	Reason    Reason
	Detail    string // one sentence for the producer's owner: what, where, remedy
	Key       []byte
	Value     []byte // raw bytes, cut at the stated cap
	Size      int64  // length before the cut
}

// Reason classifies dead letters; it is a metric label, so the set is closed.
type Reason string

// Why a record became a dead letter.
const (
	ReasonMalformed Reason = "malformed"  // not JSON, truncated, trailing bytes, too deep
	ReasonEncoding  Reason = "encoding"   // not valid UTF-8
	ReasonTooLarge  Reason = "too_large"  // over the record cap
	ReasonMissing   Reason = "missing"    // a required envelope member is absent
	ReasonType      Reason = "type"       // a member or column has the wrong type
	ReasonTime      Reason = "time"       // a time that is not RFC 3339 or out of range
	ReasonFuture    Reason = "future"     // event_time too far ahead of the broker's clock
	ReasonKey       Reason = "key"        // null or incomplete entity key
	ReasonNamespace Reason = "namespace"  // body and topic disagree
	ReasonUndefined Reason = "undefined"  // unknown view or model where inference is off
	ReasonLimit     Reason = "limit"      // too many columns, name too long
	ReasonRetracted Reason = "deprecated" // the view or column no longer takes rows
	ReasonOutside   Reason = "outside"    // the view reads a table outside Kedge
	ReasonMapping   Reason = "mapping"    // a source's mapping found no event in it
	ReasonConvert   Reason = "conversion" // a row of an older version that the view's conversion cannot make one of the new
	ReasonSchema    Reason = "schema"     // not written in the schema that its source names
	ReasonUnpaired  Reason = "unpaired"   // the other half of a request and its response did not come
	// ReasonUnreadable is of a whole record batch, whose bytes are not kept: it
	// cannot be decompressed, becomes too large, or does not hold the records that
	// it says.
	ReasonUnreadable Reason = "unreadable"
)
