package image

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/image-spec/schema"
)

func testSpec(t *testing.T, text string) Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Spec{
		Programs: []File{{Path: "/app/program", Source: self, Mode: 0o755}}, Files: []File{{Path: "/app/b/text", Content: []byte(text), Mode: 0o644}, {Path: "/app/a", Content: []byte("a"), Mode: 0o600}},
		Volume: "/data", Entrypoint: []string{"/app/program", "run"}, Env: []string{"A=b"}, Port: 80, Created: time.Unix(1_700_000_000, 0).UTC(), Name: "x-1", Labels: map[string]string{"l": "v"},
	}
}

func write(t *testing.T, s Spec) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	digest, err := Write(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return dir, digest
}

// TestLayoutIsValid checks what is written against OCI's own JSON schemas and
// go-containerregistry's validation, and that equal content has an equal digest.
func TestLayoutIsValid(t *testing.T) {
	dir, digest := write(t, testSpec(t, "one"))
	if _, again := write(t, testSpec(t, "one")); again != digest {
		t.Errorf("the same content twice: %s and %s", digest, again)
	}
	if _, other := write(t, testSpec(t, "two")); other == digest {
		t.Error("other content has the same digest")
	}
	h, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	p, err := layout.FromPath(filepath.Join(dir, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := p.Image(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	manifest, err1 := img.RawManifest()
	config, err2 := img.RawConfigFile()
	index, err3 := os.ReadFile(filepath.Join(dir, "oci", "index.json"))
	mark, err4 := os.ReadFile(filepath.Join(dir, "oci", "oci-layout"))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for _, doc := range []struct {
		schema schema.Validator
		text   []byte
	}{{schema.ValidatorMediaTypeManifest, manifest}, {schema.ValidatorMediaTypeImageConfig, config}, {schema.ValidatorMediaTypeImageIndex, index}, {schema.ValidatorMediaTypeLayoutHeader, mark}} {
		if err := doc.schema.Validate(strings.NewReader(string(doc.text))); err != nil {
			t.Errorf("%s: %v\n%s", doc.schema, err, doc.text)
		}
		broken := strings.NewReplacer(`"schemaVersion":2`, `"schemaVersion":9`, `"schemaVersion": 2`, `"schemaVersion": 9`, `"os":`, `"so":`, "imageLayoutVersion", "other").Replace(string(doc.text))
		if doc.schema.Validate(strings.NewReader(broken)) == nil { // the control
			t.Errorf("%s accepts anything", doc.schema)
		}
	}
}

// TestRootIsWhatTheImageHolds compares the folder that the Dockerfile copies
// with the layers.
func TestRootIsWhatTheImageHolds(t *testing.T) {
	dir, digest := write(t, testSpec(t, "one"))
	h, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := layout.Path(filepath.Join(dir, "oci")).Image(h)
	if err != nil {
		t.Fatal(err)
	}
	r := mutate.Extract(img)
	defer r.Close()
	owner, files := -1, 0
	for in := tar.NewReader(r); ; {
		f, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "rootfs", f.Name))
		if err != nil {
			t.Errorf("%s is in the image only: %v", f.Name, err)
			continue
		}
		if f.Typeflag == tar.TypeReg {
			files++
			if info.Size() != f.Size || info.Mode().Perm() != os.FileMode(f.Mode) {
				t.Errorf("%s: %d bytes, mode %o in the image; %d, %o in the folder", f.Name, f.Size, f.Mode, info.Size(), info.Mode().Perm())
			}
		}
		if strings.Trim(f.Name, "/") == "data" {
			owner = f.Uid
		}
	}
	if owner != User || files < 3 {
		t.Errorf("%d files, the volume belongs to %d", files, owner)
	}
}

func TestOnlyProgramsForLinux(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := testSpec(t, "x")
	s.Programs[0].Source = script
	if _, err := Write(t.TempDir(), s); !errors.Is(err, ErrProgram) {
		t.Errorf("%v", err)
	}
}
