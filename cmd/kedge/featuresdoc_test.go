package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestFeaturesDocument runs the shell blocks of docs/features.md as they are
// written, in an empty folder, until their answers are there: what was just sent
// takes a moment to land.
func TestFeaturesDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "features.md"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "kedge"), []byte("#!/bin/sh\nKEDGE_TEST_IS_KEDGE=1 exec '"+self+"' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startKedge(t, t.TempDir())
	run := func(block string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(block, "http://127.0.0.1:7070", p.http))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KEDGE_SERVER="+p.http, "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	held := map[string]func(out string) error{
		"kind: FeatureView": func(out string) error {
			return contains(out, `"values":[4.5,null],"statuses":["PRESENT","NOT_FOUND"]`, `"values":["Riga",null]`)
		},
		"--entities labels.csv": func(string) error {
			return errors.Join(hasRow(dir, "train.parquet", 2, "4.5", "Riga"), hasRow(dir, "served.parquet", 1, "p-1", "0.31"))
		},
		"/v1/historical-features": func(out string) error { return contains(out, "driver_id,event_timestamp,label", ",4.5,Riga") },
	}
	for _, f := range fences(string(text)) {
		for what, holds := range held {
			if f[0] != "sh" || !strings.Contains(f[1], what) {
				continue
			}
			delete(held, what)
			testenv.Eventually(t, time.Minute, func() error {
				out, err := run(f[1])
				if err == nil {
					err = holds(out)
				}
				if err != nil {
					return fmt.Errorf("%s\n%s\n%w", f[1], out, err)
				}
				return nil
			})
		}
	}
	for what := range held {
		t.Errorf("the document has no commands with %q", what)
	}
}

func contains(text string, wants ...string) error {
	for _, w := range wants {
		if !strings.Contains(text, w) {
			return fmt.Errorf("no %q in %s", w, text)
		}
	}
	return nil
}

// hasRow wants a Parquet file of so many rows, one of which has all the texts.
func hasRow(dir, name string, rows int, wants ...string) error {
	all, err := parquet.ReadFile[any](filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if len(all) != rows {
		return fmt.Errorf("%s: %d rows, want %d", name, len(all), rows)
	}
	for _, r := range all {
		if err = contains(fmt.Sprint(r), wants...); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", name, err)
}
