package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrProgram says that a file cannot be put into an image with all it needs.
var ErrProgram = errors.New("program for an image")

// needed finds the architecture of programs, and the shared libraries that they
// need: their loader, and every library that one of them names, each at the
// path where this machine's loader finds it.
func needed(programs []File) (arch string, out []File, err error) {
	seen := map[string]bool{}
	queue := make([]string, 0, len(programs))
	for _, p := range programs {
		queue = append(queue, p.Source)
		seen[filepath.Base(p.Path)] = true
	}
	for len(queue) > 0 {
		from := queue[0]
		queue = queue[1:]
		own, loader, names, err := links(from)
		if err != nil {
			return "", nil, fmt.Errorf("%w: %s: %w", ErrProgram, from, err)
		}
		if arch != "" && own != arch {
			return "", nil, fmt.Errorf("%w: %s is for %s, another one for %s", ErrProgram, from, own, arch)
		}
		arch = own
		if loader != "" {
			names = append(names, loader)
		}
		for _, name := range names {
			if seen[filepath.Base(name)] {
				continue
			}
			seen[filepath.Base(name)] = true
			found, err := find(name, arch)
			if err != nil {
				return "", nil, fmt.Errorf("%w: %s needs %s: %w", ErrProgram, from, name, err)
			}
			out = append(out, File{Path: found, Source: found, Mode: 0o755})
			queue = append(queue, found)
		}
	}
	return arch, out, nil
}

// links reads what a program or library is for and names.
func links(path string) (arch, loader string, names []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: want a program for Linux", err)
	}
	defer f.Close()
	arch, ok := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if !ok {
		return "", "", nil, fmt.Errorf("is for %v: want x86-64 or arm64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", "", nil, err
		}
		loader = strings.TrimRight(string(b), "\x00")
	}
	names, err = f.ImportedLibraries()
	return arch, loader, names, err
}

// find is where a loader without a cache looks for a library.
func find(name, arch string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[arch]
	places := []string{"/lib/" + triple, "/usr/lib/" + triple, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	for _, dir := range places {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("it is in none of %v: build on the system that the program was built for", places)
}
