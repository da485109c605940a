// Package image makes container images without a container engine: a root file
// system as a folder, the Dockerfile that copies it, and the same as an OCI
// image layout.
//
// The image has no base: beside what it is given, it holds the shared libraries
// that its programs need, taken from this machine. Equal content gives an equal
// digest. The package runs nothing and asks no registry.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// User is the id that the image's process runs as, and that owns its volumes.
const User = 65532

// File is one file of the image: what Source names on this machine or, without
// one, Content.
type File struct {
	Path    string // in the image, absolute
	Source  string
	Content []byte
	Mode    os.FileMode
}

// Spec says what an image holds.
type Spec struct {
	Programs   []File   // executables and libraries: what they need is added
	Files      []File   // the layer above: what changes from model to model
	Volume     string   // an empty folder that the process may write
	Entrypoint []string // and the arguments
	Env        []string // name=value
	Port       int
	Created    time.Time
	Name       string // reference in the layout's index
	Labels     map[string]string
}

// Write fills an empty folder: rootfs, Dockerfile and, in oci, the image layout.
// It returns the digest of the image's manifest.
func Write(dir string, s Spec) (digest string, err error) {
	arch, libraries, err := needed(s.Programs)
	if err != nil {
		return "", err
	}
	layers := [][]File{slices.Concat(s.Programs, libraries), s.Files}
	for _, files := range layers {
		slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		for _, f := range files {
			if err := place(filepath.Join(dir, "rootfs"), f); err != nil {
				return "", err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "rootfs", s.Volume), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), s.dockerfile(), 0o644); err != nil {
		return "", err
	}
	img, err := s.image(arch, layers)
	if err != nil {
		return "", fmt.Errorf("make the image: %w", err)
	}
	p, err := layout.Write(filepath.Join(dir, "oci"), empty.Index)
	if err != nil {
		return "", fmt.Errorf("write the image layout: %w", err)
	}
	platform := v1.Platform{OS: "linux", Architecture: arch}
	if err := p.AppendImage(img, layout.WithPlatform(platform), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": s.Name})); err != nil {
		return "", fmt.Errorf("write the image layout: %w", err)
	}
	h, err := img.Digest()
	return h.String(), err
}

// place writes a file into the root file system's folder.
func place(root string, f File) error {
	to := filepath.Join(root, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, _, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// open returns the file's bytes and how many there are.
func (f *File) open() (io.ReadCloser, int64, error) {
	if f.Source == "" {
		return io.NopCloser(bytes.NewReader(f.Content)), int64(len(f.Content)), nil
	}
	in, err := os.Open(f.Source)
	if err != nil {
		return nil, 0, err
	}
	info, err := in.Stat()
	if err != nil {
		in.Close()
		return nil, 0, err
	}
	return in, info.Size(), nil
}

// image is the layers with how they are run.
func (s *Spec) image(arch string, layers [][]File) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, files := range layers {
		volume := ""
		if i == len(layers)-1 {
			volume = s.Volume
		}
		open := func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() { w.CloseWithError(writeLayer(w, files, volume, s.Created)) }()
			return r, nil
		}
		layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: s.Created}, CreatedBy: "kedge model package"}}); err != nil {
			return nil, err
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", arch, v1.Time{Time: s.Created}
	c.Config = v1.Config{Entrypoint: s.Entrypoint, Env: s.Env, User: fmt.Sprintf("%d:%d", User, User), Labels: s.Labels,
		ExposedPorts: map[string]struct{}{fmt.Sprintf("%d/tcp", s.Port): {}}, Volumes: map[string]struct{}{s.Volume: {}}, WorkingDir: "/"}
	return mutate.ConfigFile(img, c)
}

// writeLayer writes files, and the folders above them, as a layer.
func writeLayer(out io.Writer, files []File, volume string, at time.Time) error {
	w := tar.NewWriter(out)
	made := map[string]bool{"/": true, ".": true}
	var folder func(name string, owner int) error
	folder = func(name string, owner int) error {
		if made[name] {
			return nil
		}
		if err := folder(path.Dir(name), 0); err != nil {
			return err
		}
		made[name] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(name, "/") + "/", Mode: 0o755, Uid: owner, Gid: owner, ModTime: at, Format: tar.FormatPAX})
	}
	for _, f := range files {
		if err := folder(path.Dir(f.Path), 0); err != nil {
			return err
		}
		if err := writeFile(w, f, at); err != nil {
			return err
		}
	}
	if volume != "" {
		if err := folder(volume, User); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeFile(w *tar.Writer, f File, at time.Time) error {
	in, size, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), Size: size, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	return nil
}

// dockerfile builds the same image from the folder.
func (s *Spec) dockerfile() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Everything is in rootfs, libraries included; `docker build .` needs no network.\nFROM scratch\nCOPY --chown=%d:%d rootfs/ /\n", User, User)
	for _, e := range s.Env {
		fmt.Fprintf(&b, "ENV %s\n", e)
	}
	fmt.Fprintf(&b, "USER %d:%d\nWORKDIR /\nVOLUME %s\nEXPOSE %d\nENTRYPOINT [", User, User, s.Volume, s.Port)
	for i, a := range s.Entrypoint {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", a)
	}
	b.WriteString("]\n")
	return b.Bytes()
}
