package event

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"
)

// unpacker is what a decoder keeps for packed records.
type unpacker struct {
	packed
	texts []byte
	head  []byte  // of the record before
	plan  *plan   // and where its inputs went
	slots []int32 // index of plan.slots, by input
}

// decodePacked adds the rows of a packed record. They go straight into columns
// where the definition has a column of its type for every input; else each is
// written as JSON and decoded as any event is. Both give the same rows.
func (d *Decoder) decodePacked(u *Unit, r Record) {
	p := &d.pack
	if len(r.Value) > d.cfg.MaxRecordBytes {
		d.Refuse(u, r, ReasonTooLarge, sentence("the record has ", itoa(len(r.Value)), " bytes, at most ", itoa(d.cfg.MaxRecordBytes), " are taken"))
		return
	}
	if !p.read(r.Value) {
		d.Refuse(u, r, ReasonMalformed, p.fault)
		return
	}
	u.Begin(r, 0)
	straight := d.packedPlan(u, r)
	for row := range p.rows {
		if straight && d.packedRow(int32(row)) {
			continue
		}
		p.texts = p.appendJSON(p.texts[:0], row)
		d.DecodePart(u, r, int32(row), p.texts)
	}
}

// begin makes the decoder ready for an event of a record.
func (d *Decoder) begin(u *Unit, r Record, index int32, text []byte) {
	d.u, d.rec, d.index, d.env = u, r, index, envelope{}
	d.deferred, d.keys, d.evidence, d.overflow = d.deferred[:0], d.keys[:0], d.evidence[:0], d.overflow[:0]
	d.start(text)
}

// packedPlan finds the table of a packed record and reports whether its rows can
// go straight into the table's columns.
func (d *Decoder) packedPlan(u *Unit, r Record) bool {
	p := &d.pack
	d.begin(u, r, 0, nil)
	for _, text := range [...][]byte{p.model, p.version, p.id, p.suffix, p.variant, p.trace} {
		if !utf8.Valid(text) {
			return false // JSON would write it otherwise
		}
	}
	if len(p.id)+len(p.suffix) == 0 || len(p.model) == 0 || p.eventTime < MinTime || p.eventTime > MaxTime || len(p.key) > 0 && p.key[0] != '{' {
		return false
	}
	d.env.subject, d.env.version = p.model, p.version
	if !d.resolve() || d.env.held || d.env.plan == nil {
		return false
	}
	if d.env.plan != p.plan || !bytes.Equal(p.packed.head, p.head) {
		if !p.match(d.env.plan) {
			p.plan = nil
			return false
		}
	}
	for i := range p.columns {
		if !p.columns[i].fits(p.plan.slots[p.slots[i]].typ) {
			return false
		}
	}
	return p.distinctOutputs()
}

// match finds the columns of a record's inputs.
func (p *unpacker) match(to *plan) bool {
	p.plan, p.head, p.slots = to, append(p.head[:0], p.packed.head...), p.slots[:0]
	taken := make([]bool, len(to.slots))
	for _, name := range p.names {
		i, ok := to.names[string(name)]
		if !ok || taken[i] || to.slots[i].retired || to.slots[i].col < 0 {
			return false
		}
		taken[i] = true
		p.slots = append(p.slots, i)
	}
	return true
}

// fits reports whether values go into a column without a word about their type.
func (c *packedColumn) fits(t ColumnType) bool {
	switch {
	case t.List:
		return false
	case c.typ == Float32:
		return t.Elem == Float64 || t.Elem == Float32
	case c.typ == String:
		return t.Elem == String && utf8.Valid(c.data[:lastOf(c.ends)])
	}
	return t.Elem == c.typ
}

func (p *unpacker) distinctOutputs() bool {
	for i, name := range p.outputNames {
		if !utf8.Valid(name) {
			return false
		}
		for _, other := range p.outputNames[:i] {
			if bytes.Equal(name, other) {
				return false
			}
		}
	}
	return true
}

