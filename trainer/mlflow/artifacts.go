package mlflow

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/model"
)

// artifacts serves files below one folder and cannot leave it; below "kedge"
// are Kedge's own artefacts, to be read.
type artifacts struct {
	root  *os.Root
	kedge *model.Library // nil: none
	limit int64
}

// where finds the folder that holds a client's path, and the path in it.
func (a artifacts) where(ctx context.Context, p string) (*os.Root, string, error) {
	at, err := place(p)
	if err != nil || a.kedge == nil {
		return a.root, at, err
	}
	if rest, ok := strings.CutPrefix(p, kedgeArtifacts); ok && (rest == "" || rest[0] == '/') {
		at := strings.TrimPrefix(rest, "/")
		digest, _, _ := strings.Cut(at, "/")
		if _, err := a.kedge.Root().Stat(digest); err != nil && digest != "" {
			_ = a.kedge.Fetch(ctx, digest, model.DefaultLimits()) // what is not there then is answered as missing
		}
		return a.kedge.Root(), cmp.Or(at, "."), nil
	}
	return a.root, at, nil
}

// mayWrite refuses what is not the clients' own.
func mayWrite(p string) error {
	if p == kedgeArtifacts || strings.HasPrefix(p, kedgeArtifacts+"/") {
		return invalid("%s: Kedge's own artefacts are read only", p)
	}
	return nil
}

// place checks a client's path: relative, clean, below the folder.
func place(p string) (string, error) {
	if p == "" {
		return artifactDir, nil
	}
	if !fs.ValidPath(p) || strings.Contains(p, "\\") || strings.Contains(p, "\x00") {
		return "", invalid("Invalid path: %q", p)
	}
	return artifactDir + "/" + p, nil
}

type fileInfo struct {
	Path string `json:"path"`
	Dir  bool   `json:"is_dir"`
	Size int64  `json:"file_size,omitempty"`
}

func (a artifacts) list(w http.ResponseWriter, r *http.Request) {
	files, err := a.files(r.Context(), r.URL.Query().Get("path"), "")
	respond(w, object{"files": files}, err)
}

// files lists a folder; one that is not there is empty.
func (a artifacts) files(ctx context.Context, p, prefix string) ([]fileInfo, error) {
	root, at, err := a.where(ctx, p)
	if err != nil {
		return nil, err
	}
	out := []fileInfo{}
	entries, err := fs.ReadDir(root.FS(), at)
	if err != nil {
		return out, nil // a file has no listing either
	}
	for _, e := range entries {
		f := fileInfo{Path: path.Join(prefix, e.Name()), Dir: e.IsDir()}
		if info, err := e.Info(); err == nil && !f.Dir {
			f.Size = info.Size()
		}
		if !strings.HasPrefix(e.Name(), uploading) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b fileInfo) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

// listRun is the listing by run id.
func (a artifacts) listRun(s *Store, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.RLock()
	x := s.runs[cmp.Or(q.Get("run_id"), q.Get("run_uuid"))]
	s.mu.RUnlock()
	if x == nil {
		respond(w, nil, missing("Run with id=%s not found", q.Get("run_id")))
		return
	}
	base := strings.TrimPrefix(x.info.Artifacts, "mlflow-artifacts:/")
	files, err := a.files(r.Context(), path.Join(base, q.Get("path")), q.Get("path"))
	respond(w, object{"root_uri": x.info.Artifacts, "files": files}, err)
}

func (a artifacts) get(w http.ResponseWriter, r *http.Request) {
	root, at, err := a.where(r.Context(), r.PathValue("path"))
	if err != nil {
		respond(w, nil, err)
		return
	}
	f, err := root.Open(at)
	if err != nil {
		respond(w, nil, missing("No such artifact: '%s'", r.PathValue("path")))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		respond(w, nil, missing("No such artifact: '%s'", r.PathValue("path")))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// uploading marks files that are not complete.
const uploading = ".uploading-"

func (a artifacts) put(w http.ResponseWriter, r *http.Request) {
	err := a.save(r.PathValue("path"), http.MaxBytesReader(w, r.Body, a.limit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = invalid("the artifact is larger than %d bytes", tooLarge.Limit)
	}
	respond(w, object{}, err)
}

// save writes beside the place and renames: readers never see half a file.
func (a artifacts) save(p string, body io.Reader) error {
	at, err := place(p)
	if err := errors.Join(err, mayWrite(p)); err != nil {
		return err
	}
	if at == artifactDir {
		return invalid("an artifact needs a path")
	}
	dir := path.Dir(at)
	if err := a.root.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	temp := dir + "/" + uploading + rand.Text()
	f, err := a.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, copyErr := io.Copy(f, body)
	if err := errors.Join(copyErr, f.Close()); err != nil {
		return errors.Join(err, a.root.Remove(temp))
	}
	return a.root.Rename(temp, at)
}

func (a artifacts) remove(w http.ResponseWriter, r *http.Request) {
	at, err := place(r.PathValue("path"))
	if err == nil {
		err = mayWrite(r.PathValue("path"))
	}
	if err == nil && at == artifactDir {
		err = invalid("an artifact needs a path")
	}
	if err == nil {
		err = a.root.RemoveAll(at)
	}
	respond(w, object{}, err)
}
