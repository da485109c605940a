package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestUpgrade opens the data directories that earlier builds wrote: definitions,
// rows, dead letters, imports and the online tables are there, the ledger is
// balanced, and what comes next follows. A directory of a newer format is
// refused.
func TestUpgrade(t *testing.T) {
	archives, err := filepath.Glob("testdata/upgrade/*.tar.gz")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no data directories: %v", err)
	}
	config, err := filepath.Abs("testdata/upgrade/kedge.yaml") // nothing expires
	if err != nil {
		t.Fatal(err)
	}
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			dir := t.TempDir()
			unpack(t, archive, dir)
			p := startKedge(t, dir, "--config", config)
			want := &totals{sums: map[string]map[string]float64{
				"features/user":     {"count()": 100, "sum(v_spend)": 5000, "countIf(v_country = 'IT')": 100},
				"predictions/churn": {"count()": 100, "sum(score)": 25, "uniqExact(id)": 100},
				"labels/churn":      {"count()": 100, "sum(label)": 50},
				"features/past":     {"count()": 2, "sum(v_amount)": 4, "countIf(known_at = event_time)": 2},
			}}
			want.check(t, p)
			p.checkLedger(303, 1)
			if out := p.must("get", "FeatureView", "user"); !strings.Contains(out, "owner: ann") {
				t.Errorf("the view: %s", out)
			}
			if out := p.must("get", "Namespace", "growth"); !strings.Contains(out, "weight: 2") {
				t.Errorf("the namespace: %s", out)
			}
			if out := p.must("dead-letters", "list"); !strings.Contains(out, "seven") {
				t.Errorf("the dead letter: %s", out)
			}
			testenv.Eventually(t, time.Minute, func() error {
				if status, body := post(t, p.http+"/get-online-features", `{"features":["user:spend"],"entities":{"user_id":[7]}}`); status != 200 || !strings.Contains(body, "7.5") {
					return errors.New(body)
				}
				return nil
			})
			p.send(`{"view":"user","key":{"user_id":7},"event_time":"2026-11-02T10:00:00Z","values":{"spend":70.25,"country":"FR"}}` + "\n")
			p.caughtUp(302)
			p.checkLedger(304, 1)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("99\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, errs, status := runKedge(t, "run", "--data-dir", dir, "--http", "127.0.0.1:0", "--kafka", "127.0.0.1:0"); status != 1 || !strings.Contains(errs, "newer") {
				t.Errorf("a directory of a newer format: %d %s", status, errs)
			}
		})
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			err = unpackFile(root, name, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
