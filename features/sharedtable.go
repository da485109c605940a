package features

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/kedge-ml/kedge/event"
)

// A row is a string of its version as text, so that the server can compare it,
// the fingerprint of its layout, its slot and its block. Its key holds the
// entity's key in braces: all views' rows of one entity are in one slot of a
// cluster.
const (
	versionDigits = 72
	rowHead       = versionDigits + 8
)

// putScript stores a row unless there is a newer one. Versions are compared as
// text of fixed width: Lua's numbers are doubles. A row that is there already
// only stays longer.
//
//	KEYS[1] the row's key · ARGV[1] version · ARGV[2] row · ARGV[3] when it may go, ms; empty: never
const putScript = `
local old = redis.call('GETRANGE', KEYS[1], 0, 71)
if ARGV[1] > old then
  if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
  else redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3]) end
  return 1
end
if ARGV[1] == old then
  if ARGV[3] == '' then redis.call('PERSIST', KEYS[1])
  else redis.call('PEXPIREAT', KEYS[1], ARGV[3], 'GT') end
end
return 0`

// putTogether is how many rows one pipeline takes.
const putTogether = 1000

// sharedTable is the online table of one view in a [SharedStore].
type sharedTable struct {
	tableState
	store    *SharedStore
	uid      uint64
	current  atomic.Pointer[sharedLayout]
	written  atomic.Int64 // dials when the layout was stored last
	admitted sync.Mutex   // held while rows that became due are written
	closed   atomic.Bool
}

// sharedLayout is a layout and how others learn of it.
type sharedLayout struct {
	*layout
	fingerprint string
	text        string
}

func (s *SharedStore) table(uid uint64, schema *event.Schema) *sharedTable {
	t := &sharedTable{store: s, uid: uid}
	t.start(schema, 0)
	t.publish()
	return t
}

func (t *sharedTable) publish() {
	l := t.tableState.layout.Load()
	text := layoutText(l.schema)
	sum := sha256.Sum256(text)
	t.current.Store(&sharedLayout{l, string(sum[:8]), string(text)})
	t.written.Store(0)
	t.store.layouts.Store(string(sum[:8]), l)
}

// storedLayout is a layout as others read it.
type storedLayout struct {
	Keys   [][2]string `json:"keys"` // name, type
	Values [][2]string `json:"values"`
}

func layoutText(s *event.Schema) []byte {
	var out storedLayout
	for _, f := range s.Keys() {
		out.Keys = append(out.Keys, [2]string{f.Name, f.Type.String()})
	}
	for _, f := range s.Values() {
		out.Values = append(out.Values, [2]string{f.Name, f.Type.String()})
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // strings alone
	}
	return text
}

func parseLayout(text string) (*layout, error) {
	var in storedLayout
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, fmt.Errorf("read a stored layout: %w", err)
	}
	fields := func(list [][2]string) (out []event.Field, err error) {
		for _, f := range list {
			t := event.ColumnType{}
			if f[1] != t.String() {
				if t, err = event.ParseType(f[1]); err != nil {
					return nil, fmt.Errorf("read a stored layout: %w", err)
				}
			}
			out = append(out, event.Field{Name: f[0], Type: t})
		}
		return out, nil
	}
	keys, err := fields(in.Keys)
	if err != nil {
		return nil, err
	}
	values, err := fields(in.Values)
	if err != nil {
		return nil, err
	}
	return newLayout(event.NewSchema(event.Features, "", "", 0, keys, values)), nil
}

// redisKey is where the row of an encoded key is.
func (t *sharedTable) redisKey(key []byte) string {
	b := make([]byte, 0, len(t.store.cfg.Prefix)+base64.RawURLEncoding.EncodedLen(len(key))+24)
	b = append(append(b, t.store.cfg.Prefix...), ":{"...)
	b = base64.RawURLEncoding.AppendEncode(b, key)
	b = append(b, "}:"...)
	return unsafeString(strconv.AppendUint(b, t.uid, 10))
}

// text is the version as lower-case hexadecimal whose order is the version's.
func (v Version) text(dst []byte) []byte {
	var b [versionDigits / 2]byte
	binary.BigEndian.PutUint64(b[0:], uint64(v.EventTime)^1<<63)
	binary.BigEndian.PutUint64(b[8:], uint64(v.Created)^1<<63)
	binary.BigEndian.PutUint32(b[16:], uint32(v.Epoch)^1<<31)
	binary.BigEndian.PutUint32(b[20:], uint32(v.Partition)^1<<31)
	binary.BigEndian.PutUint64(b[24:], uint64(v.Offset)^1<<63)
	binary.BigEndian.PutUint32(b[32:], uint32(v.Index)^1<<31)
	return hex.AppendEncode(dst, b[:])
}

