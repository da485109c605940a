package model

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// Write stores an artefact as a folder of root and returns its digest, which
// is the folder's name: the sha256 of SHA256SUMS, which has the sha256 of every
// other file. The folder appears whole or not at all; writing the same artefact
// again changes nothing.
func Write(root *os.Root, a *Artifact) (digest string, err error) {
	files, err := a.Files()
	if err != nil {
		return "", err
	}
	sums := manifest(files)
	digest = sum(sums)
	if _, err := root.Stat(digest); err == nil {
		if _, err := Load(root, digest, DefaultLimits()); err == nil {
			return digest, nil
		}
		// What lies there is damaged; it is replaced below.
	}
	files[manifestFile] = sums
	if err := publish(root, digest, files); err != nil {
		return "", fmt.Errorf("write artefact %s: %w", digest[:12], err)
	}
	return digest, nil
}

// publish writes a hidden folder and renames it when all of it is on disk.
func publish(root *os.Root, digest string, files map[string][]byte) error {
	temp := ".writing-" + rand.Text()
	if err := root.Mkdir(temp, 0o755); err != nil {
		return err
	}
	defer root.RemoveAll(temp) // gone already when all went well
	for name, content := range files {
		if err := writeSynced(root, temp+"/"+name, content); err != nil {
			return err
		}
	}
	if err := syncDir(root, temp); err != nil {
		return err
	}
	if err := root.RemoveAll(digest); err != nil {
		return err
	}
	if err := root.Rename(temp, digest); err != nil {
		return err
	}
	return syncDir(root, ".")
}

func writeSynced(root *os.Root, path string, content []byte) error {
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(root *os.Root, path string) error {
	d, err := root.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// manifest is the text of SHA256SUMS, as sha256sum(1) writes and checks it.
func manifest(files map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s  %s\n", sum(files[name]), name)
	}
	return b.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Load reads an artefact by its digest and checks every byte and the golden
// rows. It never leaves root, not through links either.
//
// Errors wrap [fs.ErrNotExist], [ErrCorrupt], [ErrGolden] or a reader's own.
func Load(root *os.Root, digest string, lim Limits) (*Artifact, error) {
	if !isDigest(digest) {
		return nil, fmt.Errorf("load artefact %q: want 64 hexadecimal digits: %w", digest, fs.ErrNotExist)
	}
	a, err := load(root, digest, lim)
	if err != nil {
		return nil, fmt.Errorf("load artefact %s: %w", digest[:12], err)
	}
	return a, nil
}

func load(root *os.Root, digest string, lim Limits) (*Artifact, error) {
	_, a, err := read(root, digest, lim)
	return a, err
}

// read reads an artefact's files, the manifest among them, and decodes them.
func read(root *os.Root, digest string, lim Limits) (map[string][]byte, *Artifact, error) {
	dir, err := root.OpenRoot(digest)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	sums, err := readBounded(dir, manifestFile, 1<<16)
	if err != nil {
		return nil, nil, err
	}
	if sum(sums) != digest {
		return nil, nil, fmt.Errorf("%w: %s does not have the folder's digest", ErrCorrupt, manifestFile)
	}
	files, err := readAll(dir, string(sums), lim)
	if err != nil {
		return nil, nil, err
	}
	files[manifestFile] = sums
	a, err := FromFiles(files, lim)
	return files, a, err
}

// readAll reads the files that a manifest lists and checks their sums. Only
// names that an artefact can have are opened.
func readAll(dir *os.Root, sums string, lim Limits) (map[string][]byte, error) {
	files := make(map[string][]byte)
	left := lim.Total
	for line := range strings.Lines(sums) {
		want, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || !slices.Contains([]string{modelFile, onnxFile, signatureFile, goldenFile, cardFile, cardText}, name) {
			return nil, fmt.Errorf("%w: %s has the line %q", ErrCorrupt, manifestFile, line)
		}
		content, err := readBounded(dir, name, min(lim.File, left))
		if err != nil {
			return nil, err
		}
		if sum(content) != want {
			return nil, fmt.Errorf("%w: %s does not have its sum", ErrCorrupt, name)
		}
		left -= int64(len(content))
		files[name] = content
	}
	return files, nil
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(dir *os.Root, name string, limit int64) ([]byte, error) {
	info, err := dir.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%w: %s is no regular file, or has %d bytes of at most %d", ErrCorrupt, name, info.Size(), limit)
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// List returns the digests of all artefacts of root, sorted.
func List(root *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list artefacts: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && isDigest(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Sweep removes what interrupted writes left behind. Call it when no write can
// be under way, at start.
func Sweep(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("sweep artefacts: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".writing-") {
			errs = append(errs, root.RemoveAll(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func isDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}
