package chdb

import (
	"context"
	"errors"
	"io"
	"strings"
	"unsafe"
)

// Statement is a SQL text with what belongs to it. Placeholders are written
// {name:Type}; their values travel beside the text, in the escapes of the
// engine's tab-separated format: see [EscapeParam].
type Statement struct {
	SQL      string
	Params   map[string]string
	Settings map[string]string
}

// EscapeParam writes a value as the engine reads parameters.
func EscapeParam(v string) string {
	return strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n", "\r", "\\r", "\x00", "\\0").Replace(v)
}

func (s Statement) params() (names, values *cArgs) {
	n, v := make([]string, 0, len(s.Params)), make([]string, 0, len(s.Params))
	for name, value := range s.Params {
		n, v = append(n, name), append(v, value)
	}
	return pinStrings(n), pinStrings(v)
}

// Exec runs a statement whose answer does not matter.
func (db *DB) Exec(ctx context.Context, s Statement) error {
	return db.with(ctx, s.Settings, func(h *handle) error {
		return h.whole(s, "Null", func([]byte) error { return nil })
	})
}

// Query runs a statement and hands its answer to sink in chunks, in the given
// output format ("Native": plain blocks of protocol revision 0). A chunk is
// valid only during the call. An error of sink stops the statement.
func (db *DB) Query(ctx context.Context, s Statement, format string, sink func([]byte) error) error {
	return db.with(ctx, s.Settings, func(h *handle) error { return h.query(ctx, s, format, sink) })
}

// with runs fn on a free handle whose settings are the given ones, and kills
// fn's statement when the context ends.
func (db *DB) with(ctx context.Context, settings map[string]string, fn func(*handle) error) error {
	return db.withIn(ctx, "", settings, fn)
}

// withIn is with, in another database than the handles' own.
func (db *DB) withIn(ctx context.Context, database string, settings map[string]string, fn func(*handle) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	defer db.release(h)
	if err := h.use(first(database, db.cfg.Database)); err != nil {
		return err
	}
	if err := h.apply(settings); err != nil {
		return err
	}
	stop := h.killOn(ctx)
	defer stop()
	err = fn(h)
	if err != nil {
		h.forget()
	}
	return because(ctx, err)
}

// withFresh runs fn on a session that nobody used before and nobody will use
// again. It does not count against the pool.
func (db *DB) withFresh(ctx context.Context, name string, fn func(*handle) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.busy.Done()
	h, err := db.connect(ctx, name)
	if err != nil {
		return err
	}
	defer h.close()
	stop := h.killOn(ctx)
	defer stop()
	return fn(h)
}

// query streams a SELECT; what the engine does not stream it answers whole.
func (h *handle) query(ctx context.Context, s Statement, format string, sink func([]byte) error) error {
	stream := h.startStream(s, format)
	defer h.db.lib.destroy(stream)
	err := ParseError(h.db.lib.errorText(stream))
	if notStreamed(err) {
		return h.single(s, format, sink)
	}
	if err != nil {
		return err
	}
	for {
		more, err := h.fetch(stream, sink)
		if err == nil && more {
			err = ctx.Err()
		}
		if err != nil {
			h.db.lib.cancelQuery(*h.conn, stream)
			return err
		}
		if !more {
			return nil
		}
	}
}

// notStreamed recognises what the engine answers to a statement other than a
// SELECT, before it does anything.
func notStreamed(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == 36 && strings.Contains(e.Message, "Streaming query is not supported")
}

// single runs a text of one statement; a server refuses several, too.
func (h *handle) single(s Statement, format string, sink func([]byte) error) error {
	if a := h.classify(s.SQL); a.Statements > 1 {
		return ParseError("Code: 62. DB::Exception: Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)")
	}
	return h.whole(s, format, sink)
}

// whole runs a statement and hands its answer over in one piece.
func (h *handle) whole(s Statement, format string, sink func([]byte) error) error {
	run := func() error {
		return h.db.defs.change(h, s.SQL, func() error { return h.atOnce(s, format, sink) })
	}
	if !writing.MatchString(s.SQL) {
		return run()
	}
	return h.db.writes.watch(h, run)
}

func (h *handle) atOnce(s Statement, format string, sink func([]byte) error) error {
	res := h.run(s, format)
	defer h.db.lib.destroy(res)
	if err := ParseError(h.db.lib.errorText(res)); err != nil {
		return err
	}
	if b := h.db.bytes(res); len(b) > 0 {
		return sink(b)
	}
	return nil
}

func (h *handle) fetch(stream uintptr, sink func([]byte) error) (more bool, err error) {
	res := h.db.lib.fetch(*h.conn, stream)
	if res == 0 {
		return false, nil
	}
	defer h.db.lib.destroy(res)
	if err := ParseError(h.db.lib.errorText(res)); err != nil {
		return false, err
	}
	b := h.db.bytes(res)
	if len(b) == 0 {
		return false, nil
	}
	return true, sink(b)
}

// Insert runs an INSERT (without its FORMAT clause) on the data that fill
// writes, in the given input format. The engine copies what is written. An
// error of fill, or a context that ends meanwhile, stores nothing; an error
// that comes later leaves open whether the data was stored.
func (db *DB) Insert(ctx context.Context, s Statement, format string, fill func(io.Writer) error) (rows uint64, err error) {
	err = db.with(ctx, s.Settings, func(h *handle) error {
		rows, err = h.insert(ctx, s.SQL, format, fill)
		return err
	})
	return rows, err
}

func (h *handle) insert(ctx context.Context, sql, format string, fill func(io.Writer) error) (rows uint64, err error) {
	err = h.db.writes.watch(h, func() (err error) {
		rows, err = h.insertBlind(ctx, sql, format, fill)
		return err
	})
	return rows, err
}

func (h *handle) insertBlind(ctx context.Context, sql, format string, fill func(io.Writer) error) (uint64, error) {
	lib := h.db.lib
	h.db.cfg.Statements(sql)
	in := lib.insert(*h.conn, cBytes(sql), uint64(len(sql)), cBytes(format), uint64(len(format)))
	defer lib.destroyInsert(in)
	if err := ParseError(lib.insertError(in)); err != nil {
		return 0, err
	}
	w := &insertWriter{ctx: ctx, lib: lib, stream: in}
	err := fill(w)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil && !w.stopped {
		lib.cancelInsert(in)
		return 0, err
	}
	res := lib.done(in)
	defer lib.destroy(res)
	if engine := ParseError(lib.errorText(res)); engine != nil {
		return 0, engine
	}
	return lib.rowsWritten(res), err
}

// insertWriter appends to an insert stream. A full queue blocks it.
type insertWriter struct {
	ctx     context.Context
	lib     *library
	stream  uintptr
	stopped bool // the engine takes no more; its reason comes with the stream's end
}

var errEngineStopped = errors.New("the engine stopped the insert")

// Write implements io.Writer.
func (w *insertWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	if w.lib.append(w.stream, unsafe.Pointer(&b[0]), uint64(len(b))) != 0 {
		w.stopped = true
		return 0, errEngineStopped
	}
	return len(b), nil
}
