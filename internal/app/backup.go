package app

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// backupFormat is the version of the archive's layout.
const backupFormat = 1

// Names within a backup. The checksums come last, so that a backup that was cut
// off has none.
const (
	manifestName  = "MANIFEST.json"
	storeName     = "store.tar"
	checksumsName = "SHA256SUMS"
	dataPrefix    = "data/"
)

// Manifest says what a backup holds.
type Manifest struct {
	Format     int       `json:"format"`
	DataFormat int       `json:"data_format"` // of the data directory
	Tables     int       `json:"tables"`      // version of the store's tables
	Taken      time.Time `json:"taken"`
	Store      bool      `json:"store"`  // false: the engine was an outside server
	Broker     bool      `json:"broker"` // false: the brokers were outside
}

// backup writes one archive of everything that this process keeps.
//
// The parts are taken one after the other while the process works on: the
// engine first, then the broker's commits and topics, then its logs. The store
// is therefore never ahead of the logs, nor a commit ahead of its log; what the
// logs have beyond the store is read again after a restore, from where the
// restored ledger ends. A log's last entry may be cut: the broker repairs that
// at every start.
func (a *App) backup(ctx context.Context, w io.Writer) error {
	b := &backup{tar: tar.NewWriter(w), sums: map[string]string{}}
	m := Manifest{Format: backupFormat, DataFormat: dataFormat, Tables: store.Version, Taken: time.Now().UTC(), Broker: a.broker != nil}
	m.Store = a.store != nil && a.store.Embedded() != nil
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = b.bytes(manifestName, text)
	}
	if err == nil && m.Store {
		err = a.backupStore(ctx, b)
	}
	if err == nil {
		err = a.backupFiles(ctx, b)
	}
	if err == nil {
		err = b.bytes(checksumsName, b.checksums())
	}
	if err == nil {
		err = b.tar.Close()
	}
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return nil
}

