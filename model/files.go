package model

import (
	"fmt"
	"io/fs"
	"os"
)

// Files reads an artefact's files by its digest, SHA256SUMS included, as they
// are sent to another installation. Every byte and the golden rows are checked,
// as [Load] does.
func Files(root *os.Root, digest string, lim Limits) (map[string][]byte, error) {
	if !isDigest(digest) {
		return nil, fmt.Errorf("read artefact %q: want 64 hexadecimal digits: %w", digest, fs.ErrNotExist)
	}
	files, _, err := read(root, digest, lim)
	if err != nil {
		return nil, fmt.Errorf("read artefact %s: %w", digest[:12], err)
	}
	return files, nil
}

// Check decodes files that came from elsewhere and proves that they are the
// artefact of that digest, golden rows included: for kinds with a Go predictor
// here, for ONNX by whoever has the runtime.
func Check(files map[string][]byte, digest string, lim Limits) (*Artifact, error) {
	if err := checkSums(files, digest); err != nil {
		return nil, err
	}
	return FromFiles(files, lim)
}

// Install keeps files that [Check] accepted, byte for byte, so that their
// digest stays what it was. Like [Write] it leaves a whole folder or none.
func Install(root *os.Root, digest string, files map[string][]byte, lim Limits) error {
	if _, err := Check(files, digest, lim); err != nil {
		return fmt.Errorf("install artefact %.12s: %w", digest, err)
	}
	if _, err := Load(root, digest, lim); err == nil {
		return nil
	}
	if err := publish(root, digest, files); err != nil {
		return fmt.Errorf("install artefact %s: %w", digest[:12], err)
	}
	return nil
}

// checkSums compares files with the manifest among them, and the manifest with
// the digest.
func checkSums(files map[string][]byte, digest string) error {
	sums := files[manifestFile]
	if sums == nil || !isDigest(digest) || sum(sums) != digest {
		return fmt.Errorf("%w: %s does not have the digest %.12s", ErrCorrupt, manifestFile, digest)
	}
	others := make(map[string][]byte, len(files))
	for name, content := range files {
		if name != manifestFile {
			others[name] = content
		}
	}
	if string(manifest(others)) != string(sums) {
		return fmt.Errorf("%w: the files are not those that %s lists", ErrCorrupt, manifestFile)
	}
	return nil
}
