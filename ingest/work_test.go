package ingest

import (
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// TestSampledTraces holds which traces a unit of work ends in: those that
// somebody will see, not more of them than it may, and none of what is no trace.
func TestSampledTraces(t *testing.T) {
	const seen, own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-", "0af7651916cd43dd8448eb211c80319c"
	var w work
	met := func(parent string) string { return w.continues([]byte(parent)) }
	for _, flags := range []string{"00", "02", "0a", "zz"} {
		if id := met(seen + flags); id != own || len(w.traces) != 0 {
			t.Errorf("flags %s: trace %q, %v", flags, id, w.traces)
		}
	}
	for _, no := range []string{"", "01", seen, seen + "1"} {
		if met(no); len(w.traces) != 0 {
			t.Errorf("%q is a trace: %v", no, w.traces)
		}
	}
	for i, flags := range []string{"01", "03", "0b", "ff"} {
		if met(seen + flags); len(w.traces) != i+1 || w.traces[i] != seen+flags {
			t.Errorf("flags %s: %v", flags, w.traces)
		}
	}
	for range 2 * maxTraces {
		met(seen + "01")
	}
	if len(w.traces) != maxTraces {
		t.Errorf("%d traces", len(w.traces))
	}
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.reset(7, 1, catalog, 0, 0); len(w.traces) != 0 {
		t.Error("the next unit has the last one's traces")
	}
}
