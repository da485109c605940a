package drift

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
)

// TestAFaultyMonitorEndsNothingElse: a monitor that panics is dropped, to be
// made anew, and the look goes on. What was skipped before the fault is counted
// all the same, and of what was to be told only what is stored is: the rest is
// judged again.
func TestAFaultyMonitorEndsNothingElse(t *testing.T) {
	reader := sdk.NewManualReader()
	scope := telemetry.Discard()
	var log bytes.Buffer
	scope.Log = slog.New(slog.NewTextHandler(&log, nil))
	scope.Meter = sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	s, err := NewScheduler(SchedulerConfig{Scope: scope}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	faulty := func(changed ...store.Incident) *watcher {
		m, err := NewMonitor(MonitorConfig{Name: "faulty", Subject: "user", Columns: Numeric("x"), First: 1, Sample: 1}, nil) // without a store: its first use panics
		if err != nil {
			t.Fatal(err)
		}
		m.told, m.changed = []AlertChange{{Incident: "1", Sentence: "x moved"}}, changed
		for _, i := range changed {
			if i.ID != "1" {
				m.told = append(m.told, AlertChange{Incident: i.ID, Sentence: "y moved"})
			}
		}
		m.skip("no_rows")
		m.skip("no_rows")
		w := &watcher{spec: &MonitorSpec{View: "user"}, monitor: m}
		s.monitors["faulty"] = w
		return w
	}
	for _, c := range []struct {
		w    *watcher
		told bool
	}{{faulty(), true}, {faulty(store.Incident{ID: "1"}), false}, {faulty(store.Incident{ID: "2"}), true}} {
		log.Reset()
		s.monitors["faulty"] = c.w
		s.tick(t.Context(), c.w, time.Now())
		if len(s.monitors) != 0 {
			t.Error("the faulty monitor is still there, with what it half knows")
		}
		if strings.Contains(log.String(), `sentence="user: x moved"`) != c.told || strings.Contains(log.String(), "y moved") {
			t.Errorf("not stored: %v, told: %s", c.w.monitor.changed, log.String())
		}
	}
	got := Skipped(t, reader)
	if got["panic"] != 3 || got["no_rows"] != 6 || len(got) != 2 {
		t.Errorf("skipped: %v, want panic 3, no_rows 6", got)
	}
}

// TestAnewHeedsItsCaller: who waits for a look to end gives up with its context,
// nothing is changed then, and the next one has its turn.
func TestAnewHeedsItsCaller(t *testing.T) {
	s, err := NewScheduler(SchedulerConfig{Scope: telemetry.Discard()}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	change := func() error { changed++; return nil }
	if err := s.begin(t.Context()); err != nil { // a look that does not end
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Anew(ctx, change); !errors.Is(err, context.DeadlineExceeded) || changed != 0 {
		t.Errorf("beside a look: %v, changed %d times", err, changed)
	}
	s.end()
	if err := s.Anew(ctx, change); !errors.Is(err, context.DeadlineExceeded) || changed != 0 {
		t.Errorf("after its end: %v, changed %d times", err, changed)
	}
	s.monitors["a"] = &watcher{}
	if err := s.Anew(t.Context(), change); err != nil || changed != 1 || len(s.monitors) != 0 {
		t.Errorf("after the look: %v, changed %d times, %d monitors", err, changed, len(s.monitors))
	}
}
