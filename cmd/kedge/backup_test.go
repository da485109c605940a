package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// numbered makes n predictions whose ids go on from a number.
func numbered(from, n int) string {
	var b strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&b, `{"model":"m","version":"1","id":"p-%d","event_time":"2026-11-01T10:00:00Z","inputs":{"x":%d.5},"output":{"score":0.5}}`+"\n", i, i)
	}
	return b.String()
}

// expectOnce wants the first n predictions in the table, each once, and a
// ledger that agrees.
func (p *kedgeProcess) expectOnce(n int) {
	p.t.Helper()
	testenv.Eventually(p.t, time.Minute, func() error {
		if rows := landed(p, "predictions", "m"); rows != int64(n) {
			return fmt.Errorf("%d rows have landed, want %d", rows, n)
		}
		if got := strings.Fields(p.sql(p.t, "SELECT count(), uniqExact(id), toInt64(sum(`v_x`)) FROM kedge."+p.table())); len(got) != 3 || got[0] != fmt.Sprint(n) || got[1] != got[0] || got[2] != fmt.Sprint(int64(n)*int64(n)/2) {
			return fmt.Errorf("rows, distinct ids, sum: %v, want %d", got, n)
		}
		f := p.ask(query.Request{Kind: "ledger"})
		for _, name := range []string{"gap_records", "overlap_records", "gap_rows", "duplicate_rows", "unledgered_rows", "missing"} {
			if sum := columnSum(p.t, f[0], name); sum != 0 {
				return fmt.Errorf("ledger: %s is %d", name, sum)
			}
		}
		return nil
	})
}

