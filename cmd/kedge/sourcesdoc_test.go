package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// fences are the code blocks of a document, by language, in order.
func fences(text string) (out [][2]string) {
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, [2]string{m[1], m[2]})
	}
	return out
}

// documentFolder is a fresh folder as docs/sources.md takes for granted: the
// binary, the examples and the files that it names.
func documentFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/kedge", "#!/bin/sh\nKEDGE_TEST_IS_KEDGE=1 exec '"+self+"' \"$@\"\n", 0o700)
	write("hash-key", strings.Repeat("k", 32), 0o600)
	if err := os.Symlink(filepath.Join(testenv.Root(t), "examples"), filepath.Join(dir, "examples")); err != nil {
		t.Fatal(err)
	}
	elec, err := os.ReadFile(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	write("elec.csv", strings.Join(strings.SplitAfter(string(elec), "\n")[:2001], ""), 0o600)
	firstRows(t, testenv.Shared(t, "data/employment_MA_reference.pq"), filepath.Join(dir, "employment_MA_reference.pq"), 1000)
	type loan struct {
		ID     int64   `parquet:"id"`
		At     int64   `parquet:"at_ms"`
		Amount float64 `parquet:"amount"`
		Score  float64 `parquet:"score"`
		Repaid *bool   `parquet:"repaid,optional"`
	}
	var loans []loan
	for i := range int64(500) {
		repaid := i%7 != 0
		loans = append(loans, loan{i, time.Date(2025, 1, 1, 0, int(i), 0, 0, time.UTC).UnixMilli(), float64(i), 0.5, &repaid})
	}
	if err := parquet.WriteFile(filepath.Join(dir, "loans-2025.parquet"), loans); err != nil {
		t.Fatal(err)
	}
	return dir
}

// firstRows copies the first rows of a Parquet file: the document's commands do
// not depend on how many there are, and a test's time does.
func firstRows(t *testing.T, from, to string, n int) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r := parquet.NewReader(in)
	w := parquet.NewWriter(out, r.Schema())
	rows := make([]parquet.Row, n)
	got, err := r.ReadRows(rows)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := w.WriteRows(rows[:got]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSourcesDocument runs every command of docs/sources.md as it is written, in
// a fresh folder, with its configuration and its YAML, beside a topic that
// another program fills with arrays of predictions in Avro.
func TestSourcesDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "sources.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := documentFolder(t)
	registry, up := schemaRegistry(t, 42, scoredSchema)
	up()
	var p *kedgeProcess
	for _, f := range fences(string(text)) { // the server first: the document says what it is configured with
		if strings.HasPrefix(f[1], "sources:") {
			config := strings.NewReplacer("http://user:password@registry:8081", registry, "/run/secrets/kedge-hash-key", filepath.Join(dir, "hash-key")).Replace(f[1])
			path := filepath.Join(dir, "kedge.yaml")
			if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			p = startKedge(t, t.TempDir(), "--config", path)
		}
	}
	if p == nil {
		t.Fatal("the document has no configuration")
	}
	if err := newForeign(t, p.kafka, true).send(t.Context(), 200, time.Now()); err != nil {
		t.Fatal(err)
	}
	kserve := newPayloadLogger(t, p.kafka)
	for i := range 50 {
		kserve.send(fmt.Sprint(i), false, i%2)
		kserve.send(fmt.Sprint(i), true, i/2%2)
	}
	commands := 0
	for _, f := range fences(string(text)) {
		switch {
		case f[0] == "yaml" && strings.HasPrefix(f[1], "kind: Source"):
			continue // written where the draft was read and edited, below
		case f[0] == "yaml" && strings.HasPrefix(f[1], "# "): // its name
			name, _, _ := strings.Cut(strings.TrimPrefix(f[1], "# "), "\n")
			if err := os.WriteFile(filepath.Join(dir, name), []byte(f[1]), 0o600); err != nil {
				t.Fatal(err)
			}
		case f[0] == "yaml" && strings.HasPrefix(f[1], "description:"):
			if _, err := source.Parse([]byte(f[1])); err != nil {
				t.Errorf("the document's mapping: %v", err)
			}
		}
		if f[0] != "" {
			continue
		}
		for line := range strings.Lines(f[1]) {
			commands++
			runDocumented(t, p, dir, strings.TrimSpace(line), string(text))
		}
	}
	if commands < 14 {
		t.Errorf("only %d commands were found", commands)
	}
	if got := landed(p, "predictions", "shop_ranker"); got != 400 { // the third of each record is filtered out
		t.Errorf("%d predictions of the foreign topic", got)
	}
	if got := landed(p, "predictions", "iris"); got != 100 {
		t.Errorf("%d predictions of pairs", got)
	}
	p.mustBalance()
}

// runDocumented runs one line in a shell. What asks for rows is asked until they
// have come.
func runDocumented(t *testing.T, p *kedgeProcess, dir, line, document string) {
	t.Helper()
	run := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "localhost:7070", strings.TrimPrefix(p.http, "http://")))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KEDGE_SERVER="+p.http)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s: %w\n%s", line, err, out)
		}
		return string(out), nil
	}
	must := func() string {
		out, err := run()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	says := func(out string, wants ...string) {
		for _, w := range wants {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", line, w, out)
			}
		}
	}
	switch {
	case strings.Contains(line, "source draft"):
		must()
		path := filepath.Join(dir, "shop.yaml")
		draft, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		says(string(draft), "kind: Source", "type: avro")
		for _, f := range fences(document) {
			if strings.HasPrefix(f[1], "kind: Source") { // as it stands after somebody read it
				if err := os.WriteFile(path, []byte(f[1]), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	case strings.Contains(line, "check iris"):
		says(must(), "Model iris", "100 records, 100 rows", "rejected     0 (0.00%)")
	case strings.Contains(line, "source check"):
		says(must(), "Model shop_ranker", "rejected     0 (0.00%)")
	case strings.Contains(line, "query rows"):
		want := "0.75"
		if strings.Contains(line, "iris") {
			want = "versicolor"
		}
		testenv.Eventually(t, time.Minute, func() error {
			if out, err := run(); err != nil || !strings.Contains(out, want) {
				return fmt.Errorf("%s: %s %w", line, out, err)
			}
			return nil
		})
	case strings.Contains(line, "bin/kedge import"):
		says(must(), "1000 events imported: 1000 rows, 0 dead letters")
		says(must(), "1000 were there already")
	case strings.Contains(line, "replay"):
		out := must()
		if strings.Contains(out, "rejected") && !strings.Contains(out, " 0 rejected") {
			t.Errorf("%s: %s", line, out)
		}
	default:
		must()
	}
}