// packedRow adds one row by columns. False leaves nothing behind: the row's text
// says what is wrong with it.
func (d *Decoder) packedRow(row int32) bool {
	p, e := &d.pack, &d.env
	d.begin(d.u, d.rec, row, p.key)
	*e = envelope{
		plan: p.plan, subject: p.model, version: p.version, id: p.idOf(int(row)), eventTime: p.eventTime, stored: len(p.columns),
		seen: setOf(mModel, mVersion, mID, mEventTime, mInputs, mOutput),
	}
	if len(p.trace) > 0 {
		e.trace = traceID(p.trace)
	}
	ok := len(p.key) == 0 || d.jsonKey(p.plan) && d.ended()
	if ok {
		p.appendTo(p.plan, int(row))
		ok = d.finish()
	}
	if !ok {
		p.plan.batch.rollback()
	}
	return ok || d.fault.reason == "" // a duplicate
}

// appendTo adds a row's own columns and those of its envelope.
func (p *unpacker) appendTo(to *plan, row int) {
	cols := to.batch.Columns
	for i := range p.columns {
		p.columns[i].appendTo(&cols[to.slots[p.slots[i]].col], row)
	}
	for i, col := range [...]int{PredQueueMS, PredFeaturesMS, PredComputeMS, PredThreshold} {
		if p.flags&(packedQueue<<i) != 0 {
			cols[col].AppendFloat64(p.floats[i])
		}
	}
	if len(p.variant) > 0 {
		cols[PredVariant].AppendBytes(p.variant)
	}
	switch p.output {
	case OutputScore:
		cols[PredScore].AppendFloat64(p.outputValue(row, 0))
	case OutputValue:
		cols[PredValue].AppendFloat64(p.outputValue(row, 0))
	case OutputScores:
		p.appendMap(&cols[PredScores], row)
	case OutputQuantiles:
		p.appendMap(&cols[PredQuantiles], row)
	}
}

func (p *unpacker) appendMap(c *Column, row int) {
	for i, name := range p.outputNames {
		c.Names.AppendBytes(name)
		c.Items.AppendFloat64(p.outputValue(row, i))
	}
	c.endList()
}

func (c *packedColumn) appendTo(to *Column, row int) {
	switch {
	case c.null(row):
		to.AppendNull()
	case c.typ == String:
		to.AppendBytes(c.str(row))
	case c.typ == Bool:
		to.AppendBool(c.data[row] != 0)
	case c.typ == Int64:
		to.AppendInt64(c.int64(row))
	case c.typ == Float64:
		to.AppendFloat64(c.float64(row))
	case to.Type.Elem == Float32:
		to.AppendFloat32(c.float32(row))
	default:
		to.AppendFloat64(shortest(c.float32(row)))
	}
}

// powers are those of ten that shortest needs; a float64 holds them exactly.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}

// shortest is the float64 that reads from the shortest text of v, so that a column
// holds 0.1 where a caller wrote 0.1 and meant a float of 32 bits.
//
// The shortest text has the least number of decimal places k at which the decimal
// nearest to v reads back as v; more places than that read back too, so that k is
// found by halving. The decimal m/10^k is the quotient of two exact numbers and so
// the float64 nearest to it. By its text goes what that does not hold for: a power
// of two, whose neighbour below is nearer than the one above, numbers too large or
// small for exact products, and a quotient halfway between two floats, which may
// have been rounded to there.
func shortest(v float32) float64 {
	w := float64(v)
	abs := math.Abs(w)
	if !(abs >= 1e-3 && abs < 1<<23) || math.Float32bits(v)&(1<<23-1) == 0 {
		return shortestText(v)
	}
	low, high := 0, len(powers)-1 // at high it always reads back
	for low < high {
		k := int(uint(low+high) / 2)
		q := math.RoundToEven(w*powers[k]) / powers[k]
		switch {
		case math.Float64bits(q)&(1<<29-1) == 1<<28:
			return shortestText(v)
		case float32(q) == v:
			high = k
		default:
			low = k + 1
		}
	}
	return math.RoundToEven(w*powers[low]) / powers[low]
}

func shortestText(v float32) float64 {
	if v == 0 || v != v || math.IsInf(float64(v), 0) {
		return float64(v)
	}
	var buf [32]byte
	w, err := strconv.ParseFloat(string(strconv.AppendFloat(buf[:0], float64(v), 'e', -1, 32)), 64)
	if err != nil {
		return float64(v)
	}
	return w
}