func (p *kedgeProcess) table() string {
	return strings.TrimSpace(p.sql(p.t, "SELECT name FROM system.tables WHERE database = 'kedge' AND startsWith(name, 'predictions_') LIMIT 1"))
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestBackupAndRestore takes a backup while events come in, and brings it up
// beside every other half: its own broker, a broker of a later day with the
// store of the backup, and a store of a later day with the broker of the backup.
func TestBackupAndRestore(t *testing.T) {
	home := t.TempDir()
	dir, file := filepath.Join(home, "today"), filepath.Join(home, "backup.tar")
	p := startKedge(t, dir)
	p.send(numbered(0, 3000))
	p.expectOnce(3000)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range 10 {
			p.send(numbered(3000+100*i, 100))
		}
	}()
	p.must("backup", file)
	<-sent
	p.expectOnce(4000)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	restored := func(name string) string {
		t.Helper()
		to := filepath.Join(home, name)
		t.Setenv("KEDGE_CLICKHOUSE_LIBRARY", testenv.LibCHDB(t))
		if out, errs, status := runKedge(t, "restore", file, "--data-dir", to); status != 0 {
			t.Fatalf("restore: %s%s", out, errs)
		}
		return to
	}
	whole := restored("whole")
	if out, errs, status := runKedge(t, "restore", file, "--data-dir", whole); status == 0 || !strings.Contains(errs, "not empty") {
		t.Errorf("restore over something: %d %s%s", status, out, errs)
	}
	p = startKedge(t, whole)
	var n int
	testenv.Eventually(t, time.Minute, func() error {
		n = int(landed(p, "predictions", "m"))
		if s := p.status(); n < 3000 || !s.Health.Ready {
			return fmt.Errorf("%d rows, %+v", n, s.Health)
		}
		for _, part := range p.status().Partitions {
			if part.Lag != 0 {
				return fmt.Errorf("%+v", part)
			}
		}
		return nil
	})
	n = int(landed(p, "predictions", "m"))
	if n > 4000 {
		t.Errorf("%d rows", n)
	}
	p.expectLedger()
	p.send(numbered(100_000, 10)) // it takes events as before
	testenv.Eventually(t, time.Minute, func() error {
		if got := int(landed(p, "predictions", "m")); got != n+10 {
			return fmt.Errorf("%d rows, want %d", got, n+10)
		}
		return nil
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	// The store of the backup, the broker of today: what the ledger lacks is read again.
	mixed := restored("old-store")
	copyTree(t, filepath.Join(dir, "broker"), filepath.Join(mixed, "broker"))
	p = startKedge(t, mixed)
	p.expectOnce(4000)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	// The store of today, the broker of the backup: the log ends before the
	// ledger. Nothing is doubled, nothing is silent: the partitions say so.
	reverse := restored("old-broker")
	copyTree(t, filepath.Join(dir, "store"), filepath.Join(reverse, "store"))
	p = startKedge(t, reverse)
	p.send(numbered(200_000, 200))
	testenv.Eventually(t, time.Minute, func() error {
		out, _, _ := p.kedge("status")
		rows := landed(p, "predictions", "m")
		if rows != 4200 && !strings.Contains(out, "epoch") {
			return fmt.Errorf("%d rows, and no partition says what is wrong:\n%s", rows, out)
		}
		return nil
	})
	if got := strings.Fields(p.sql(t, "SELECT count() - uniqExact(id) FROM kedge."+p.table())); got[0] != "0" {
		t.Errorf("%s rows are doubled", got[0])
	}
}

func (p *kedgeProcess) expectLedger() {
	p.t.Helper()
	f := p.ask(query.Request{Kind: "ledger"})
	for _, name := range []string{"gap_records", "overlap_records", "gap_rows", "duplicate_rows", "unledgered_rows", "missing"} {
		if sum := columnSum(p.t, f[0], name); sum != 0 {
			p.t.Errorf("ledger: %s is %d", name, sum)
		}
	}
}

// TestBadBackups: an archive that is cut, changed, from a newer binary, or that
// reaches out of its folder makes no data directory.
func TestBadBackups(t *testing.T) {
	entry := func(name, text string) func(*tar.Writer) {
		return func(w *tar.Writer) {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(w *tar.Writer) {
		if err := w.WriteHeader(&tar.Header{Name: "data/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}); err != nil {
			t.Fatal(err)
		}
	}
	manifest := entry("MANIFEST.json", `{"format":1,"data_format":1}`)
	const sumOfManifest = "" // a wrong one
	for name, c := range map[string]struct {
		entries []func(*tar.Writer)
		says    string
	}{
		"empty":       {nil, "ends before its checksums"},
		"cut":         {[]func(*tar.Writer){manifest, entry("data/a", "x")}, "ends before its checksums"},
		"no manifest": {[]func(*tar.Writer){entry("data/a", "x")}, "does not begin with"},
		"newer":       {[]func(*tar.Writer){entry("MANIFEST.json", `{"format":99,"data_format":1}`)}, "newer"},
		"out of it":   {[]func(*tar.Writer){manifest, entry("data/../../evil", "x")}, "not a whole backup"},
		"absolute":    {[]func(*tar.Writer){manifest, entry("/etc/evil", "x")}, "not a whole backup"},
		"link":        {[]func(*tar.Writer){manifest, link}, "not a whole backup"},
		"changed":     {[]func(*tar.Writer){manifest, entry("SHA256SUMS", sumOfManifest+"  MANIFEST.json\n")}, "is not what was backed up"},
		"not listed":  {[]func(*tar.Writer){manifest, entry("SHA256SUMS", "")}, "is not listed"},
		"twice":       {[]func(*tar.Writer){manifest, entry("data/a", "x"), entry("data/a", "y")}, "exists"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range c.entries {
			e(w)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "b.tar")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "to", "data")
		_, errs, status := runKedge(t, "restore", file, "--data-dir", to)
		if status == 0 || !strings.Contains(errs, c.says) {
			t.Errorf("%s: status %d, %q, want %q", name, status, errs, c.says)
		}
		if _, err := os.Stat(filepath.Join(to, "FORMAT")); err == nil {
			t.Errorf("%s: a data directory was made", name)
		}
		for _, evil := range []string{filepath.Join(dir, "evil"), filepath.Join(dir, "to", "evil"), "/etc/evil"} {
			if _, err := os.Stat(evil); err == nil {
				t.Errorf("%s: wrote %s", name, evil)
			}
		}
	}
}
