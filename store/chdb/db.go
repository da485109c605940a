// Package chdb runs the ClickHouse engine inside this process, through the C
// interface of libchdb, and serves it over ClickHouse's HTTP interface.
//
// Holds: the library binding, a pool of engine handles (one statement runs per
// handle), the HTTP handler, the check of the read-only port.
//
// Promises: Go keeps its signal handlers; a cancelled context stops the
// statement; an insert whose data ends early stores nothing; errors carry the
// ClickHouse code. Works with and without cgo.
//
// May not: know tables, schemas or events.
package chdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// Config says which engine to open and how much of the machine it may take.
type Config struct {
	LibPath   string            // libchdb.so
	DataDir   string            // created when missing; one process at a time
	Database  string            // created when missing; handles start in it. Never "default": there an unknown table name opens a file
	Handles   int               // statements that may run at once; more wait
	MaxMemory int64             // bytes the whole engine may take; 0 is the engine's own choice, 90 % of the machine
	Settings  map[string]string // session settings every handle starts with
	Objects   []Objects         // whose keys the engine has
	Volumes   []Volume          // where rows that have aged may go, beside the data directory
	Log       *slog.Logger      // what was mended; nil: nobody hears of it
	// Statements is told the text of every statement as the engine gets it,
	// without parameters and data, which travel beside it: libchdb writes no
	// query log. It may be called from many goroutines; nil: nobody is told.
	Statements func(sql string)

	bare  bool // definitions are neither kept nor put back: tests see what for
	blind bool // failed writes are not looked for: the same
}

// Objects are keys to object storage. Statements name them as a named collection; the
// keys themselves are a part of the engine's configuration, in memory alone, which no
// statement, definition or file has and no statement shows.
type Objects struct {
	Name                 string // of the collection: letters, digits and _
	AccessKey, SecretKey string
}

// DefaultConfig leaves out the paths.
func DefaultConfig() Config {
	return Config{Database: "kedge", Handles: 8, MaxMemory: 2 << 30}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.LibPath == "" {
		errs = append(errs, errors.New("no path of libchdb.so given"))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("no data directory given"))
	}
	if c.Database == "" || c.Database == "default" {
		errs = append(errs, fmt.Errorf("database %q: want an own one, since the engine opens unknown tables of \"default\" as files", c.Database))
	}
	if c.Handles < 1 {
		errs = append(errs, fmt.Errorf("%d handles: want at least 1", c.Handles))
	}
	for i, v := range c.Volumes {
		errs = append(errs, v.Validate())
		if slices.ContainsFunc(c.Volumes[:i], func(w Volume) bool { return w.Name == v.Name || w.Path == v.Path }) {
			errs = append(errs, fmt.Errorf("volume %s: another one has the name or the path", v.Name))
		}
	}
	return errors.Join(errs...)
}

// DB is an open engine. Its methods may be called from many goroutines.
type DB struct {
	cfg    Config
	lib    *library
	lock   *os.File
	defs   *definitions
	writes *writes
	args   []string
	pool   chan *handle // free handles
	closed chan struct{}
	life   sync.RWMutex   // orders the closing against new statements
	busy   sync.WaitGroup // statements under way

	controlMu sync.Mutex
	control   *handle // kills statements; never waits behind them
}

// Open loads the library and opens the data directory. It fails with
// [ErrLocked] when the directory is open already. A process has one engine:
// a second directory can be opened only after the first is closed.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	cfg.DataDir = dir
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Statements == nil {
		cfg.Statements = func(string) {}
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, lock: lock, defs: newDefinitions(cfg), pool: make(chan *handle, cfg.Handles), closed: make(chan struct{})}
	db.writes = newWrites(db)
	if err := db.start(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) (err error) {
	if db.lib, err = load(db.cfg.LibPath); err != nil {
		return err
	}
	if err := db.cfg.readyVolumes(); err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	}
	if err := db.defs.ready(db.cfg.Database); err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	}
	if err := db.writes.ready(); err != nil {
		return err
	}
	if db.args, err = db.connectArgs(); err != nil {
		return err
	}
	if db.control, err = db.connect(ctx, "control"); err != nil {
		return err
	}
	for i := range db.cfg.Handles {
		h, err := db.connect(ctx, strconv.Itoa(i))
		if err != nil {
			return err
		}
		db.pool <- h
	}
	return db.writes.start()
}

