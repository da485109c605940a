package features

import (
	"encoding/binary"

	"github.com/kedge-ml/kedge/event"
)

// The state of one key is a block of bytes without pointers:
//
//	8 largest event_time · 36 version of the newest delete
//	per window: 2 number of tiles, then tiles by time: 8 tile number · states
//
// A tile holds the events of one hop. Late events fold into their own tile;
// tiles that no window can reach any more are left out when the block is
// written anew.
const windowHeader = 8 + versionBytes

func getTime(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }

// windowFolder folds events into states, for the online table and for training
// sets alike. It keeps its memory and is for one goroutine.
type windowFolder struct {
	plan   *windowPlan
	values []windowValue // per plan column
	tiles  []int         // per window: where the event's tile lies in the state
	out    []byte
	cells  [][]cell // per window, per accumulator
}

func newFolder(p *windowPlan) *windowFolder {
	f := &windowFolder{plan: p, values: make([]windowValue, len(p.columns)), tiles: make([]int, len(p.windows))}
	for _, w := range p.windows {
		f.cells = append(f.cells, make([]cell, len(w.accs)))
	}
	return f
}

// emptyState is the state of a key without events.
func (f *windowFolder) emptyState(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, zeroState[:windowHeader]...)
	none := int64(noTime)
	binary.LittleEndian.PutUint64(dst[start:], uint64(none))
	putVersion(dst[start+8:], Version{EventTime: noTime})
	for range f.plan.windows {
		dst = append(dst, 0, 0)
	}
	return dst
}

// fold adds an event, whose values are in f.values, to a state as of now. The
// result is the state itself, changed in place, or a new one that is valid
// until the next call. Events that a delete covers and events older than every
// window change nothing.
func (f *windowFolder) fold(state []byte, at Version, deleted bool, now int64) (next []byte, changed bool) {
	if cut := getVersion(state[8:]); cut.EventTime != noTime && at.Compare(cut) <= 0 {
		return state, false
	}
	if deleted {
		return f.cut(state, at), true
	}
	newest := max(getTime(state), at.EventTime)
	if f.inPlace(state, at, now) {
		binary.LittleEndian.PutUint64(state, uint64(newest))
		return state, true
	}
	f.out = append(f.out[:0], state[:windowHeader]...)
	binary.LittleEndian.PutUint64(f.out, uint64(newest))
	rest := state[windowHeader:]
	for i := range f.plan.windows {
		rest = f.rewrite(&f.plan.windows[i], rest, at, now)
	}
	return f.out, true
}

// inPlace adds the event where its tiles are there and no state grows.
func (f *windowFolder) inPlace(state []byte, at Version, now int64) bool {
	pos := windowHeader
	for i := range f.plan.windows {
		w := &f.plan.windows[i]
		number := floorDiv(at.EventTime, w.hop)
		n := int(binary.LittleEndian.Uint16(state[pos:]))
		pos += 2
		f.tiles[i] = -1
		wanted := at.EventTime >= w.from(now)
		for range n {
			tile := getTime(state[pos:])
			if tile == number && wanted {
				f.tiles[i] = pos + 8
			}
			pos += 8
			for _, a := range w.accs {
				if tile == number && !a.keepsSize(state[pos:], f.value(a), at) {
					return false
				}
				pos += a.size(state[pos:])
			}
		}
		if wanted && f.tiles[i] < 0 {
			return false
		}
	}
	for i, pos := range f.tiles {
		if pos < 0 {
			continue
		}
		for _, a := range f.plan.windows[i].accs {
			a.addTo(state[pos:], f.value(a), at)
			pos += a.size(state[pos:])
		}
	}
	return true
}

func (f *windowFolder) value(a accumulator) *windowValue {
	if a.column < 0 {
		return nil
	}
	return &f.values[a.column]
}

// rewrite appends one window's tiles to f.out with the event added, without
// those that are out of reach, and returns what of the state is behind them.
func (f *windowFolder) rewrite(w *windowOf, rest []byte, at Version, now int64) []byte {
	head := len(f.out)
	f.out = append(f.out, 0, 0)
	least, number := floorDiv(now-w.length, w.hop), floorDiv(at.EventTime, w.hop)
	pending, kept := number >= least, 0
	n := int(binary.LittleEndian.Uint16(rest))
	rest = rest[2:]
	for range n {
		tile := getTime(rest)
		if pending && number < tile {
			f.freshTile(w, number, at)
			pending, kept = false, kept+1
		}
		size := w.tileSize(rest)
		switch {
		case tile == number && pending:
			f.extendTile(w, rest, at)
			pending, kept = false, kept+1
		case tile >= least:
			f.out = append(f.out, rest[:size]...)
			kept++
		}
		rest = rest[size:]
	}
	if pending {
		f.freshTile(w, number, at)
		kept++
	}
	binary.LittleEndian.PutUint16(f.out[head:], uint16(kept))
	return rest
}

