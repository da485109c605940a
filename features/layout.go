package features

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kedge-ml/kedge/event"
)

// A slot is one row of fixed width:
//
//	 0 event_time 8 · created 8 · offset 8 · epoch 4 · partition 4
//	32 index<<1 | deleted 4
//	36 null bitmap, one bit per value column, padded to 8
//	   key, when all key columns have fixed width: 8 bytes each
//	   block pointer 8, when the view has any column of variable width
//	   8-byte columns · 4-byte columns · ends of variable columns 4 each · bools
//
// A row's block holds the key (when it is not in the slot) and the variable
// columns one after another; each ends where its end says, relative to the
// block's start.
const (
	slotEventTime = 0
	slotCreated   = 8
	slotOffset    = 16
	slotEpoch     = 24
	slotPartition = 28
	slotIndex     = 32
	slotNulls     = 36
)

// layout places a view's columns in a slot. It is immutable.
type layout struct {
	schema    *event.Schema
	columns   []slotColumn
	byName    map[string]int
	keyAt     int // offset of the inline key
	keyWidth  int // 0: the key is the block's first part
	blockAt   int // offset of the block pointer; 0: no variable part
	endsAt    int // offset of the first end
	variables int // ends in use, the key's included
	stride    int
}

type slotColumn struct {
	name     string
	typ      event.ColumnType
	at       int // offset of the value; unused for a variable column
	variable int // index among the ends, or -1
}

func newLayout(s *event.Schema) *layout {
	l := &layout{schema: s, byName: make(map[string]int, len(s.Values()))}
	for i, f := range s.Values() {
		l.columns = append(l.columns, slotColumn{name: f.Name, typ: f.Type, variable: -1})
		l.byName[f.Name] = i
	}
	at := (slotNulls + (len(l.columns)+7)/8 + 7) &^ 7
	l.keyWidth = keyWidth(s)
	l.keyAt = at
	at += l.keyWidth
	if l.keyWidth == 0 {
		l.variables = 1
	}
	l.numberVariables()
	if l.variables > 0 {
		l.blockAt = at
		at += 8
	}
	at = l.place(at, 8)
	at = l.place(at, 4)
	l.endsAt = at
	at = l.place(at+4*l.variables, 1)
	l.stride = (at + 7) &^ 7
	return l
}

func (l *layout) numberVariables() {
	for i := range l.columns {
		if fixedWidth(l.columns[i].typ) < 0 {
			l.columns[i].variable = l.variables
			l.variables++
		}
	}
}

func (l *layout) place(at, width int) int {
	for i := range l.columns {
		if fixedWidth(l.columns[i].typ) == width {
			l.columns[i].at = at
			at += width
		}
	}
	return at
}

// fixedWidth is the number of bytes that a value takes in the slot: 0 for a
// type that is not known yet (always null), -1 for a variable one.
func fixedWidth(t event.ColumnType) int {
	if t.List {
		return -1
	}
	switch t.Elem {
	case event.Unknown:
		return 0
	case event.Bool:
		return 1
	case event.Int32, event.Float32:
		return 4
	case event.Int64, event.Float64, event.Timestamp:
		return 8
	}
	return -1
}

// keyWidth is the width of a key of fixed-width columns, or 0.
func keyWidth(s *event.Schema) int {
	for _, f := range s.Keys() {
		if fixedWidth(f.Type) <= 0 {
			return 0
		}
	}
	return 8 * len(s.Keys())
}

func (l *layout) end(slot []byte, variable int) int {
	return int(binary.LittleEndian.Uint32(slot[l.endsAt+4*variable:]))
}

func (l *layout) setEnd(slot []byte, variable, end int) {
	binary.LittleEndian.PutUint32(slot[l.endsAt+4*variable:], uint32(end))
}

// blockLen is the number of bytes that the row uses of its block.
func (l *layout) blockLen(slot []byte) int {
	if l.variables == 0 {
		return 0
	}
	return l.end(slot, l.variables-1)
}

func (l *layout) block(slot []byte) uint64 {
	if l.blockAt == 0 {
		return 0
	}
	return binary.LittleEndian.Uint64(slot[l.blockAt:])
}

func (l *layout) setBlock(slot []byte, p uint64) {
	if l.blockAt != 0 {
		binary.LittleEndian.PutUint64(slot[l.blockAt:], p)
	}
}

