package chdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// writes notices writes that failed and that the engine says nothing of.
//
// A server answers a failed write() with error 75. This engine counts it among
// its events and goes on: a statement is answered "done" whose part is cut, and
// whose rows are gone when the part is loaded the next time. So the count is
// read after every statement that writes. When it has grown,
//
//   - tables whose parts are new, or being merged, are loaded anew, which puts
//     cut parts aside. Merges since the count was last seen to stand still are
//     undone before, for they were written badly, or read a cut part, which
//     merges take without a word; what they replaced is still there (sourcesKept);
//   - the statement is an error.
//
// Merges answer to nobody, so the count is read every second, too. When the
// process dies before that, opening undoes the merges since it was read last.
type writes struct {
	db   *DB
	log  *slog.Logger
	bare bool

	failed atomic.Uint64 // as last read; at most what it is now
	stood  atomic.Int64  // Unix nanoseconds: no write had failed by then that failed does not count

	mu     sync.Mutex // held by who mends
	mended time.Time  // when the last mending began

	ended sync.WaitGroup
}

const (
	failedWriteCode = 75 // ClickHouse's CANNOT_WRITE_TO_FILE_DESCRIPTOR

	// lookEvery is how often the count is read while nobody writes.
	lookEvery = time.Second

	// sourcesKept is how long the engine keeps parts after their merge: long
	// enough to see that the merge was written badly.
	sourcesKept = time.Minute

	// slack is by how much the time of a part's folder may be before its last
	// write, and a clock be coarse.
	slack = 2 * time.Second
)

// An engine with the analyzer takes three times as long to answer this.
const countFailed = "SELECT value FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteFailed' SETTINGS enable_analyzer = 0, max_threads = 1"

var writing = regexp.MustCompile(leading + `(?:INSERT|CREATE|ALTER|OPTIMIZE|DELETE|UPDATE|REPLACE|ATTACH)\b`)

func newWrites(db *DB) *writes {
	return &writes{db: db, log: db.cfg.Log, bare: db.cfg.bare || db.cfg.blind}
}

// looked is the file whose time is that of the last look.
func (w *writes) looked() string { return filepath.Join(w.db.cfg.DataDir, "engine.looked") }

// ready undoes, before the engine opens, the merges of a process that died
// without another look. Parts that are cut the engine puts aside itself.
func (w *writes) ready() error {
	st, err := os.Stat(w.looked())
	if w.bare || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	}
	tables, err := w.db.cfg.tableFolders()
	if err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	}
	for _, dirs := range tables {
		undone, err := undo(dirs, st.ModTime().Add(-slack))
		if err != nil {
			return fmt.Errorf("open the embedded engine: undo its last merges: %w", err)
		}
		if len(undone) > 0 {
			w.log.Info("the last merges are done again, since nobody looked at how they were written", "folders", dirs, "parts", undone)
		}
	}
	return nil
}

// start takes the count as it is: what failed before is found by opening.
func (w *writes) start() error {
	if w.bare {
		return nil
	}
	n, err := countFailures(w.db.control)
	if err != nil {
		return fmt.Errorf("open the embedded engine: count failed writes: %w", err)
	}
	w.failed.Store(n)
	if f, err := os.OpenFile(w.looked(), os.O_CREATE, 0o640); err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	} else if err := f.Close(); err != nil {
		return fmt.Errorf("open the embedded engine: %w", err)
	}
	w.stands(time.Now())
	w.ended.Go(w.run)
	return nil
}

// stands notes that nothing had failed by a time that is not mended.
func (w *writes) stands(at time.Time) {
	w.stood.Store(at.UnixNano())
	if err := os.Chtimes(w.looked(), at, at); err != nil {
		w.log.Warn("note when failed writes were looked for", "error", err)
	}
}

// stop waits for the look that is under way.
func (w *writes) stop() { w.ended.Wait() }

// watch runs a statement that writes, and fails when a write failed meanwhile.
// What the statement did is then open.
func (w *writes) watch(h *handle, run func() error) error {
	if w.bare {
		return run()
	}
	before := w.failed.Load()
	if err := run(); err != nil {
		return err
	}
	done := time.Now()
	now, err := countFailures(h)
	if err != nil {
		return fmt.Errorf("ask whether all was written: %w", err)
	}
	if now == before {
		w.stood.Store(done.UnixNano())
		return nil
	}
	err = w.mend(done)
	return errors.Join(&Error{Code: failedWriteCode, Name: "CANNOT_WRITE_TO_FILE_DESCRIPTOR", Message: fmt.Sprintf(
		"Code: %d. DB::Exception: A write to the disk of %s failed while the statement ran: parts that are cut were put aside, and what they held is not stored. "+
			"Look at the disk, and at what is stored, before you try again. (CANNOT_WRITE_TO_FILE_DESCRIPTOR)", failedWriteCode, w.db.cfg.DataDir)}, err)
}

func countFailures(h *handle) (n uint64, err error) {
	err = h.atOnce(Statement{SQL: countFailed}, "TabSeparated", func(b []byte) error {
		n, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return err
	})
	return n, err
}

