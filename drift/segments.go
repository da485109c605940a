package drift

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

const (
	segmentWindow    = 15 * time.Minute // the shortest in which segments are judged
	defaultBudget    = 15_000           // columns × segments of a monitor: 300 × 50
	segmentsAtOnce   = 20               // windows of one Tick; the next one goes on
	segmentsLearnt   = 1000             // windows of the reference that segments are learnt from, the newest
	leastSegmentRows = 30               // a segment with fewer in its window says nothing
)

// segmentWatch holds every segment of a monitor's dimensions against its own
// past. It rides on the monitor: same grids, same reference range. What a
// segment says becomes an incident only while all rows together are silent about
// the column, for otherwise it says the same thing again.
type segmentWatch struct {
	window    time.Duration
	by        []store.Dimension
	baselines map[string]map[string]*Baseline // by segment, by column
	capped    []string                        // dimensions that the budget left out
}

// segmentMemory is a segmentWatch as it is stored, beside a part for every
// segment with its columns' baselines, which need no grids: the monitor has them.
type segmentMemory struct {
	By     []store.Dimension `json:"by"`
	Window time.Duration     `json:"window"`
	Capped []string          `json:"capped,omitempty"`
}

type storedBaseline struct {
	Reference []byte         `json:"reference"` // packed
	Shape     *control.Floor `json:"shape,omitempty"`
	Missing   *control.Floor `json:"missing,omitempty"`
}

// parts of the stored state.
const (
	segmentsPart = "segments"
	segmentPart  = "segment/"
)

// segmentColumn is what a segment's column is called where columns are named:
// "amount [district=harbour]".
func segmentColumn(column, segment string) string { return fmt.Sprintf("%s [%s]", column, segment) }

// ofSegment takes such a name apart.
func ofSegment(name string) (column, segment string, ok bool) {
	column, segment, ok = strings.Cut(strings.TrimSuffix(name, "]"), " [")
	return column, segment, ok && strings.HasSuffix(name, "]")
}

// segmentLength is the window in which segments are judged: their rows are few.
func segmentLength(w time.Duration) time.Duration {
	for _, l := range windowLengths() {
		if l >= segmentWindow && l >= w && l%w == 0 {
			return l
		}
	}
	return w * ((segmentWindow + w - 1) / w)
}

// learnSegments finds the values of each dimension in the reference and learns
// every segment from its windows there. A reference from a file has none.
func (m *Monitor) learnSegments(ctx context.Context) error {
	m.segments = &segmentWatch{}
	if m.cfg.File != "" {
		return nil
	}
	names, err := m.dimensions(ctx)
	if err != nil || len(names) == 0 {
		return err
	}
	s := &segmentWatch{window: segmentLength(m.cfg.Window), baselines: map[string]map[string]*Baseline{}}
	left := max(m.cfg.Budget/max(len(m.grids), 1), 0)
	for _, name := range names {
		values, err := m.store.DimensionValues(ctx, m.cfg.Table, name, m.cfg.From, m.cfg.To, min(segmentValues, max(left-1, 1)))
		if err != nil {
			return err
		}
		if len(values) == 0 {
			continue
		}
		if left < 2 {
			s.capped = append(s.capped, name)
			continue
		}
		left -= len(values) + 1
		s.by = append(s.by, store.Dimension{Name: name, Values: values})
	}
	for _, by := range s.by {
		if err := m.learnDimension(ctx, s, by); err != nil {
			return err
		}
	}
	m.segments = s
	return nil
}

// dimensions are the declared ones; a model's predictions declare theirs by
// carrying them.
func (m *Monitor) dimensions(ctx context.Context) ([]string, error) {
	if len(m.cfg.Segments) > 0 || m.cfg.Table.Kind != event.Predictions {
		return m.cfg.Segments, nil
	}
	return m.store.SegmentNames(ctx, m.cfg.Table, m.cfg.From, m.cfg.To)
}

func (m *Monitor) learnDimension(ctx context.Context, s *segmentWatch, by store.Dimension) error {
	from := upTo(m.cfg.From, s.window)
	if newest := m.cfg.To.Truncate(s.window).Add(-segmentsLearnt * s.window); from.Before(newest) {
		from = newest
	}
	for _, c := range m.grids {
		windows, err := m.store.DeriveSegments(ctx, m.cfg.Table, by, []store.SummaryColumn{c}, from, m.cfg.To, s.window)
		if err != nil {
			return fmt.Errorf("segments by %s: %w", by.Name, err)
		}
		if err := s.learn(c, windows, m.disturbed); err != nil {
			return err
		}
	}
	return nil
}

