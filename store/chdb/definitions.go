package chdb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// definitions keeps whole copies of the files that define the engine's tables,
// and puts them back.
//
// The engine forgets the error of writing such a file: on a full disk ALTER and
// CREATE answer "done" and leave an empty file, or a cut one, in place of the
// definition, with which the engine never opens again. So
//
//   - what writes a definition is refused while the disk has less than a
//     reserve free, which rows, parts and merges never take (reserve);
//   - no definition changes before a copy of all of them is made;
//   - after each change every file is looked at; a cut one is replaced by its
//     copy, the table is loaded anew from it, and the change is an error;
//   - the same is done before the engine opens, for a process may die between.
type definitions struct {
	data string // the data directory; the engine's is in it, and the copies
	log  *slog.Logger
	bare bool         // does nothing
	room func() error // fails when the disk has no room for a definition; nil only in tests

	mu       sync.Mutex
	restored uint64 // how many cut files were replaced; a change that saw another number failed
}

// noSpaceCode is ClickHouse's NOT_ENOUGH_SPACE.
const noSpaceCode = 243

// reserve is what the engine leaves free of a file system of a size: a
// twentieth, at most 64 MiB. The last quarter of it is needed to change a
// definition.
func reserve(dir string) (rows, definition, free int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	rows = min(64<<20, int64(s.Blocks)*int64(s.Bsize)/20)
	return rows, rows / 4, int64(s.Bavail) * int64(s.Bsize), nil
}

func newDefinitions(cfg Config) *definitions {
	d := &definitions{data: cfg.DataDir, log: cfg.Log, bare: cfg.bare}
	d.room = d.hasRoom
	return d
}

// hasRoom fails when the disk has no room for a definition.
func (d *definitions) hasRoom() error {
	_, want, free, err := reserve(d.data)
	if err != nil || free >= want {
		return err
	}
	return d.noSpace(fmt.Sprintf("%d bytes are free, changing a definition wants %d", free, want))
}

func (d *definitions) noSpace(what string) error {
	return &Error{Code: noSpaceCode, Name: "NOT_ENOUGH_SPACE", Message: fmt.Sprintf(
		"Code: %d. DB::Exception: Not enough space on the disk of %s: %s; nothing was changed. Make space and try again. (NOT_ENOUGH_SPACE)", noSpaceCode, d.data, what)}
}

var (
	leading = `(?is)^(?:\s|--[^\n]*\n|/\*.*?\*/)*`
	grows   = regexp.MustCompile(leading + `(?:CREATE|ALTER|RENAME|EXCHANGE|ATTACH|UNDROP|REPLACE|DELETE|UPDATE)\b`)
	drops   = regexp.MustCompile(leading + `DROP\b`)
)

// change runs a statement; one that writes definitions, by the rules above.
func (d *definitions) change(h *handle, sql string, run func() error) error {
	writes := grows.MatchString(sql)
	if d.bare || !writes && !drops.MatchString(sql) {
		return run()
	}
	before, err := d.settle(h)
	if err == nil && writes && d.room != nil {
		err = d.room()
	}
	if err != nil && writes {
		return err
	}
	failed := run()
	after, err := d.settle(h)
	switch {
	case after != before:
		return errors.Join(d.noSpace("a definition could not be written, and was put back as it was"), err)
	case err != nil: // the change itself is done; the next one waits for the copy
		d.log.Warn("copy the engine's definitions", "error", err)
	}
	return failed
}

// settle looks at all definitions and makes the engine take back those that
// were put back. It returns how many these were so far.
func (d *definitions) settle(h *handle) (restored uint64, err error) {
	restored, cut, err := d.look()
	for _, f := range cut {
		err = errors.Join(err, f.reload(h))
	}
	return restored, err
}

// definition is one definition file and its copy.
type definition struct {
	database, name string // as the engine spells them; name is empty for the database itself
	file, copy     string
	holds          string // matches files that exist only when what is defined holds something
}

