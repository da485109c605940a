package drift

import (
	"context"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/store"
)

// Skipped reads how many evaluations did not happen, by reason.
func Skipped(t *testing.T, reader *sdk.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name != telemetry.MetricDriftSkipped {
				continue
			}
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				reason, _ := p.Attributes.Value("reason")
				out[reason.AsString()] += p.Value
			}
		}
	}
	return out
}

// JudgeUnseen is judgeUnseen, for the tests that draw worlds.
func JudgeUnseen(c Column) Judgement { return judgeUnseen(c) }

// SmallestDistance is smallestDistance, which a preview answers.
func SmallestDistance(b *Baseline, rows float64, asked int, o Options) float64 {
	return smallestDistance(b, rows, asked, o)
}

// MetricsOf are a window's metrics by their names, and how many rows they are of.
func MetricsOf(o *store.Outcomes, task string) (map[string]float64, int) {
	r, out := rowsOf(o, task), map[string]float64{}
	for name, v := range r.metrics(nil) {
		out[name] = v.Value
	}
	return out, r.labelled
}

// JudgeArrival has a monitor judge the days whose deadlines have passed since one.
func JudgeArrival(ctx context.Context, m *Monitor, since, now time.Time) error {
	if m.Batch.IsZero() {
		m.Batch = since
	}
	_, err := m.judgeArrival(ctx, now, uint64(now.UnixMicro()))
	return err
}