// variable returns the bytes of a variable part within a row's block.
func (l *layout) variable(slot, block []byte, v int) []byte {
	from := 0
	if v > 0 {
		from = l.end(slot, v-1)
	}
	return block[from:l.end(slot, v)]
}

func slotVersion(slot []byte) Version {
	return Version{
		EventTime: int64(binary.LittleEndian.Uint64(slot[slotEventTime:])),
		Created:   int64(binary.LittleEndian.Uint64(slot[slotCreated:])),
		Epoch:     int32(binary.LittleEndian.Uint32(slot[slotEpoch:])),
		Partition: int32(binary.LittleEndian.Uint32(slot[slotPartition:])),
		Offset:    int64(binary.LittleEndian.Uint64(slot[slotOffset:])),
		Index:     int32(binary.LittleEndian.Uint32(slot[slotIndex:]) >> 1),
	}
}

func setSlotVersion(slot []byte, v Version, deleted bool) {
	binary.LittleEndian.PutUint64(slot[slotEventTime:], uint64(v.EventTime))
	binary.LittleEndian.PutUint64(slot[slotCreated:], uint64(v.Created))
	binary.LittleEndian.PutUint64(slot[slotOffset:], uint64(v.Offset))
	binary.LittleEndian.PutUint32(slot[slotEpoch:], uint32(v.Epoch))
	binary.LittleEndian.PutUint32(slot[slotPartition:], uint32(v.Partition))
	index := uint32(v.Index) << 1
	if deleted {
		index |= 1
	}
	binary.LittleEndian.PutUint32(slot[slotIndex:], index)
}

func slotDeleted(slot []byte) bool { return slot[slotIndex]&1 != 0 }

func slotNull(slot []byte, column int) bool { return slot[slotNulls+column>>3]>>(column&7)&1 != 0 }

func setSlotNull(slot []byte, column int) { slot[slotNulls+column>>3] |= 1 << (column & 7) }

// widens reports whether stored values of type from can be kept as type to.
func widens(from, to event.ColumnType) bool {
	if from == to || from.Elem == event.Unknown {
		return true
	}
	if from.List != to.List {
		return false
	}
	switch from.Elem {
	case event.Int64:
		return to.Elem == event.Float64
	case event.Int32:
		return !to.List && (to.Elem == event.Int64 || to.Elem == event.Float64)
	case event.Float32:
		return !to.List && to.Elem == event.Float64
	}
	return false
}

// number is a fixed-width value between two types.
type number struct {
	float bool
	i     int64
	f     float64
}

func getFixed(b []byte, t event.Type) number {
	switch t {
	case event.Bool:
		return number{i: int64(b[0])}
	case event.Int32:
		return number{i: int64(int32(binary.LittleEndian.Uint32(b)))}
	case event.Float32:
		return number{float: true, f: float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))}
	case event.Float64:
		return number{float: true, f: math.Float64frombits(binary.LittleEndian.Uint64(b))}
	}
	return number{i: int64(binary.LittleEndian.Uint64(b))}
}

func putFixed(b []byte, t event.Type, n number) {
	if !n.float {
		n.f = float64(n.i)
	}
	switch t {
	case event.Bool:
		b[0] = byte(n.i)
	case event.Int32:
		binary.LittleEndian.PutUint32(b, uint32(n.i))
	case event.Float32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(float32(n.f)))
	case event.Float64:
		binary.LittleEndian.PutUint64(b, math.Float64bits(n.f))
	default:
		binary.LittleEndian.PutUint64(b, uint64(n.i))
	}
}

// checkEvolution says why rows of one schema cannot be kept under another.
func checkEvolution(from, to *event.Schema) error {
	if len(from.Keys()) != len(to.Keys()) {
		return fmt.Errorf("view %s: key columns changed from %d to %d: define a new view", to.Subject, len(from.Keys()), len(to.Keys()))
	}
	for i, f := range from.Keys() {
		if t := to.Keys()[i]; t.Name != f.Name || t.Type != f.Type {
			return fmt.Errorf("view %s: key column %s %s became %s %s: define a new view", to.Subject, f.Name, f.Type, t.Name, t.Type)
		}
	}
	next := make(map[string]event.ColumnType, len(to.Values()))
	for _, f := range to.Values() {
		next[f.Name] = f.Type
	}
	for _, f := range from.Values() {
		if t, ok := next[f.Name]; ok && !widens(f.Type, t) {
			return fmt.Errorf("view %s: column %s cannot go from %s to %s: define a new column", to.Subject, f.Name, f.Type, t)
		}
	}
	return nil
}
