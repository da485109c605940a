package drift

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// Cost is what a monitor is expected to take a day, beside what its rows take.
// It is an estimate from how many rows came lately and from constants that
// BenchmarkMonitorBy50Segments measures.
type Cost struct {
	Columns    int            `json:"columns"`
	Segments   int            `json:"segments"` // values of all dimensions, with the rest of each
	Dimensions int            `json:"dimensions"`
	Window     event.Duration `json:"window"`
	RowsADay   float64        `json:"rows_a_day"`       // of the subject, as of its last day with rows
	Stored     float64        `json:"stored_a_day"`     // rows of summaries and verdicts
	Bytes      float64        `json:"bytes_a_day"`      // of them, compressed
	CPU        float64        `json:"cpu_s_a_day"`      // seconds of one core
	Budget     int            `json:"budget"`           // columns × segments
	Beyond     string         `json:"beyond,omitempty"` // why it is more than the budget, and what becomes of it
}

// Constants of the estimate, of one core of the machine that docs/drift.md names.
const (
	cpuOfSummary     = 3e-3   // s per column and derived window, counted, stored and read again; of 100 rows each
	cpuOfRow         = 0.9e-6 // s per value beyond them, for each dimension once more: assumed, not measured
	cpuOfJudgement   = 0.2e-3 // s per column judged in a window: BenchmarkTickOfTenThousandColumns
	cpuOfSegment     = 3.3e-3 // s per column of a segment, counted from rows and judged in a window of 30 rows of it or more
	bytesOfSummary   = 780
	bytesOfVerdict   = 41               // of a segment too
	verdictsOfColumn = 4                // shape, missing rate, its slow change, stability index; one more is of all rows
	mostCPU          = 0.25 * 24 * 3600 // s a day from which a plan warns: a quarter of a core
	mostBytes        = 2 << 30
)

// estimate is the arithmetic of a monitor whose numbers are known.
func (c *Cost) estimate() {
	day := (24 * time.Hour).Seconds()
	window := time.Duration(c.Window)
	cfg := MonitorConfig{Window: window}
	grains, windows := day/cfg.grain().Seconds(), day/window.Seconds()
	segmentWindows := day / segmentLength(window).Seconds()
	columns, cells := float64(c.Columns), float64(c.Columns*c.Segments)
	filled := min(grains, c.RowsADay) // a minute without rows is not stored
	summaries, verdicts, ofSegments := columns*filled, (columns*verdictsOfColumn+1)*min(windows, c.RowsADay), 0.0
	if c.Segments > 0 {
		// a segment is judged where its window has enough rows
		share := min(1, c.RowsADay/segmentWindows/max(float64(c.Segments)/float64(max(c.Dimensions, 1)), 1)/leastSegmentRows)
		ofSegments = cells * questions * segmentWindows * share
	}
	c.Stored = summaries + verdicts + ofSegments
	c.Bytes = summaries*bytesOfSummary + verdicts*bytesOfVerdict + ofSegments*bytesOfVerdict
	c.CPU = summaries*cpuOfSummary + c.RowsADay*columns*cpuOfRow*float64(1+c.Dimensions) + cpuOfJudgement*columns*min(windows, c.RowsADay) + cpuOfSegment*ofSegments/questions
	c.check()
}

// check holds it against the budget.
func (c *Cost) check() {
	switch {
	case c.Budget > 0 && c.Columns*c.Segments > c.Budget:
		c.Beyond = fmt.Sprintf("%d columns × %d segments are more than the budget of %d: dimensions that no longer fit are left out, which kedge monitor preview names; name fewer columns or dimensions, or raise budget", c.Columns, c.Segments, c.Budget)
	case c.CPU > mostCPU:
		c.Beyond = fmt.Sprintf("more than %.0f s of CPU a day, a quarter of a core: name fewer columns or dimensions, or a longer window", float64(mostCPU))
	case c.Bytes > mostBytes:
		c.Beyond = "more than 2 GiB a day: name fewer columns or dimensions, or a longer window"
	}
}

// String is one sentence for people.
func (c *Cost) String() string {
	s := fmt.Sprintf("%d columns", c.Columns)
	if c.Segments > 0 {
		s += fmt.Sprintf(" × %d segments", c.Segments)
	}
	return s + fmt.Sprintf(", windows of %v, %s rows a day: about %s rows, %s and %s s of CPU a day", time.Duration(c.Window),
		thousands(uint64(c.RowsADay)), thousands(uint64(c.Stored)), bytesText(c.Bytes), thousands(uint64(math.Ceil(c.CPU))))
}

func bytesText(n float64) string {
	for _, u := range []struct {
		name string
		size float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.3g %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.0f B", n)
}

// CostOf estimates what a definition takes, from the table of its subject and
// the rows of its newest day. A subject that is not there costs nothing yet.
func CostOf(ctx context.Context, st *store.Store, namespace string, s *MonitorSpec) (*Cost, error) {
	kind := event.Features
	if s.Model != "" {
		kind = event.Predictions
	}
	var sc *event.Schema
	for _, one := range st.Schemas() {
		if one.Namespace == namespace && one.Kind == kind && one.Subject == s.subject() {
			sc = one
		}
	}
	if sc == nil || s.Off {
		return nil, nil
	}
	cfg := s.config(namespace, s.subject(), sc)
	c := &Cost{Budget: cfg.Budget, Window: event.Duration(cfg.Window)}
	outputs := 0
	for _, w := range cfg.Columns {
		if _, described := event.ParseDescriptor(w.Name); w.Optional && described {
			continue // what is a text, or has vectors, is known once the reference is there
		}
		if w.Optional {
			outputs = 1 // of a model's outputs one has values: score, class or value
			continue
		}
		c.Columns++
	}
	c.Columns += outputs
	last, err := st.LastRows(ctx, cfg.Table, 24*time.Hour)
	if err != nil || last.Rows == 0 {
		return c, err
	}
	span := max(last.To.Sub(last.From), 10*time.Minute) // what began lately is taken to go on
	c.RowsADay = float64(last.Rows) * (24 * time.Hour).Seconds() / span.Seconds()
	if cfg.Window == 0 {
		c.Window = event.Duration(windowFor(c.RowsADay / (24 * time.Hour).Seconds()))
	}
	dimensions := s.Segments
	if len(dimensions) == 0 && kind == event.Predictions {
		if dimensions, err = st.SegmentNames(ctx, cfg.Table, last.From, last.To); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(dimensions))) {
		values, err := st.DimensionValues(ctx, cfg.Table, name, last.From, last.To, segmentValues)
		if err != nil {
			return nil, err
		}
		if len(values) > 0 {
			c.Dimensions++
			c.Segments += len(values) + 1
		}
	}
	c.estimate()
	return c, nil
}
