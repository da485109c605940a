package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestUndoAndSignaturesSideBySide: a view that its first event defined wrongly
// is deleted and met again, as what it is; versions of a model with other inputs,
// and inputs of another type, live side by side and share their labels.
func TestUndoAndSignaturesSideBySide(t *testing.T) {
	p := startKedge(t, t.TempDir())
	trip := func(id int, fare string) string {
		return fmt.Sprintf(`{"view":"trip","key":{"id":%d},"event_time":"2026-03-01T00:00:00Z","values":{"fare":%s}}`+"\n", id, fare)
	}
	p.send(trip(1, `"12.5"`)) // a text: somebody quoted a number
	p.caughtUp(1)
	p.send(trip(2, `13.5`))
	p.caughtUp(2)
	if out := p.must("dead-letters", "list"); !strings.Contains(out, "fare") {
		t.Errorf("a number for a text is no dead letter: %s", out)
	}
	p.must("delete", "FeatureView", "trip")
	p.send(trip(3, `14.5`))
	p.caughtUp(3)
	p.must("dead-letters", "replay") // what was refused is right now
	p.caughtUp(4)
	testenv.Eventually(t, time.Minute, func() error {
		out := p.must("query", "rows", "--view", "trip", "--from", "2026-03-01", "--to", "2026-03-02", "-o", "csv")
		if !strings.Contains(out, "14.5") || !strings.Contains(out, "13.5") || strings.Contains(out, "12.5") {
			return fmt.Errorf("rows: %s", out)
		}
		return nil
	})
	if out := p.must("get", "FeatureView", "trip"); !strings.Contains(out, "Float64") {
		t.Errorf("after the undo: %s", out)
	}
	if out := p.must("history", "FeatureView", "trip"); !strings.Contains(out, "deleted") {
		t.Errorf("history: %s", out)
	}

	var lines strings.Builder
	for i, version := range []string{"1", "2", "3", "1"} {
		inputs := map[string]string{"1": `{"a":1.5,"b":2}`, "2": `{"a":1.5,"c":"x"}`, "3": `{"a":"high","b":2}`}[version]
		fmt.Fprintf(&lines, `{"model":"m","version":"%s","id":"p%d","event_time":"2026-03-01T00:00:0%dZ","inputs":%s,"output":{"score":0.%d}}`+"\n", version, i, i, inputs, i+1)
		fmt.Fprintf(&lines, `{"model":"m","prediction_id":"p%d","event_time":"2026-03-01T01:00:00Z","label":1}`+"\n", i)
	}
	p.send(lines.String())
	p.caughtUp(12)
	for version, want := range map[string][]string{"1": {"b", "0.1", "0.4"}, "2": {"c", "0.2"}, "3": {"high", "0.3"}} {
		out := p.must("query", "rows", "--model", "m", "--version", version, "--from", "2026-03-01", "--to", "2026-03-02", "-o", "csv")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("version %s has no %s: %s", version, w, out)
			}
		}
		if got := strings.Count(strings.TrimSpace(out), "\n"); got != len(want)-1 {
			t.Errorf("version %s has %d rows, want %d: %s", version, got, len(want)-1, out)
		}
	}
	out := p.must("query", "label_coverage", "--model", "m", "--from", "2026-03-01", "--to", "2026-03-02", "--step", "1d", "-o", "csv")
	if !strings.Contains(out, ",4,") && !strings.Contains(out, ",4\n") {
		t.Errorf("labels of all versions: %s", out)
	}
	if out := p.must("search", "fare"); !strings.Contains(out, "trip") || !strings.Contains(out, "columns.name") {
		t.Errorf("search: %s", out)
	}
}
