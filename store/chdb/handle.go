package chdb

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// handle is one engine session. One goroutine uses it at a time.
type handle struct {
	db      *DB
	conn    *uintptr
	name    string
	current string            // database
	applied map[string]string // settings this session differs in from a fresh one
	broken  bool
}

// forget makes the session let go of a statement that failed: until its next
// one it holds what that used, and a table that is held cannot be loaded anew,
// which the statements wait for that would come next.
func (h *handle) forget() {
	_ = h.exec("SELECT 1") // a session that cannot do this is told so by whoever uses it next
}

// comment marks the session's statements in system.processes, so that they can
// be found and killed.
func (h *handle) comment() string { return "kedge-handle-" + h.name }

func (h *handle) close() { h.db.lib.closeConn(h.conn) }

// exec runs a statement without an answer.
func (h *handle) exec(sql string) error {
	res := h.run(Statement{SQL: sql}, "Null")
	defer h.db.lib.destroy(res)
	return ParseError(h.db.lib.errorText(res))
}

func (h *handle) run(s Statement, format string) uintptr {
	h.db.cfg.Statements(s.SQL)
	names, values := s.params()
	defer names.unpin()
	defer values.unpin()
	return h.db.lib.query(*h.conn, cBytes(s.SQL), uint64(len(s.SQL)), cBytes(format), uint64(len(format)),
		names.pointers(), names.lengths(), values.pointers(), values.lengths(), uint64(len(names.ptrs)))
}

func (h *handle) startStream(s Statement, format string) uintptr {
	h.db.cfg.Statements(s.SQL)
	names, values := s.params()
	defer names.unpin()
	defer values.unpin()
	return h.db.lib.stream(*h.conn, cBytes(s.SQL), uint64(len(s.SQL)), cBytes(format), uint64(len(format)),
		names.pointers(), names.lengths(), values.pointers(), values.lengths(), uint64(len(names.ptrs)))
}

// apply makes the session's settings those of want: what the statement before
// left over goes back to its start value. A handle that fails here is not used
// again, since nobody knows what it holds.
func (h *handle) apply(want map[string]string) error {
	if maps.Equal(h.applied, want) {
		return nil
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := h.applied[k]; !ok || v != want[k] {
			parts = append(parts, QuoteIdent(k)+" = "+QuoteString(want[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(h.applied)) {
		if _, ok := want[k]; !ok {
			parts = append(parts, QuoteIdent(k)+" = "+h.initial(k))
		}
	}
	if err := h.exec("SET " + strings.Join(parts, ", ")); err != nil {
		h.broken = true
		return err
	}
	h.applied = maps.Clone(want)
	return nil
}

// use changes the session's database.
func (h *handle) use(database string) error {
	if h.current == database {
		return nil
	}
	if err := h.exec("USE " + QuoteIdent(database)); err != nil {
		return err
	}
	h.current = database
	return nil
}

// initial is the value a fresh session starts with, as SET spells it.
func (h *handle) initial(setting string) string {
	for _, a := range h.db.args {
		if v, ok := strings.CutPrefix(a, "--"+setting+"="); ok {
			return QuoteString(v)
		}
	}
	return "DEFAULT"
}

// killOn kills the handle's statement when the context ends. The returned
// function ends the watch and waits for it, so that a late kill cannot meet
// the handle's next statement.
func (h *handle) killOn(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	cancelled := context.AfterFunc(ctx, func() {
		defer close(ended)
		h.killUntil(done)
	})
	return func() {
		close(done)
		if !cancelled() {
			<-ended
		}
	}
}

// killUntil repeats the kill, for the statement may not be in the engine's
// list yet.
func (h *handle) killUntil(done <-chan struct{}) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-done:
			return
		default:
		}
		h.db.kill(h.comment())
		select {
		case <-done:
			return
		case <-time.After(wait):
		}
	}
}

func (db *DB) kill(comment string) {
	db.controlMu.Lock()
	defer db.controlMu.Unlock()
	// Its error has no reader: the statement may have ended by itself.
	_ = db.control.exec("KILL QUERY WHERE Settings['log_comment'] = " + QuoteString(comment) + " ASYNC")
}

// bytes views a result's data; it is valid until the result is destroyed.
func (db *DB) bytes(res uintptr) []byte {
	n := db.lib.length(res)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(db.lib.buffer(res)), n)
}

// QuoteIdent writes a name as a backquoted identifier.
func QuoteIdent(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(s) + "`"
}

// QuoteString writes a value as a string literal.
func QuoteString(s string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(s) + "'"
}