// learn makes a column's baselines from its segments' windows.
func (s *segmentWatch) learn(c store.SummaryColumn, windows []store.WindowSummary, disturbed func(string, time.Time) bool) error {
	parts := map[string][]SlotWindow{}
	for _, w := range windows {
		if !disturbed(c.Name, w.Start) && !disturbed(segmentColumn(c.Name, w.Segment), w.Start) {
			parts[w.Segment] = append(parts[w.Segment], SlotWindow{Summary: w.Summary})
		}
	}
	for segment, p := range parts {
		b, err := LearnBaseline(c.Grid, p, 1)
		if err != nil {
			return fmt.Errorf("segment %s of %s: %w", segment, c.Name, err)
		}
		if s.baselines[segment] == nil {
			s.baselines[segment] = map[string]*Baseline{}
		}
		s.baselines[segment][c.Name] = b
	}
	return nil
}

// renewSegment learns a segment's column anew from where people accepted it as
// the new normal.
func (m *Monitor) renewSegment(ctx context.Context, column, segment string, from time.Time) error {
	windows, grid, err := m.segmentBetween(ctx, column, segment, from, m.Segmented)
	if err != nil || grid == nil {
		return err
	}
	return m.segments.learn(*grid, windows, m.disturbed)
}

// segmentBetween counts a segment's column in a range of time; no grid: it is not
// watched.
func (m *Monitor) segmentBetween(ctx context.Context, column, segment string, from, to time.Time) ([]store.WindowSummary, *store.SummaryColumn, error) {
	if m.segments == nil {
		return nil, nil, nil
	}
	i := slices.IndexFunc(m.grids, func(c store.SummaryColumn) bool { return c.Name == column })
	name, _, _ := strings.Cut(segment, "=")
	k := slices.IndexFunc(m.segments.by, func(d store.Dimension) bool { return d.Name == name })
	if i < 0 || k < 0 {
		return nil, nil, nil
	}
	windows, err := m.store.DeriveSegments(ctx, m.cfg.Table, m.segments.by[k], m.grids[i:i+1], from.Truncate(m.segments.window), to, m.segments.window)
	if err != nil {
		return nil, nil, fmt.Errorf("learn %s of %s anew: %w", column, segment, err)
	}
	return slices.DeleteFunc(windows, func(w store.WindowSummary) bool { return w.Segment != segment }), &m.grids[i], nil
}

// judgeSegments judges the windows of segments that are over, and those again
// that late rows reached.
func (m *Monitor) judgeSegments(ctx context.Context, late []time.Time, revision uint64) error {
	if m.segments == nil { // what is stored was learnt before there were segments
		if err := m.learnSegments(ctx); err != nil {
			return err
		}
		if err := m.saveBaselines(ctx, revision); err != nil {
			return err
		}
	}
	s := m.segments
	if len(s.by) == 0 {
		return nil
	}
	if m.Segmented.Before(m.First) {
		m.Segmented = upTo(m.First, s.window)
	}
	var again []time.Time
	for _, t := range late {
		if start := t.Truncate(s.window); start.Before(m.Segmented) && !start.Before(m.held()) && !slices.Contains(again, start) {
			again = append(again, start)
		}
	}
	for _, start := range again {
		if err := m.judgeSegmentsOf(ctx, start, revision, false); err != nil {
			return fmt.Errorf("segments of %s again: %w", start.Format(time.RFC3339), err)
		}
	}
	for n := 0; n < segmentsAtOnce && !m.Segmented.Add(s.window).After(m.Next); n++ {
		if err := m.judgeSegmentsOf(ctx, m.Segmented, revision, true); err != nil {
			return fmt.Errorf("segments of %s: %w", m.Segmented.Format(time.RFC3339), err)
		}
		m.Segmented = m.Segmented.Add(s.window)
	}
	return nil
}

// judgeSegmentsOf judges one window of every segment, all of them as one tick.
func (m *Monitor) judgeSegmentsOf(ctx context.Context, start time.Time, revision uint64, first bool) error {
	end := start.Add(m.segments.window)
	if first {
		m.lapse(start, true)
	}
	columns, err := m.segmentColumns(ctx, start, end, first)
	if err != nil {
		return err
	}
	first = first && !m.past(start, end)
	var out []store.SegmentVerdict
	for i, j := range Judge(columns, 0, m.cfg.Options) {
		c := columns[i/questions]
		j.Severity = min(j.Severity, control.Warning)
		v := m.verdict(c, Finding{Judgement: j, At: end}, start, end)
		if first {
			m.stepSegment(c, j, v.Sentence, end)
		}
		if !j.Drifted { // nearly all of thousands: their numbers say it
			v.Sentence = ""
		}
		out = append(out, store.SegmentVerdict{Verdict: v, Segment: c.Segment})
	}
	return m.store.SaveSegmentVerdicts(ctx, out, revision)
}

