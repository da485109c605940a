package chdb

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb's C interface (chdb.h). Strings go in with their length,
// results come back as opaque addresses that must be destroyed.
type library struct {
	version     func() string
	setSignals  func(enabled int32)
	connect     func(argc int32, argv unsafe.Pointer) *uintptr
	closeConn   func(conn *uintptr)
	query       func(conn uintptr, q unsafe.Pointer, n uint64, f unsafe.Pointer, fn uint64, names, nameLens, values, valueLens unsafe.Pointer, params uint64) uintptr
	stream      func(conn uintptr, q unsafe.Pointer, n uint64, f unsafe.Pointer, fn uint64, names, nameLens, values, valueLens unsafe.Pointer, params uint64) uintptr
	fetch       func(conn, stream uintptr) uintptr
	cancelQuery func(conn, stream uintptr)
	destroy     func(result uintptr)
	buffer      func(result uintptr) unsafe.Pointer
	length      func(result uintptr) uint64
	errorText   func(result uintptr) string
	rowsRead    func(result uintptr) uint64
	bytesRead   func(result uintptr) uint64
	rowsWritten func(result uintptr) uint64

	insert        func(conn uintptr, q unsafe.Pointer, n uint64, f unsafe.Pointer, fn uint64) uintptr
	insertError   func(stream uintptr) string
	append        func(stream uintptr, data unsafe.Pointer, n uint64) int32
	done          func(stream uintptr) uintptr
	cancelInsert  func(stream uintptr)
	destroyInsert func(stream uintptr)

	classify func(conn uintptr, q unsafe.Pointer, n uint64, db unsafe.Pointer, dn uint64, out unsafe.Pointer) int32
	backup   func(conn uintptr, db unsafe.Pointer, dn uint64, path unsafe.Pointer, pn uint64, base unsafe.Pointer, bn uint64) uintptr
	restore  func(conn uintptr, db unsafe.Pointer, dn uint64, path unsafe.Pointer, pn uint64) uintptr
}

// load opens the shared library. The system maps it once per process, however
// often it is loaded.
func load(path string) (*library, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load the embedded engine from %s: %w (fetch it with `make deps`, or name it with KEDGE_LIBCHDB)", path, err)
	}
	l := &library{}
	for name, fn := range l.symbols() {
		sym, err := purego.Dlsym(h, name)
		if err != nil {
			return nil, fmt.Errorf("load the embedded engine from %s: it lacks %s; want version 26.7.3 or newer: %w", path, name, err)
		}
		purego.RegisterFunc(fn, sym)
	}
	// The engine would replace Go's handlers for SIGINT, SIGTERM and SIGSEGV.
	l.setSignals(0)
	return l, nil
}

func (l *library) symbols() map[string]any {
	return map[string]any{
		"chdb_version":                     &l.version,
		"chdb_set_signal_handlers_enabled": &l.setSignals,
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_with_params_n":         &l.query,
		"chdb_stream_query_with_params_n":  &l.stream,
		"chdb_stream_fetch_result":         &l.fetch,
		"chdb_stream_cancel_query":         &l.cancelQuery,
		"chdb_destroy_query_result":        &l.destroy,
		"chdb_result_buffer":               &l.buffer,
		"chdb_result_length":               &l.length,
		"chdb_result_error":                &l.errorText,
		"chdb_result_storage_rows_read":    &l.rowsRead,
		"chdb_result_storage_bytes_read":   &l.bytesRead,
		"chdb_result_rows_written":         &l.rowsWritten,
		"chdb_stream_insert_n":             &l.insert,
		"chdb_stream_insert_error":         &l.insertError,
		"chdb_stream_append":               &l.append,
		"chdb_stream_done":                 &l.done,
		"chdb_stream_cancel_insert":        &l.cancelInsert,
		"chdb_destroy_insert_stream":       &l.destroyInsert,
		"chdb_classify_query_n":            &l.classify,
		"chdb_backup_database_n":           &l.backup,
		"chdb_restore_database_n":          &l.restore,
	}
}

// cArgs keeps Go strings in place while C reads them.
type cArgs struct {
	pins runtime.Pinner
	lens []uint64
	ptrs []unsafe.Pointer
}

// pinStrings lays strings out as C's array of pointers and array of lengths.
// A zero byte follows each, for the calls that take no lengths.
func pinStrings(strs []string) *cArgs {
	a := &cArgs{lens: make([]uint64, len(strs)), ptrs: make([]unsafe.Pointer, len(strs))}
	for i, s := range strs {
		b := append([]byte(s), 0)
		a.pins.Pin(&b[0])
		a.ptrs[i], a.lens[i] = unsafe.Pointer(&b[0]), uint64(len(s))
	}
	if len(strs) > 0 {
		a.pins.Pin(&a.lens[0])
		a.pins.Pin(&a.ptrs[0])
	}
	return a
}

func (a *cArgs) pointers() unsafe.Pointer {
	if len(a.ptrs) == 0 {
		return nil
	}
	return unsafe.Pointer(&a.ptrs[0])
}

func (a *cArgs) lengths() unsafe.Pointer {
	if len(a.lens) == 0 {
		return nil
	}
	return unsafe.Pointer(&a.lens[0])
}

func (a *cArgs) unpin() { a.pins.Unpin() }

// cBytes is the address of a string's bytes; the string must outlive the call.
func cBytes(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }
