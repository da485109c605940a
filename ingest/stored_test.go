package ingest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// TestUsageIsCounted walks a namespace over its quotas and back: what was stored
// since the count counts, a count that fails is an error, and without a quota
// nobody counts.
func TestUsageIsCounted(t *testing.T) {
	u, now, counts := newUsage(), time.Unix(1_000_000, 0), 0
	stored, bad := event.Stored{Rows: 90, Bytes: 1000}, error(nil)
	over := func(q event.Quotas) string {
		t.Helper()
		says, err := u.over("a", q, now, func() (event.Stored, error) { counts++; return stored, bad })
		if !errors.Is(err, bad) {
			t.Fatalf("%v, want %v", err, bad)
		}
		return says
	}
	rows := event.Quotas{Rows: 100}
	if over(event.Quotas{}) != "" || counts != 0 {
		t.Error("without a quota something was counted")
	}
	if first, second := over(rows), over(rows); first != "" || second != "" || counts != 1 {
		t.Errorf("below its quota; %d counts", counts)
	}
	u.stored("a", 10)
	if says := over(rows); !strings.Contains(says, "quotas.rows") {
		t.Errorf("at its quota: %q", says)
	}
	if over(event.Quotas{Rows: 200}) != "" {
		t.Error("a raised quota holds at once")
	}
	if says := over(event.Quotas{StorageBytes: 1000}); !strings.Contains(says, "storage_bytes") {
		t.Errorf("bytes: %q", says)
	}
	stored.Rows = 40 // retention took some away
	now = now.Add(usageRecount)
	if over(rows) != "" || counts != 2 {
		t.Errorf("after retention; %d counts", counts)
	}
	now, bad = now.Add(usageRecount), errors.New("away")
	over(rows)
	bad = nil
	if over(rows) != "" || counts != 4 {
		t.Errorf("a failed count is repeated; %d counts", counts)
	}
}
