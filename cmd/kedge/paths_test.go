package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Several files and folders are one set of documents, each of which stands in
// one of them alone.
func TestSeveralFilesAreOneSet(t *testing.T) {
	dir := t.TempDir()
	write := func(name, of string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("kind: Monitor\nname: "+of+"\nspec: {view: "+of+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, folder := write("one.yaml", "a"), filepath.Dir(write("more/two.yaml", "b"))
	write("more/deep/three.yml", "c")
	docs, err := readPaths([]string{one, folder, "-"}, strings.NewReader("kind: Monitor\nname: d\nspec: {view: d}\n"))
	var names []string
	for _, d := range docs {
		names = append(names, d.Name)
	}
	if got := strings.Join(names, " "); err != nil || got != "a c b d" {
		t.Errorf("read %q, %v; want a c b d", got, err)
	}
	again := write("again.yaml", "a")
	if _, err := readPaths([]string{one, again}, nil); err == nil || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), again) {
		t.Errorf("a document in two files: %v", err)
	}
	if _, err := readPaths([]string{one, filepath.Join(dir, "none.yaml")}, nil); err == nil {
		t.Error("a file that is not there is no error")
	}
}