func (w *windowOf) tileSize(b []byte) int {
	n := 8
	for _, a := range w.accs {
		n += a.size(b[n:])
	}
	return n
}

func (f *windowFolder) freshTile(w *windowOf, number int64, at Version) {
	f.out = binary.LittleEndian.AppendUint64(f.out, uint64(number))
	var room [64]byte
	for _, a := range w.accs {
		f.out = a.add(f.out, a.empty(room[:0]), f.value(a), at)
	}
}

func (f *windowFolder) extendTile(w *windowOf, tile []byte, at Version) {
	f.out = append(f.out, tile[:8]...)
	tile = tile[8:]
	for _, a := range w.accs {
		f.out = a.add(f.out, tile, f.value(a), at)
		tile = tile[a.size(tile):]
	}
}

// cut is a state after a delete: without the tiles up to that of the delete
// itself. What came before the delete and is newer than it, within its tile,
// goes too: a tile cannot be divided, and what is to be deleted must not stay.
func (f *windowFolder) cut(state []byte, at Version) []byte {
	f.out = append(f.out[:0], state[:windowHeader]...)
	putVersion(f.out[8:], at)
	newest, rest := int64(noTime), state[windowHeader:]
	for i := range f.plan.windows {
		w := &f.plan.windows[i]
		head, kept := len(f.out), 0
		f.out = append(f.out, 0, 0)
		n := int(binary.LittleEndian.Uint16(rest))
		rest = rest[2:]
		for range n {
			size := w.tileSize(rest)
			if getTime(rest) > floorDiv(at.EventTime, w.hop) {
				f.out = append(f.out, rest[:size]...)
				kept++
			}
			rest = rest[size:]
		}
		binary.LittleEndian.PutUint16(f.out[head:], uint16(kept))
		if kept > 0 {
			newest = getTime(state)
		}
	}
	binary.LittleEndian.PutUint64(f.out, uint64(newest))
	return f.out
}

// gather merges the tiles that the windows ending at t hold.
func (f *windowFolder) gather(state []byte, t int64) {
	for i := range f.cells {
		for j := range f.cells[i] {
			f.cells[i][j].reset()
		}
	}
	if state == nil {
		return
	}
	rest := state[windowHeader:]
	for i := range f.plan.windows {
		w := &f.plan.windows[i]
		least := floorDiv(t-w.length, w.hop)
		n := int(binary.LittleEndian.Uint16(rest))
		rest = rest[2:]
		for range n {
			inside := getTime(rest) >= least
			rest = rest[8:]
			for j, a := range w.accs {
				if inside {
					a.merge(&f.cells[i][j], rest)
				}
				rest = rest[a.size(rest):]
			}
		}
	}
}

// newestAt is the event_time of the newest event within the longest window, or
// noTime.
func (f *windowFolder) newestAt(state []byte, t int64) int64 {
	if state == nil {
		return noTime
	}
	if newest := getTime(state); newest >= f.plan.windows[0].from(t) {
		return newest
	}
	return noTime
}

// row writes the gathered values as a row of the view's layout: dst grows by a
// slot and its block.
func (f *windowFolder) row(dst, key []byte, v Version) []byte {
	l := f.plan.layout
	start := len(dst)
	for n := l.stride; n > 0; n -= len(zeroState) {
		dst = append(dst, zeroState[:min(n, len(zeroState))]...)
	}
	setSlotVersion(dst[start:], v, false)
	if l.keyWidth > 0 {
		copy(dst[start+l.keyAt:], key)
	} else {
		dst = append(dst, key...)
		l.setEnd(dst[start:], 0, len(key))
	}
	for i, o := range f.plan.outputs {
		c, a := &f.cells[o.window][o.acc], f.plan.windows[o.window].accs[o.acc]
		if sc := &l.columns[i]; sc.variable >= 0 {
			if c.present {
				dst = append(dst, c.text...)
			} else {
				setSlotNull(dst[start:], i)
			}
			l.setEnd(dst[start:], sc.variable, len(dst)-start-l.stride)
		} else if n, ok := a.result(c, o.function); ok {
			putFixed(dst[start+sc.at:], sc.typ.Elem, n)
		} else {
			setSlotNull(dst[start:], i)
		}
	}
	return dst
}

// appendTo adds the gathered value of one feature to a column.
func (f *windowFolder) appendTo(dst *event.Column, output int) {
	o := f.plan.outputs[output]
	c, a := &f.cells[o.window][o.acc], f.plan.windows[o.window].accs[o.acc]
	if fixedWidth(dst.Type) < 0 {
		if !c.present {
			dst.AppendNull()
			return
		}
		dst.AppendBytes(c.text)
		return
	}
	n, ok := a.result(c, o.function)
	if !ok {
		dst.AppendNull()
		return
	}
	appendNumber(dst, n)
	appendNotNull(dst)
}