func (a *App) backupStore(ctx context.Context, b *backup) (err error) {
	db := a.store.Embedded()
	file := filepath.Join(db.BackupDir(), "backup-"+strconv.FormatInt(time.Now().UnixNano(), 36)+".tar")
	defer func() {
		if gone := os.Remove(file); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	if err := db.Backup(ctx, a.store.Database(), file, ""); err != nil {
		return err
	}
	return b.file(storeName, file)
}

// backupFiles adds the rest of the data directory.
func (a *App) backupFiles(ctx context.Context, b *backup) error {
	entries, err := os.ReadDir(a.dir.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains([]string{"LOCK", "FORMAT", "store", "broker"}, e.Name()) {
			continue
		}
		if err := b.tree(ctx, a.dir.path, e.Name()); err != nil {
			return err
		}
	}
	if a.broker == nil {
		return nil
	}
	// Commits and the list of topics before the logs: see [App.backup].
	top, err := os.ReadDir(a.dir.Sub("broker"))
	if err != nil {
		return err
	}
	slices.SortStableFunc(top, func(x, y fs.DirEntry) int {
		switch {
		case x.IsDir() == y.IsDir():
			return 0
		case x.IsDir():
			return 1
		}
		return -1
	})
	for _, e := range top {
		if err := b.tree(ctx, a.dir.path, path.Join("broker", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// backup is an archive being written.
type backup struct {
	tar   *tar.Writer
	names []string
	sums  map[string]string // name → SHA-256
}

func (b *backup) checksums() []byte {
	var out []byte
	for _, name := range b.names {
		out = fmt.Appendf(out, "%s  %s\n", b.sums[name], name)
	}
	return out
}

func (b *backup) bytes(name string, content []byte) error {
	return b.entry(name, int64(len(content)), strings.NewReader(string(content)))
}

func (b *backup) entry(name string, size int64, r io.Reader) error {
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: time.Now(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	if n, err := io.CopyN(io.MultiWriter(b.tar, sum), r, size); err != nil {
		return fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, err)
	}
	b.names, b.sums[name] = append(b.names, name), hex.EncodeToString(sum.Sum(nil))
	return nil
}

// file adds a file with the length that it has now: a log may grow meanwhile.
func (b *backup) file(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return b.entry(name, st.Size(), f)
}

// tree adds a file or a folder. What retention removes meanwhile is left out.
func (b *backup) tree(ctx context.Context, root, name string) error {
	return filepath.WalkDir(filepath.Join(root, filepath.FromSlash(name)), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if err = b.file(dataPrefix+filepath.ToSlash(rel), p); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func (a *App) backupRoutes(api *web.API) {
	api.Mux.HandleFunc("POST /v1/backup", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as long as it takes
		w.Header().Set("Content-Type", "application/x-tar")
		if err := a.backup(r.Context(), w); err != nil {
			a.sc.Log.Error("backup failed", "error", err)
			panic(http.ErrAbortHandler) // the client must not take it for a whole one
		}
	})
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "backup", Method: http.MethodPost, Path: "/v1/backup", Summary: "One archive of everything that this process keeps", Tags: []string{"server"},
		Responses: map[string]*huma.Response{"200": {Description: "A tar archive for kedge restore", Content: map[string]*huma.MediaType{"application/x-tar": {}}}},
	})
}

// ErrBadBackup means that an archive is no whole backup.
var ErrBadBackup = errors.New("not a whole backup")

// maxBackupEntry bounds the small entries that are read into memory.
const maxBackupEntry = 64 << 20

// Restore makes a data directory from a backup. The directory must be empty or
// not exist; what fails leaves it without FORMAT, so that no Kedge starts on it.
// Its engine's rows are brought in through the engine's library.
func Restore(ctx context.Context, cfg Config, archive io.Reader) (Manifest, error) {
	var m Manifest
	if entries, err := os.ReadDir(cfg.DataDir); err == nil && len(entries) > 0 {
		return m, fmt.Errorf("restore: %s is not empty: name a new folder", cfg.DataDir)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	root, err := os.OpenRoot(cfg.DataDir)
	if err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	defer root.Close()
	r := &restore{root: root, sums: map[string]string{}}
	if m, err = r.unpack(ctx, archive); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	if m.Store {
		if err := restoreStore(ctx, cfg); err != nil {
			return m, fmt.Errorf("restore: %w", err)
		}
	}
	if err := root.WriteFile("FORMAT", []byte(strconv.Itoa(m.DataFormat)+"\n"), 0o640); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	return m, nil
}

// restore is an archive being unpacked.
type restore struct {
	root     *os.Root
	sums     map[string]string
	manifest Manifest
	listed   []byte
}

func (r *restore) unpack(ctx context.Context, archive io.Reader) (Manifest, error) {
	t := tar.NewReader(bufio.NewReaderSize(archive, 1<<20))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r.manifest, fmt.Errorf("%w: %w", ErrBadBackup, err)
		}
		if err := r.entry(h, t); err != nil {
			return r.manifest, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return r.manifest, r.check()
}

func (r *restore) entry(h *tar.Header, t io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Name != path.Clean(h.Name) || sparse(h) {
		return fmt.Errorf("%w: an entry of this form is in no backup", ErrBadBackup)
	}
	sum := sha256.New()
	from := io.TeeReader(t, sum)
	defer func() { r.sums[h.Name] = hex.EncodeToString(sum.Sum(nil)) }()
	switch {
	case h.Name == manifestName:
		return r.readManifest(from)
	case r.manifest.Format == 0:
		return fmt.Errorf("%w: it does not begin with %s", ErrBadBackup, manifestName)
	case h.Name == checksumsName:
		return r.readSums(from)
	case h.Name == storeName:
		return r.write(path.Join("store", "backups", storeName), from)
	case strings.HasPrefix(h.Name, dataPrefix):
		return r.write(strings.TrimPrefix(h.Name, dataPrefix), from)
	}
	return fmt.Errorf("%w: unknown entry", ErrBadBackup)
}

// sparse reports whether an entry may be larger than its bytes: a few of them
// could fill the disk with nothing.
func sparse(h *tar.Header) bool {
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (r *restore) readManifest(from io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(from, maxBackupEntry))
	if err == nil {
		err = json.Unmarshal(b, &r.manifest)
	}
	m := r.manifest
	switch {
	case err != nil || m.Format < 1 || m.DataFormat < 1:
		return fmt.Errorf("%w: its manifest cannot be read", ErrBadBackup)
	case m.Format > backupFormat || m.DataFormat > dataFormat || m.Tables > store.Version:
		return fmt.Errorf("%w: use the binary that made it, or a newer one", ErrDataDirNewer)
	}
	return nil
}

func (r *restore) readSums(from io.Reader) (err error) {
	r.listed, err = io.ReadAll(io.LimitReader(from, maxBackupEntry))
	return err
}

// write stores a file below the data directory; [os.Root] refuses any name that
// leads out of it.
func (r *restore) write(name string, from io.Reader) error {
	if err := r.root.MkdirAll(path.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// check compares what was unpacked with the checksums at the archive's end.
func (r *restore) check() error {
	if r.listed == nil {
		return fmt.Errorf("%w: it ends before its checksums", ErrBadBackup)
	}
	delete(r.sums, checksumsName)
	for line := range strings.Lines(string(r.listed)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || r.sums[name] != sum {
			return fmt.Errorf("%w: %s is not what was backed up", ErrBadBackup, name)
		}
		delete(r.sums, name)
	}
	for name := range r.sums {
		return fmt.Errorf("%w: %s is not listed", ErrBadBackup, name)
	}
	return nil
}

func restoreStore(ctx context.Context, cfg Config) error {
	a := &App{cfg: cfg}
	lib, err := a.libraryPath()
	if err != nil {
		return err
	}
	ec := chdb.DefaultConfig()
	ec.LibPath, ec.DataDir, ec.Volumes = lib, filepath.Join(cfg.DataDir, "store"), cfg.volumes()
	if ec.DataDir, err = filepath.Abs(ec.DataDir); err != nil {
		return err
	}
	db, err := chdb.Open(ctx, ec)
	if err != nil {
		return err
	}
	file := filepath.Join(db.BackupDir(), storeName)
	err = errors.Join(db.Restore(ctx, ec.Database, file), db.Close())
	return errors.Join(err, os.Remove(file))
}
