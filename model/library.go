package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/kedge-ml/kedge/model/bucket"
)

// Library keeps artefacts in a folder and, where it has a bucket, there too:
// the folder is then what this machine has of it. What is in the folder is used
// without asking the bucket, so that what is served does not need it.
type Library struct {
	root   *os.Root
	bucket *bucket.Bucket // nil: the folder alone
}

// NewLibrary returns the artefacts of a folder and, unless it is nil, of a
// bucket, whose [bucket.Config].List is [ManifestFile].
func NewLibrary(root *os.Root, b *bucket.Bucket) *Library { return &Library{root, b} }

// Root is the folder.
func (l *Library) Root() *os.Root { return l.root }

// Write stores an artefact as [Write] does, then in the bucket. After an error
// it is in neither, or in the bucket without its manifest, which is nothing.
func (l *Library) Write(ctx context.Context, a *Artifact) (digest string, err error) {
	files, err := a.Files()
	if err != nil {
		return "", err
	}
	files[manifestFile] = manifest(files)
	digest = sum(files[manifestFile])
	return digest, l.Install(ctx, digest, files, DefaultLimits())
}

// Install keeps files as [Install] does, in the bucket too.
func (l *Library) Install(ctx context.Context, digest string, files map[string][]byte, lim Limits) error {
	_, before := Load(l.root, digest, lim)
	if err := Install(l.root, digest, files, lim); err != nil {
		return err
	}
	if l.bucket == nil {
		return nil
	}
	err := l.bucket.Put(ctx, digest, files)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("keep artefact %.12s: %w", digest, err)
	if before != nil { // it was not there, and nobody knows of it yet
		err = errors.Join(err, l.root.RemoveAll(digest))
	}
	return err
}

// Load reads an artefact by its digest, as [Load] does.
func (l *Library) Load(ctx context.Context, digest string, lim Limits) (*Artifact, error) {
	a, err := Load(l.root, digest, lim)
	if err == nil || l.bucket == nil {
		return a, err
	}
	if err := l.fetch(ctx, digest, lim); err != nil {
		return nil, err
	}
	return Load(l.root, digest, lim)
}

// Files reads an artefact's files by its digest, as [Files] does.
func (l *Library) Files(ctx context.Context, digest string, lim Limits) (map[string][]byte, error) {
	if err := l.Fetch(ctx, digest, lim); err != nil {
		return nil, err
	}
	return Files(l.root, digest, lim)
}

// Fetch brings an artefact into the folder, unless it is there whole.
func (l *Library) Fetch(ctx context.Context, digest string, lim Limits) error {
	if _, err := Load(l.root, digest, lim); err == nil || l.bucket == nil {
		return err
	}
	return l.fetch(ctx, digest, lim)
}

// fetch reads an artefact from the bucket, proves it and keeps it.
func (l *Library) fetch(ctx context.Context, digest string, lim Limits) error {
	if !isDigest(digest) {
		return fmt.Errorf("load artefact %q: want 64 hexadecimal digits: %w", digest, fs.ErrNotExist)
	}
	names := func(list []byte) (out []string, err error) {
		if sum(list) != digest {
			return nil, fmt.Errorf("%w: %s in the bucket does not have the digest %.12s", ErrCorrupt, manifestFile, digest)
		}
		for line := range strings.Lines(string(list)) {
			_, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
			out = append(out, name)
		}
		return out, nil
	}
	files, err := l.bucket.Get(ctx, digest, names, lim.File)
	if err != nil {
		return fmt.Errorf("load artefact %.12s: %w", digest, err)
	}
	return Install(l.root, digest, files, lim)
}

// Push brings what the folder has into the bucket: what was written before
// there was one. It returns how many artefacts it sent or found there.
func (l *Library) Push(ctx context.Context) (n int, err error) {
	if l.bucket == nil {
		return 0, nil
	}
	all, err := List(l.root)
	if err != nil {
		return 0, err
	}
	for _, digest := range all {
		files, err := Files(l.root, digest, DefaultLimits())
		if err != nil {
			continue // damaged here: a later Load says so, or takes the bucket's
		}
		if err := l.bucket.Put(ctx, digest, files); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
