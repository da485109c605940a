package trainer

import "fmt"

// Gate decides whether a trained model may become a candidate. The zero value
// asks only that it beats the constant baseline.
type Gate struct {
	Metric        string   `json:"metric,omitempty"`          // default: the task's
	Min           *float64 `json:"min,omitempty"`             // of metrics where more is better
	Max           *float64 `json:"max,omitempty"`             // of metrics where less is better
	BeatLive      *float64 `json:"beat_live,omitempty"`       // relative improvement over the model in service; 0: not worse
	MaxECE        *float64 `json:"max_ece,omitempty"`         // calibration error
	MaxSegmentGap *float64 `json:"max_segment_gap,omitempty"` // how far the worst segment may be behind the whole
	MinRows       int      `json:"min_rows,omitempty"`        // of the test
	AllowLeaks    bool     `json:"allow_leaks,omitempty"`
}

// Check returns the reasons to refuse a model; none means that it may pass.
func (g *Gate) Check(r *Report, leaks []Leak, metric string) []string {
	var reasons []string
	refuse := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if g.Metric != "" {
		metric = g.Metric
	}
	got, ok := r.Metrics[metric]
	if !ok {
		refuse("the test has no metric %q", metric)
		return reasons
	}
	if r.Rows < g.MinRows {
		refuse("the test has %d rows, the gate wants %d", r.Rows, g.MinRows)
	}
	if base, ok := r.Baseline[metric]; ok && better(metric, got, base) <= 0 {
		refuse("%s %.5g is no better than %.5g, which always answering the average gives", metric, got, base)
	}
	if g.Min != nil && got < *g.Min {
		refuse("%s %.5g is below %.5g", metric, got, *g.Min)
	}
	if g.Max != nil && got > *g.Max {
		refuse("%s %.5g is above %.5g", metric, got, *g.Max)
	}
	if live, ok := r.Live[metric]; ok && g.BeatLive != nil && better(metric, got, live) < *g.BeatLive {
		refuse("%s %.5g against %.5g of the model in service: the gate wants an improvement of %.3g %%", metric, got, live, 100**g.BeatLive)
	}
	if ece := r.Metrics["ece"]; g.MaxECE != nil && ece > *g.MaxECE {
		refuse("calibration error %.4f is above %.4f", ece, *g.MaxECE)
	}
	if g.MaxSegmentGap != nil {
		for _, s := range r.Segments {
			if gap := -better(metric, s.Metrics[metric], got); gap > *g.MaxSegmentGap {
				refuse("%s = %s has %s %.5g, the whole test %.5g", s.Column, s.Value, metric, s.Metrics[metric], got)
			}
		}
	}
	if !g.AllowLeaks {
		for _, l := range leaks {
			refuse("%s", l)
		}
	}
	return reasons
}

// better is the relative improvement of a over b, positive when a is better.
func better(metric string, a, b float64) float64 {
	d := b - a
	if HigherIsBetter(metric) {
		d = a - b
	}
	if b == 0 {
		return d
	}
	if b < 0 {
		b = -b
	}
	return d / b
}