func (db *DB) connectArgs() ([]string, error) {
	keep, _, _, err := reserve(db.cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	volumes, err := db.cfg.volumeArgs()
	if err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	args := []string{"kedge", "--path=" + filepath.Join(db.cfg.DataDir, "engine")}
	if db.cfg.MaxMemory > 0 {
		args = append(args, "--max_server_memory_usage="+strconv.FormatInt(db.cfg.MaxMemory, 10))
	}
	args = append(args, "--backups.allowed_path="+filepath.Join(db.cfg.DataDir, "backups"),
		"--storage_configuration.disks.default.keep_free_space_bytes="+strconv.FormatInt(keep, 10))
	args = append(args, volumes...)
	if !db.cfg.blind {
		args = append(args, "--merge_tree.old_parts_lifetime="+strconv.Itoa(int(sourcesKept.Seconds())))
	}
	for _, o := range db.cfg.Objects {
		at := "--named_collections." + o.Name + "."
		args = append(args, at+"access_key_id="+o.AccessKey, at+"secret_access_key="+o.SecretKey)
	}
	base := map[string]string{"session_timezone": "UTC", "allow_introspection_functions": "0", "implicit_select": "0"}
	for _, set := range []map[string]string{base, db.cfg.Settings} {
		for k, v := range set {
			args = append(args, "--"+k+"="+v)
		}
	}
	return args, nil
}

// lockDir makes the directory and holds its lock file.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, "backups"), 0o750); err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	path := filepath.Join(dir, "engine.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the embedded engine: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("open the embedded engine: %w: %s is held by another kedge (stop it, or choose another --data-dir)", ErrLocked, path)
	}
	return f, nil
}

// connect makes one handle: a session of its own, in the DB's database.
func (db *DB) connect(ctx context.Context, name string) (*handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := db.dial(nil)
	if err != nil {
		return nil, err
	}
	h := &handle{db: db, conn: conn, name: name, current: db.cfg.Database, applied: map[string]string{}}
	for _, q := range []string{
		"CREATE DATABASE IF NOT EXISTS " + QuoteIdent(db.cfg.Database),
		"USE " + QuoteIdent(db.cfg.Database),
		"SET log_comment = " + QuoteString(h.comment()),
	} {
		if err := h.exec(q); err != nil {
			h.close()
			return nil, fmt.Errorf("open the embedded engine: %w", err)
		}
	}
	return h, nil
}

func (db *DB) dial(extra []string) (*uintptr, error) {
	args := pinStrings(append(append([]string{}, db.args...), extra...))
	defer args.unpin()
	conn := db.lib.connect(int32(len(args.ptrs)), args.pointers())
	if conn == nil || *conn == 0 {
		return nil, fmt.Errorf("open the embedded engine in %s: it refused; another engine may be open in this process, the directory may be damaged or not writable, or a setting invalid (the engine's own words are on stderr)", db.cfg.DataDir)
	}
	return conn, nil
}

// Version is the library's version, "26.7.3".
func (db *DB) Version() string { return db.lib.version() }

// Database is the database that handles start in.
func (db *DB) Database() string { return db.cfg.Database }

// enter counts a statement in, unless the DB is closed.
func (db *DB) enter() error {
	db.life.RLock()
	defer db.life.RUnlock()
	select {
	case <-db.closed:
		return ErrClosed
	default:
		db.busy.Add(1)
		return nil
	}
}

// acquire waits for a free handle.
func (db *DB) acquire(ctx context.Context) (*handle, error) {
	if err := db.enter(); err != nil {
		return nil, err
	}
	select {
	case h := <-db.pool:
		return h, nil
	case <-ctx.Done():
		db.busy.Done()
		return nil, fmt.Errorf("wait for a free engine handle: %w", context.Cause(ctx))
	}
}

