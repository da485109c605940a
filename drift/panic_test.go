package drift

import (
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// TestAFaultyMonitorEndsNothingElse: a monitor that panics is dropped, to be
// made anew, and the look goes on.
func TestAFaultyMonitorEndsNothingElse(t *testing.T) {
	s, err := NewScheduler(SchedulerConfig{Scope: telemetry.Discard()}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{} // without a monitor: its first use panics
	s.monitors["faulty"] = w
	s.tick(t.Context(), w, time.Now())
	if len(s.monitors) != 0 {
		t.Error("the faulty monitor is still there, perhaps with its locks held")
	}
}