// look compares every definition with its copy: it copies what is new, puts
// copies back in place of cut files, and forgets copies of what was dropped. It
// returns how many cut files there were so far, and those of now.
func (d *definitions) look() (restored uint64, cut []definition, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.list()
	if err != nil {
		return d.restored, nil, err
	}
	var errs []error
	known := map[string]bool{}
	for _, f := range all {
		known[f.copy] = true
		was, err := f.keep()
		errs = append(errs, err)
		if was {
			d.restored++
			cut = append(cut, f)
			d.log.Error("a definition of the engine was cut off by a full disk and is put back from its copy", "file", f.file)
		}
	}
	return d.restored, cut, errors.Join(append(errs, d.forget(known))...)
}

func (d *definitions) copies() string { return filepath.Join(d.data, "definitions") }

// list finds the definitions: metadata/DATABASE.sql, and the tables' files in
// the folder that metadata/DATABASE links to.
func (d *definitions) list() (all []definition, err error) {
	metadata, rows := filepath.Join(d.data, "engine", "metadata"), filepath.Join(d.data, "engine", "data")
	databases, err := filepath.Glob(filepath.Join(metadata, "*.sql"))
	if err != nil {
		return nil, err
	}
	for _, file := range databases {
		base := strings.TrimSuffix(filepath.Base(file), ".sql")
		database, err := url.PathUnescape(base)
		if err != nil {
			return nil, fmt.Errorf("definitions: %w", err)
		}
		all = append(all, definition{database, "", file, filepath.Join(d.copies(), base+".sql"), filepath.Join(metadata, base, "*.sql")})
		tables, err := os.ReadDir(filepath.Join(metadata, base))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("definitions: %w", err)
		}
		for _, e := range tables {
			table, ok := strings.CutSuffix(e.Name(), ".sql")
			name, err := url.PathUnescape(table)
			if ok && err == nil {
				all = append(all, definition{database, name, filepath.Join(metadata, base, e.Name()), filepath.Join(d.copies(), base, e.Name()), filepath.Join(rows, base, table, "*_*_*")})
			}
		}
	}
	return all, nil
}

// keep makes the copy that of the file, or, when the file is cut, the file that
// of the copy; it reports whether it was.
func (f definition) keep() (cut bool, err error) {
	have, err := os.Stat(f.file)
	if errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("definitions: %w", err)
	}
	if kept, err := os.Stat(f.copy); err == nil && have.Size() > 0 && kept.Size() == have.Size() && kept.ModTime().Equal(have.ModTime()) {
		return false, nil
	}
	text, err := os.ReadFile(f.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("definitions: %w", err)
	case whole(text):
		return false, f.save(text, have.ModTime())
	}
	return true, f.restore()
}

// whole reports whether a definition was written to its end. It ends with a
// line's end; where a definition is cut, a file system's block ends.
func whole(text []byte) bool {
	if !bytes.HasPrefix(text, []byte("ATTACH ")) || !bytes.HasSuffix(text, []byte("\n")) {
		return false
	}
	last := bytes.LastIndexByte(text[:len(text)-1], '\n')
	tree := bytes.Contains(text, []byte("MergeTree"))
	return !tree || bytes.HasPrefix(text[last+1:], []byte("SETTINGS ")) // the last clause that the engine writes
}

// save writes the copy, whole or not at all.
func (f definition) save(text []byte, at time.Time) error {
	if err := os.MkdirAll(filepath.Dir(f.copy), 0o750); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	part := f.copy + ".part"
	err := writeSynced(part, text)
	if err == nil {
		err = os.Chtimes(part, at, at)
	}
	if err == nil {
		err = os.Rename(part, f.copy)
	}
	if err != nil {
		_ = os.Remove(part)
		return fmt.Errorf("definitions: copy %s: %w", f.file, err)
	}
	return nil
}

func writeSynced(path string, text []byte) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return errors.Join(err, out.Sync(), out.Close())
}

