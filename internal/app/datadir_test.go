package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataDirIsOnePerProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); !errors.Is(err, ErrDataDirLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("second open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(path)
	if err != nil {
		t.Fatalf("after close: %v", err)
	}
	again.Close()
}

func TestDataDirRefusesNewerFormat(t *testing.T) {
	for text, want := range map[string]error{"2\n": ErrDataDirNewer, "1\n": nil, "banana": nil} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, "FORMAT"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDataDir(path)
		switch {
		case text == "1\n" && err != nil:
			t.Errorf("format %q: %v", text, err)
		case text != "1\n" && err == nil:
			t.Errorf("format %q was accepted", text)
		case want != nil && !errors.Is(err, want):
			t.Errorf("format %q: %v", text, err)
		}
		if d != nil {
			d.Close()
		}
	}
}

func TestDataDirOnAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
}
