package features

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
)

func TestEpochAt(t *testing.T) {
	spans := []epochSpan{{Epoch: 0, From: -1}, {Epoch: 1, From: 100}, {Epoch: 2, From: 50}, {Epoch: 3, From: 200}}
	for _, c := range []struct {
		offset int64
		epoch  int32
		until  int64
	}{{0, 0, 50}, {49, 0, 50}, {50, 2, 200}, {150, 2, 200}, {200, 3, maxTime}, {1 << 40, 3, maxTime}} {
		if epoch, until := epochAt(spans, c.offset); epoch != c.epoch || until != c.until {
			t.Errorf("offset %d: epoch %d until %d, want %d until %d", c.offset, epoch, until, c.epoch, c.until)
		}
	}
	if epoch, until := epochAt(nil, 7); epoch != 0 || until != maxTime {
		t.Errorf("without epochs: %d until %d", epoch, until)
	}
}

// TestAnOpenedEpochIsReadAgain opens an epoch from the log's start and wants
// the rows under it.
func TestAnOpenedEpochIsReadAgain(t *testing.T) {
	h := openHouse(t, time.Time{})
	h.view("v", "0s", fieldsOf("k Int64"), fieldsOf("x Float64"))
	h.write(`{"view":"v","key":{"k":1},"event_time":"2026-01-01T00:00:00Z","values":{"x":1}}`)
	epoch := func() int32 {
		row, _ := readRow(h.online.View(testNamespace, "v").table.(*Table), []any{int64(1)}, maxTime-1)
		if !row.Found() {
			t.Fatal("no row")
		}
		return row.Version().Epoch
	}
	if got := epoch(); got != 0 {
		t.Fatalf("epoch %d before any was opened", got)
	}
	for p := range 4 {
		raw, err := json.Marshal(epochSpan{Epoch: 3, From: -1})
		must(t, err)
		_, err = h.registry.Apply(t.Context(), registry.Entry{Kind: epochKind, Name: fmt.Sprintf("%s/%d", FeatureTopic(testNamespace), p), Op: registry.Put, Spec: raw, Who: "test"})
		must(t, err)
	}
	testenv.Eventually(t, 30*time.Second, func() error {
		if got := epoch(); got != 3 {
			return fmt.Errorf("epoch %d, want 3", got)
		}
		return nil
	})
}
