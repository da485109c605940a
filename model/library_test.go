package model

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/kedge-ml/kedge/model/bucket"
)

// s3 is a small S3 server that can go away.
type s3 struct {
	t       *testing.T
	backend gofakes3.Backend
	url     string
	away    atomic.Bool
	puts    atomic.Int64 // until it goes away; below zero: for ever
}

func startS3(t *testing.T) *s3 {
	t.Helper()
	s := &s3{t: t, backend: s3mem.New()}
	s.puts.Store(-1)
	if err := s.backend.CreateBucket("models"); err != nil {
		t.Fatal(err)
	}
	server := gofakes3.New(s.backend).Server()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && s.puts.Load() >= 0 && s.puts.Add(-1) < 0 {
			s.away.Store(true)
		}
		if s.away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

func (s *s3) bucket() *bucket.Bucket {
	s.t.Helper()
	b, err := bucket.Open(bucket.Config{Endpoint: s.url, Bucket: "models", Prefix: "kedge", Region: "us-east-1", AccessKey: "key", SecretKey: "secret", List: ManifestFile, Timeout: 5 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// replace overwrites one object.
func (s *s3) replace(name string, change func([]byte) []byte) {
	s.t.Helper()
	o, err := s.backend.GetObject("models", name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(o.Contents); err != nil {
		s.t.Fatal(err)
	}
	content := change(b.Bytes())
	if _, err := s.backend.PutObject("models", name, map[string]string{}, bytes.NewReader(content), int64(len(content)), nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *s3) names() string {
	s.t.Helper()
	l, err := s.backend.ListBucket("models", nil, gofakes3.ListBucketPage{})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, o := range l.Contents {
		out = append(out, filepath.Base(o.Key))
	}
	return strings.Join(out, " ")
}

func folder(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func entries(t *testing.T, root *os.Root) int {
	t.Helper()
	list, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestBucketIsShared writes on one machine and reads on another, which asks the
// bucket once.
func TestBucketIsShared(t *testing.T) {
	s, ctx := startS3(t), t.Context()
	digest, err := NewLibrary(folder(t), s.bucket()).Write(ctx, example(t))
	if err != nil {
		t.Fatal(err)
	}
	other := NewLibrary(folder(t), s.bucket())
	if a, err := other.Load(ctx, digest, DefaultLimits()); err != nil || a.Golden.Rows() == 0 {
		t.Fatal(err)
	}
	s.away.Store(true)
	if _, err := other.Load(ctx, digest, DefaultLimits()); err != nil {
		t.Errorf("what is in the folder needs the bucket: %v", err)
	}
	if err := other.Root().RemoveAll(digest); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Load(ctx, digest, DefaultLimits()); !errors.Is(err, bucket.ErrAway) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bucket models") {
		t.Errorf("with the server away: %v", err)
	}
	s.away.Store(false)
	if _, err := other.Load(ctx, strings.Repeat("0", 64), DefaultLimits()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a digest that nobody wrote: %v", err)
	}
	local := folder(t)
	if _, err := Write(local, example(t)); err != nil {
		t.Fatal(err)
	}
	fresh := startS3(t)
	if n, err := NewLibrary(local, fresh.bucket()).Push(ctx); err != nil || n != 1 || fresh.names() != s.names() {
		t.Errorf("pushed %d: %v; %s, want %s", n, err, fresh.names(), s.names())
	}
}

// TestBrokenWrites stops the server after every number of objects: whatever was
// cut off is nothing, here and there, and done again it is whole.
func TestBrokenWrites(t *testing.T) {
	ctx := t.Context()
	for after := range 9 { // more than an artefact has
		s, root := startS3(t), folder(t)
		s.puts.Store(int64(after))
		l := NewLibrary(root, s.bucket())
		digest, err := l.Write(ctx, example(t))
		if err == nil {
			if n := len(strings.Fields(s.names())); n != after || n < 6 {
				t.Errorf("with a server for %d objects: %s", after, s.names())
			}
			return
		}
		if !errors.Is(err, bucket.ErrAway) || entries(t, root) != 0 || strings.Contains(s.names(), ManifestFile) {
			t.Errorf("after %d objects: %v; %d entries here, %q there", after, err, entries(t, root), s.names())
		}
		s.away.Store(false)
		s.puts.Store(-1)
		if _, err := NewLibrary(folder(t), s.bucket()).Load(ctx, digest, DefaultLimits()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("half an artefact can be read: %v", err)
		}
		if _, err := l.Write(ctx, example(t)); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	t.Error("no write went through")
}

// TestDamagedObjects reads what is not what was written: it is refused with the
// file's name, and nothing is kept.
func TestDamagedObjects(t *testing.T) {
	s, ctx := startS3(t), t.Context()
	digest, err := NewLibrary(folder(t), s.bucket()).Write(ctx, example(t))
	if err != nil {
		t.Fatal(err)
	}
	root := folder(t)
	for name, change := range map[string]func([]byte) []byte{
		"model.json":     func(b []byte) []byte { return b[:len(b)/2] },                                 // truncated
		goldenFile:       func(b []byte) []byte { return append(b[:len(b)-1:len(b)-1], b[len(b)-1]^1) }, // a bit
		ManifestFile:     func(b []byte) []byte { return append(b, "\n"...) },                           // wrong digest
		"signature.json": func([]byte) []byte { return nil },
	} {
		object := "kedge/" + digest + "/" + name
		var was []byte
		s.replace(object, func(b []byte) []byte { was = bytes.Clone(b); return change(b) })
		if _, err := NewLibrary(root, s.bucket()).Load(ctx, digest, DefaultLimits()); !errors.Is(err, ErrCorrupt) || entries(t, root) != 0 {
			t.Errorf("%s: %v, %d entries kept", name, err, entries(t, root))
		}
		s.replace(object, func([]byte) []byte { return was })
	}
	if _, err := NewLibrary(root, s.bucket()).Load(context.WithoutCancel(ctx), digest, DefaultLimits()); err != nil { // the control
		t.Error(err)
	}
}
