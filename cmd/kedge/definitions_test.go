package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestDefinitionsLiveInFiles walks a team through the life of its definitions:
// infer, commit, plan, apply, an edit by hand that shows, prune, history.
func TestDefinitionsLiveInFiles(t *testing.T) {
	p := startKedge(t, t.TempDir())
	p.send(`{"view":"user","key":{"user_id":7},"event_time":"2026-11-01T10:00:00Z","values":{"spend":12,"country":"IT"}}`)
	testenv.Eventually(t, 20*time.Second, func() error {
		if landed(p, "features", "user") != 1 {
			return fmt.Errorf("not landed")
		}
		return nil
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "views", "user.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now().UTC().Format(time.RFC3339Nano)
	committed := strings.Replace(p.must("get", "FeatureView", "user", "--bare"), "origin: inferred", "origin: declared\n  owner: growth", 1)
	write(committed)
	out, _, status := p.kedge("plan", "-f", dir)
	if status != 3 || !strings.Contains(out, "owner") || !strings.Contains(out, "nothing is rebuilt") {
		t.Errorf("plan of an edit: status %d\n%s", status, out)
	}
	p.must("apply", "-f", dir, "--why", "into Git", "--revision", "abc123")
	if out, _, status := p.kedge("plan", "-f", dir); status != 0 || !strings.Contains(out, "unchanged") {
		t.Errorf("plan after apply: status %d\n%s", status, out)
	}
	stands := func(state string, want int) {
		t.Helper()
		_, metrics := get(t, p.http+"/metrics")
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "kedge_definitions{") && strings.Contains(line, `state="`+state+`"`) && strings.HasSuffix(line, fmt.Sprintf("} %d\n", want)) {
				return
			}
		}
		t.Errorf("no metric says that %d definitions are %s", want, state)
	}
	stands("committed", 1)

	// A type that stored rows contradict is refused before it can stop ingest,
	// and nothing else of the same apply is done.
	write(strings.Replace(committed, "type: Int64\n", "type: Bool\n", 2) + "---\nkind: FeatureView\nname: other\nspec: {origin: declared, keys: [{name: k, type: Int64}], columns: []}\n")
	if _, errs, status := p.kedge("apply", "-f", dir); status != 1 || !strings.Contains(errs, "keys.user_id.type") {
		t.Errorf("an edit of the key's type: %d %s", status, errs)
	}
	if out := p.must("get", "FeatureView"); strings.Contains(out, "other") {
		t.Errorf("a part of a refused apply was done:\n%s", out)
	}
	write(strings.Replace(committed, "name: spend\n      type: Int64", "name: spend\n      type: Float64", 1))
	if out, _, status := p.kedge("plan", "-f", dir); status != 3 || !strings.Contains(out, "widening") {
		t.Errorf("plan of a widening: %d\n%s", status, out)
	}
	p.must("apply", "-f", dir)
	p.send(`{"view":"user","key":{"user_id":8},"event_time":"2026-11-01T10:00:00Z","values":{"spend":1.5,"country":"FR"}}`)
	testenv.Eventually(t, 20*time.Second, func() error {
		if out := p.must("query", "rows", "--view", "user", "--from", "2026-11-01", "--to", "2026-11-02", "-o", "csv"); !strings.Contains(out, "1.5") || !strings.Contains(out, "12") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	// By hand, beside the files.
	hand := filepath.Join(t.TempDir(), "hand.json")
	if err := os.WriteFile(hand, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, body := post(t, p.http+"/v1/definitions", `{"kind":"FeatureView","name":"user","version":3,"spec":{"origin":"declared","owner":"nobody","keys":[{"name":"user_id","type":"Int64"}],"columns":[{"name":"spend","type":"Float64"},{"name":"country","type":"String"}],"online":true}}`); status != 200 {
		t.Fatalf("apply over HTTP: %d %s", status, body)
	}
	stands("edited", 1)
	if status, body := post(t, p.http+"/v1/definitions", `{"kind":"FeatureView","name":"user","version":3,"spec":{"origin":"declared","keys":[{"name":"user_id","type":"Int64"}],"columns":[]}}`); status != 409 {
		t.Errorf("a stale edit: %d %s", status, body)
	}
	p.must("apply", "-f", dir)
	stands("edited", 0)

	if out := p.must("get", "FeatureView", "user", "--at", before); !strings.Contains(out, "inferred") {
		t.Errorf("what was defined before:\n%s", out)
	}
	out = p.must("history", "FeatureView", "user")
	if strings.Count(out, "\n") != 6 || !strings.Contains(out, "into Git") || !strings.Contains(out, "abc123") || !strings.Contains(out, "columns.spend.type") {
		t.Errorf("history:\n%s", out)
	}
	p.send(`{"view":"typo","key":{"user_id":7},"event_time":"2026-11-01T10:00:00Z","values":{"x":1}}`)
	testenv.Eventually(t, 20*time.Second, func() error {
		if landed(p, "features", "typo") != 1 {
			return fmt.Errorf("not landed")
		}
		return nil
	})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	out = p.must("apply", "-f", dir, "--prune")
	if !strings.Contains(out, "FeatureView user: deleted") || strings.Contains(out, "typo") {
		t.Errorf("prune deletes what files had, and only that:\n%s", out)
	}
	p.must("delete", "FeatureView", "typo", "--why", "inferred by mistake")
	if out := p.must("get"); strings.Contains(out, "typo") || strings.Contains(out, "name: user\n") {
		t.Errorf("still there:\n%s", out)
	}
	testenv.Eventually(t, 10*time.Second, func() error { // the copy that SQL sees knows the deletes too
		if got := p.sql(t, "SELECT count() FROM kedge.definitions WHERE kind = 'FeatureView' AND deleted"); strings.TrimSpace(got) != "2" {
			return fmt.Errorf("%s deletes in the copy", got)
		}
		return nil
	})
}