// restore moves the copy into the file's place, which takes no space. A cut
// file without a copy defines what never came to be, and goes.
func (f definition) restore() error {
	text, err := os.ReadFile(f.copy)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := f.unused(); err != nil {
			return err
		}
		err = os.Remove(f.file)
	case err == nil && !whole(text):
		err = errors.New("the copy is cut off, too")
	case err == nil:
		err = os.Rename(f.copy, f.file)
	}
	if err != nil {
		return fmt.Errorf("the engine's definition %s is cut off and cannot be put back from %s: %w; restore a backup", f.file, f.copy, err)
	}
	return nil
}

// unused fails when what a cut file without a copy defined holds something.
func (f definition) unused() error {
	if found, _ := filepath.Glob(f.holds); len(found) > 0 {
		return fmt.Errorf("the engine's definition %s is cut off and has no copy, but what it defined holds %s; restore a backup", f.file, found[0])
	}
	return nil
}

// forget removes the copies of what is defined no more: put back later, they
// would bring a dropped table's name to another's rows.
func (d *definitions) forget(known map[string]bool) error {
	return filepath.WalkDir(d.copies(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() && !known[path] {
			err = os.Remove(path)
		}
		return err
	})
}

// reload makes the engine take a table from its file again. What never came to
// be is dropped.
func (f definition) reload(h *handle) (err error) {
	if f.name == "" {
		return nil
	}
	table := QuoteIdent(f.database) + "." + QuoteIdent(f.name)
	if _, err := os.Stat(f.file); errors.Is(err, fs.ErrNotExist) {
		return h.exec("DROP TABLE IF EXISTS " + table + " SYNC")
	}
	return h.loadAnew(table, func() error { return nil })
}

// loadAnew makes the engine read a table from the disk again, after changing
// its files while nobody has them open. Statements that come meanwhile find no
// such table.
func (h *handle) loadAnew(table string, change func() error) (err error) {
	for range 200 { // the engine refuses while a statement still holds the table
		if err = h.exec("DETACH TABLE IF EXISTS " + table + " SYNC"); err == nil {
			if err = errors.Join(h.db.defs.mend(), change(), h.exec("ATTACH TABLE IF NOT EXISTS "+table)); err == nil {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("load the table %s anew: %w", table, err)
}

// mend replaces what else the engine cannot open with after a full disk: a
// mutation's file that was cut off (its statement was not answered, or is done
// in every part) and a table's format version that is missing its one byte.
func (d *definitions) mend() error {
	tables := filepath.Join(d.data, "engine", "data", "*", "*")
	mutations, err := filepath.Glob(filepath.Join(tables, "mutation_*.txt"))
	if err != nil {
		return err
	}
	for _, file := range mutations {
		text, err := os.ReadFile(file)
		if err == nil && !bytes.HasSuffix(text, []byte("\n")) {
			d.log.Error("a mutation of the engine was cut off by a full disk and is taken away", "file", file, "text", string(text))
			err = os.Remove(file)
		}
		if err != nil {
			return fmt.Errorf("mend the engine's files: %w", err)
		}
	}
	versions, err := filepath.Glob(filepath.Join(tables, "format_version.txt"))
	if err != nil {
		return err
	}
	for _, file := range versions {
		if st, err := os.Stat(file); err != nil || st.Size() > 0 {
			continue
		}
		d.log.Error("a table's format version was cut off by a full disk and is written again", "file", file)
		if err := writeSynced(file, []byte("1")); err != nil {
			return fmt.Errorf("mend the engine's files: %w", err)
		}
	}
	return nil
}

// ready makes a directory whose engine is not open fit to be opened.
func (d *definitions) ready(database string) error {
	if d.bare {
		return nil
	}
	_, _, err := d.look()
	if e := d.mend(); e != nil {
		return e
	}
	_, missing := os.Stat(filepath.Join(d.data, "engine", "metadata", url.PathEscape(database)+".sql"))
	if errors.Is(missing, fs.ErrNotExist) {
		return errors.Join(err, d.hasRoom())
	}
	if errors.Is(err, syscall.ENOSPC) { // a copy could not be made: the next change asks for it again
		d.log.Warn("copy the engine's definitions", "error", err)
		return nil
	}
	return err
}