// apply writes a batch's rows. Those whose event_time is yet to come wait in
// this process, as in memory.
func (t *sharedTable) apply(ctx context.Context, b *event.Batch, now int64) error {
	if t.closed.Load() {
		return nil
	}
	w := t.writer(b.Schema)
	defer t.writers.Put(w)
	var puts []rueidis.LuaExec
	newest := int64(minTime)
	for row := range b.Rows {
		v := batchVersion(b, row)
		newest = max(newest, v.EventTime)
		w.encodeKey(b, row)
		w.encode(b, row, v)
		if v.EventTime > now {
			t.future.add(w, v)
			continue
		}
		puts = t.add(puts, w.layout, w.key, w.slot, w.block, v, now)
	}
	late, err := t.write(ctx, puts)
	if err == nil {
		t.count(b.Rows, late, newest)
	}
	return err
}

// add appends the call that stores a row. One that is older than the ttl by
// more than keepDead is left out, as memory evicts it.
func (t *sharedTable) add(puts []rueidis.LuaExec, l *layout, key, slot, block []byte, v Version, now int64) []rueidis.LuaExec {
	until := ""
	if ttl := t.ttl.Load(); ttl > 0 {
		at := v.EventTime + ttl + keepDead.Microseconds()
		if at <= now && at > v.EventTime {
			return puts
		}
		if at > v.EventTime { // no overflow
			until = strconv.FormatInt(at/1000, 10)
		}
	}
	shape := t.current.Load()
	if shape.layout != l { // the schema grew meanwhile
		converted := make([]byte, shape.stride)
		block = convertRow(l, shape.layout, slot, block, converted, nil)
		slot = converted
	}
	row := make([]byte, 0, rowHead+len(slot)+len(block))
	row = append(v.text(row), shape.fingerprint...)
	row = append(append(row, slot...), block...)
	text := unsafeString(row)
	return append(puts, rueidis.LuaExec{Keys: []string{t.redisKey(key)}, Args: []string{text[:versionDigits], text, until}})
}

// write sends rows and returns how many were older than what was there.
func (t *sharedTable) write(ctx context.Context, puts []rueidis.LuaExec) (late int64, err error) {
	if len(puts) == 0 {
		return 0, nil
	}
	c, err := t.store.connect()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, sharedWrite)
	defer cancel()
	if err := t.writeLayout(ctx, c); err != nil {
		return 0, err
	}
	for len(puts) > 0 {
		n := min(len(puts), putTogether)
		for _, r := range t.store.put.ExecMulti(ctx, c, puts[:n]...) {
			stored, err := r.AsInt64()
			if err != nil {
				return 0, away("write rows", err)
			}
			late += 1 - stored
		}
		puts = puts[n:]
	}
	return late, nil
}

// writeLayout tells other processes how the rows to come are laid out, once for
// every server that may have forgotten it.
func (t *sharedTable) writeLayout(ctx context.Context, c rueidis.Client) error {
	at, l := t.store.dials.Load(), t.current.Load()
	if t.written.Load() == at {
		return nil
	}
	if err := c.Do(ctx, c.B().Set().Key(t.store.layoutKey(l.fingerprint)).Value(l.text).Build()).Error(); err != nil {
		return away("write a layout", err)
	}
	t.written.Store(at)
	return nil
}

func (t *sharedTable) look(keys *Keys, _ int64, rows *Rows, r *Round) {
	r.store = t.store
	r.asks = append(r.asks, ask{t, keys, rows})
}

// admit writes the rows that became due.
func (t *sharedTable) admit(ctx context.Context, now int64) error {
	if now < t.future.due.Load() {
		return nil
	}
	t.admitted.Lock()
	defer t.admitted.Unlock()
	rows := t.future.take(now)
	var puts []rueidis.LuaExec
	for _, r := range rows {
		puts = t.add(puts, r.layout, r.key, r.slot, r.block, r.v, now)
	}
	_, err := t.write(ctx, puts)
	if err != nil {
		t.future.put(rows)
	}
	return err
}

// waitsUntil reports whether rows of up to an event_time still wait.
func (t *sharedTable) waitsUntil(at int64) bool {
	t.admitted.Lock()
	defer t.admitted.Unlock()
	return t.future.due.Load() <= at
}

func (t *sharedTable) tidy(ctx context.Context, now int64, _ time.Duration) error {
	return t.admit(ctx, now)
}

// Evolve changes how rows to come are laid out; those that are stored are
// rewritten as they are read.
func (t *sharedTable) Evolve(s *event.Schema) error {
	l, err := t.evolved(s)
	if l != nil {
		t.publish()
	}
	return err
}

// Stats counts what this process has seen: the rows are not its own.
func (t *sharedTable) Stats() (st Stats) {
	t.counts(&st)
	return st
}

// Close has the view's rows removed.
func (t *sharedTable) Close() {
	t.closed.Store(true)
	t.store.forget(t.uid)
}

func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