// mend loads tables anew that a write may concern which failed before a time.
func (w *writes) mend(before time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mended.After(before) {
		return nil
	}
	began, since := time.Now(), time.Unix(0, w.stood.Load()).Add(-slack)
	err := w.db.withFresh(context.Background(), "mend", func(h *handle) error {
		now, err := countFailures(h) // first: what fails from here on is looked for again
		if err != nil {
			return err
		}
		tables, err := suspects(h, since)
		if err != nil {
			return err
		}
		for _, t := range tables {
			err = errors.Join(err, w.reload(h, t, since))
		}
		w.tell(h, tables, since)
		if err == nil {
			w.failed.Store(now)
			w.mended = began
			w.stands(began)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("load tables anew after a failed write: %w", err)
	}
	return nil
}

// suspect is a table that a failed write may concern.
type suspect struct {
	name  string
	paths []string // its folders
}

// suspects are the tables with parts since a time, or with parts being merged.
func suspects(h *handle, since time.Time) (out []suspect, err error) {
	sql := fmt.Sprintf(`SELECT DISTINCT concat(database, '\t', table) FROM (
  SELECT database, table FROM system.parts WHERE active AND toUnixTimestamp(modification_time) >= %d UNION ALL SELECT database, table FROM system.merges)
WHERE database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')`, since.Unix())
	lines, err := h.lines(Statement{SQL: sql})
	for _, l := range lines {
		database, table, _ := strings.Cut(l, "\t")
		paths, e := h.lines(Statement{SQL: "SELECT arrayJoin(data_paths) FROM system.tables WHERE database = " + QuoteString(database) + " AND name = " + QuoteString(table)})
		err = errors.Join(err, e)
		if len(paths) > 0 {
			out = append(out, suspect{QuoteIdent(database) + "." + QuoteIdent(table), paths})
		}
	}
	return out, err
}

// tell says which parts were put aside of late.
func (w *writes) tell(h *handle, tables []suspect, since time.Time) {
	aside, err := h.lines(Statement{SQL: fmt.Sprintf("SELECT concat(database, '.', table, '/', name) FROM system.detached_parts WHERE startsWith(reason, 'broken') AND toUnixTimestamp(modification_time) >= %d", since.Unix())})
	w.log.Error("a write of the engine failed: the disk is full or faulty; tables were loaded anew", "tables", tables, "parts put aside", aside, "error", err)
}

// run reads the count now and then, until the engine is closed.
func (w *writes) run() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.db.closed:
			return
		}
		if err := w.look(); err != nil && !errors.Is(err, ErrClosed) {
			w.log.Error("look for failed writes", "error", err)
		}
	}
}

func (w *writes) look() error {
	var now uint64
	asked := time.Now()
	err := w.db.with(context.Background(), nil, func(h *handle) (err error) {
		now, err = countFailures(h)
		return err
	})
	if err != nil {
		return err
	}
	if now != w.failed.Load() {
		return w.mend(time.Now())
	}
	w.stands(asked)
	return nil
}

func (w *writes) reload(h *handle, t suspect, since time.Time) error {
	return h.loadAnew(t.name, func() error {
		undone, err := undo(t.paths, since)
		if len(undone) > 0 {
			w.log.Warn("merges during which a write failed are undone", "table", t.name, "parts", undone)
		}
		return err
	})
}

// part is a part's folder, PARTITION_MIN_MAX_LEVEL or, with the number of a
// mutation, PARTITION_MIN_MAX_LEVEL_VERSION.
type part struct {
	dir               string // the table's folder that it is in
	folder, partition string
	min, max          int64
	level             int64
	version           int64
}

var partName = regexp.MustCompile(`^([^_]+)_(\d+)_(\d+)_(\d+)(?:_(\d+))?$`)

func parsePart(folder string) (p part, ok bool) {
	m := partName.FindStringSubmatch(folder)
	if m == nil {
		return p, false
	}
	p.folder, p.partition = folder, m[1]
	for i, to := range []*int64{&p.min, &p.max, &p.level, &p.version} {
		*to, _ = strconv.ParseInt(m[2+i], 10, 64) // digits, or no version
	}
	return p, true
}

// from reports whether a part replaced another.
func (p part) from(q part) bool {
	return p.folder != q.folder && p.partition == q.partition && p.min <= q.min && q.max <= p.max && p.level >= q.level && p.version >= q.version
}

// undo removes the parts of a table that is not loaded which were made since a
// time from parts that are still there, in whichever of the table's folders.
func undo(dirs []string, since time.Time) (undone []string, err error) {
	var all []part
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if p, ok := parsePart(e.Name()); ok {
				p.dir = dir
				all = append(all, p)
			}
		}
	}
	for _, p := range all {
		st, err := os.Stat(p.path())
		if err != nil {
			return nil, err
		}
		if !st.ModTime().Before(since) && p.canBeMadeAgain(all) {
			undone = append(undone, p.path())
		}
	}
	for i, path := range undone {
		if err := os.RemoveAll(path); err != nil {
			return undone, err
		}
		undone[i] = filepath.Base(path)
	}
	return undone, nil
}

func (p part) path() string { return filepath.Join(p.dir, p.folder) }

// canBeMadeAgain reports whether all of what a part was made from by a merge is
// there: parts with as many rows. Neither an empty part that stands for dropped
// rows nor what a mutation made is such a part.
func (p part) canBeMadeAgain(all []part) bool {
	from := slices.DeleteFunc(slices.Clone(all), func(q part) bool { return !p.from(q) })
	var rows int64
	for i, q := range from {
		if slices.ContainsFunc(from, func(r part) bool { return r.from(q) }) {
			continue // of an earlier merge
		}
		if slices.ContainsFunc(from[:i], func(r part) bool { return r.folder == q.folder }) {
			continue // the same part, being moved to another volume
		}
		if q.min == p.min && q.max == p.max && q.version < p.version {
			return false // a mutation: undone, the rows that it dropped would be back until it is done again
		}
		n, ok := rowsOf(q.path())
		if !ok {
			return false
		}
		rows += n
	}
	n, ok := rowsOf(p.path())
	return ok && len(from) > 0 && n == rows
}

func rowsOf(folder string) (int64, bool) {
	text, err := os.ReadFile(filepath.Join(folder, "count.txt"))
	n, wrong := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil && wrong == nil
}