// release gives a handle back; a broken one is replaced.
func (db *DB) release(h *handle) {
	defer db.busy.Done()
	if h.broken {
		fresh, err := db.connect(context.Background(), h.name)
		if err == nil {
			h.close()
			h = fresh
		}
	}
	db.pool <- h
}

// Close waits for statements under way and closes the engine, after which the
// directory can be opened again. Cancel their contexts to make it quick.
func (db *DB) Close() error {
	if !db.shut() {
		return nil
	}
	db.writes.stop()
	db.busy.Wait()
	for len(db.pool) > 0 {
		(<-db.pool).close()
	}
	if db.control != nil {
		db.control.close()
	}
	return db.lock.Close()
}

// shut lets no further statement in; it reports whether it was the first to.
func (db *DB) shut() bool {
	db.life.Lock()
	defer db.life.Unlock()
	select {
	case <-db.closed:
		return false
	default:
		close(db.closed)
		return true
	}
}

// Backup writes a database into one archive file, which must not exist, must
// lie under [DB.BackupDir] and end in .tar or .tar.zst. With base, another
// archive, it holds only what changed since then.
func (db *DB) Backup(ctx context.Context, database, path, base string) error {
	if !strings.HasSuffix(path, ".tar") && !strings.HasSuffix(path, ".tar.zst") {
		return fmt.Errorf("back up database %s: the file name %s must end in .tar or .tar.zst", database, path)
	}
	return db.archive(ctx, "back up", database, path, func(conn uintptr) uintptr {
		return db.lib.backup(conn, cBytes(database), uint64(len(database)), cBytes(path), uint64(len(path)), cBytes(base), uint64(len(base)))
	})
}

// Restore reads an archive that [DB.Backup] wrote, into a database that does
// not hold its tables yet.
func (db *DB) Restore(ctx context.Context, database, path string) error {
	if err := db.defs.hasRoom(); err != nil {
		return fmt.Errorf("restore database %s (%s): %w", database, path, err)
	}
	err := db.archive(ctx, "restore", database, path, func(conn uintptr) uintptr {
		return db.lib.restore(conn, cBytes(database), uint64(len(database)), cBytes(path), uint64(len(path)))
	})
	if _, _, wrong := db.defs.look(); err == nil && wrong != nil {
		err = fmt.Errorf("restore database %s (%s): %w", database, path, wrong)
	}
	return err
}

// BackupDir is the only directory that archives may lie in.
func (db *DB) BackupDir() string { return filepath.Join(db.cfg.DataDir, "backups") }

func (db *DB) archive(ctx context.Context, verb, database, path string, call func(conn uintptr) uintptr) error {
	h, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	defer db.release(h)
	stop := h.killOn(ctx)
	res := call(*h.conn)
	stop()
	defer db.lib.destroy(res)
	if err := ParseError(db.lib.errorText(res)); err != nil {
		return fmt.Errorf("%s database %s (%s): %w", verb, database, path, because(ctx, err))
	}
	return nil
}

// Class says what a statement does.
type Class uint32

// Classes, ascending by how restricted the statement is.
const (
	ReadOnly Class = iota
	Mutating
	MutatingGlobal
	Control
	Unparsed
)

// Analysis is what the engine's own parser says about a text.
type Analysis struct {
	Class      Class
	Statements int
	HasSecrets bool
}

// Classify parses a text without running it.
func (db *DB) Classify(ctx context.Context, sql string) (Analysis, error) {
	h, err := db.acquire(ctx)
	if err != nil {
		return Analysis{}, err
	}
	defer db.release(h)
	return h.classify(sql), nil
}

func (h *handle) classify(sql string) Analysis {
	out := [4]uint32{16, 0, 0, uint32(Unparsed)} // struct_size, statement_count, flags, query_class
	if h.db.lib.classify(*h.conn, cBytes(sql), uint64(len(sql)), nil, 0, unsafe.Pointer(&out)) != 0 {
		return Analysis{Class: Unparsed}
	}
	return Analysis{Class: Class(out[3]), Statements: int(out[1]), HasSecrets: out[2]&1 != 0}
}