// segmentColumns count a window, segment by segment. What has too few rows on
// either side is left out, and what keeps its verdict when it is judged again.
func (m *Monitor) segmentColumns(ctx context.Context, start, end time.Time, first bool) ([]Column, error) {
	var out []Column
	for _, by := range m.segments.by {
		windows, err := m.store.DeriveSegments(ctx, m.cfg.Table, by, m.grids, start, end, m.segments.window)
		if err != nil {
			return nil, err
		}
		for _, w := range windows {
			name := segmentColumn(w.Column, w.Segment)
			b := m.heldAgainst(name, start, 0, m.segments.baselines[w.Segment][w.Column], w.Summary)
			if b == nil || w.Summary.Rows() < leastSegmentRows || b.Reference.Rows() < leastSegmentRows || !first && m.renewed(name, start) {
				continue
			}
			out = append(out, Column{Name: w.Column, Segment: w.Segment, Baseline: b, Window: w.Summary, Importance: m.importance(w.Column), Names: m.names[w.Column]})
		}
	}
	return out, nil
}

// stepSegment keeps an incident of its own for a segment's column.
func (m *Monitor) stepSegment(c Column, j Judgement, sentence string, end time.Time) {
	if m.watch.Incidents[incidentKey(j.Column, j.Detector)].Open {
		j.Drifted = false
	}
	j.Column = segmentColumn(c.Name, c.Segment)
	key := incidentKey(j.Column, j.Detector)
	was, known := m.watch.Incidents[key]
	if !j.Drifted && !known {
		return // thousands of segments with nothing to say need no memory
	}
	f := m.watch.Step(j, end)
	v := store.Verdict{Sentence: sentence}
	m.hush(&v, f)
	if is := m.watch.Incidents[key]; !is.Open && !was.Open && !slices.Contains(is.Recent, true) && end.Sub(is.Ended) > m.cfg.Policy.Cooldown {
		delete(m.watch.Incidents, key)
	}
}

// packSegments adds what is stored of the segments.
func (m *Monitor) packSegments(parts map[string]string) error {
	if m.segments == nil {
		return nil
	}
	text, err := json.Marshal(segmentMemory{By: m.segments.by, Window: m.segments.window, Capped: m.segments.capped})
	if err != nil {
		return fmt.Errorf("save segments: %w", err)
	}
	parts[segmentsPart] = string(text)
	for segment, columns := range m.segments.baselines {
		kept := map[string]storedBaseline{}
		for name, b := range columns {
			packed, err := b.Reference.MarshalBinary()
			if err != nil {
				return fmt.Errorf("save segment %s of %s: %w", segment, name, err)
			}
			kept[name] = storedBaseline{packed, b.Shape, b.Missing}
		}
		if text, err = json.Marshal(kept); err != nil {
			return fmt.Errorf("save segment %s: %w", segment, err)
		}
		parts[segmentPart+segment] = string(text)
	}
	return nil
}

// unpackSegments reads what packSegments wrote. Columns whose grid has changed
// since are left out; they are learnt anew with the next reference.
func (m *Monitor) unpackSegments(parts map[string]string) error {
	m.segments = nil
	if parts[segmentsPart] == "" {
		return nil
	}
	var was segmentMemory
	if err := json.Unmarshal([]byte(parts[segmentsPart]), &was); err != nil {
		return fmt.Errorf("read segments: %w", err)
	}
	grids := map[string]*dist.Grid{}
	for _, c := range m.grids {
		grids[c.Name] = c.Grid
	}
	s := &segmentWatch{window: was.Window, by: was.By, capped: was.Capped, baselines: map[string]map[string]*Baseline{}}
	for _, by := range was.By {
		for _, segment := range by.Segments() {
			read, err := unpackSegment(parts[segmentPart+segment], grids)
			if err != nil {
				return fmt.Errorf("read segment %s: %w", segment, err)
			}
			s.baselines[segment] = read
		}
	}
	m.segments = s
	return nil
}

func unpackSegment(text string, grids map[string]*dist.Grid) (map[string]*Baseline, error) {
	out := map[string]*Baseline{}
	if text == "" {
		return out, nil
	}
	var kept map[string]storedBaseline
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return nil, err
	}
	for name, k := range kept {
		ref := new(dist.Summary)
		if err := ref.UnmarshalBinary(k.Reference); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if g := grids[name]; g != nil && g.ID() == ref.GridID {
			out[name] = &Baseline{Grid: g, Reference: ref, Shape: k.Shape, Missing: k.Missing}
		}
	}
	return out, nil
}
