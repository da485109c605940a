package drift_test

import (
	"math/rand/v2"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/internal/telemetry"
)

// Who asks why nothing was evaluated finds it counted: too few rows to learn
// from, a window without rows, and an evaluation that failed.
func TestSkippedEvaluationsAreCounted(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	reader := sdk.NewManualReader()
	scope := telemetry.Discard()
	scope.Meter = sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	d, err := drift.NewScheduler(drift.SchedulerConfig{Namespace: "test", Scope: scope}, s.store, reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	minutes := func(n int) {
		s.together(func() {
			for range n {
				s.write(at, time.Minute, normals(rng, 250, 0), normals(rng, 250, 5))
				at = at.Add(time.Minute)
			}
		})
	}
	minutes(3)
	d.Look(t.Context(), at)
	if got := drift.Skipped(t, reader); got["learning"] == 0 || len(got) != 1 {
		t.Errorf("750 of 5,000 rows: %v", got)
	}
	minutes(30)
	d.Look(t.Context(), at.Add(10*time.Second))
	d.Look(t.Context(), at.Add(3*time.Minute))
	last := drift.Skipped(t, reader)["no_rows"] // the minute that has nothing yet
	at = at.Add(10 * time.Minute)               // nothing comes
	minutes(5)
	d.Look(t.Context(), at.Add(3*time.Minute))
	if got := drift.Skipped(t, reader); got["no_rows"] <= last || got["error"] > 0 {
		t.Errorf("ten minutes without rows: %v", got)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	d.Look(t.Context(), at.Add(20*time.Minute))
	if got := drift.Skipped(t, reader); got["error"] == 0 {
		t.Errorf("without a store: %v", got)
	}
}
