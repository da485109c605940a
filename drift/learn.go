package drift

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/store"
)

// learnWindows is how many windows a reference of first rows spans at least:
// the floor needs twenty.
const learnWindows = 24

// windowRows is how many rows a window of a chosen length holds on average.
const windowRows = 200

// windowLengths are what a chosen window may be.
func windowLengths() []time.Duration {
	return []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
}

// prepare finds the reference, finds or cuts the columns' grids, and learns the
// baselines, once.
func (m *Monitor) prepare(ctx context.Context, now time.Time, revision uint64) error {
	if m.baselines != nil {
		return nil
	}
	if m.cfg.File != "" {
		return m.fromFile(ctx, revision)
	}
	if err := m.locate(ctx, now); err != nil {
		return err
	}
	if err := m.cutGrids(ctx, revision); err != nil {
		return err
	}
	if err := m.learn(ctx); err != nil {
		return err
	}
	if err := m.recountAccepted(ctx); err != nil {
		return err
	}
	m.begin(m.cfg.To)
	m.outlook = ""
	return m.saveBaselines(ctx, revision)
}

// begin sets the first window to judge, unless judging is under way.
func (m *Monitor) begin(after time.Time) {
	start := upTo(after, m.cfg.Window)
	m.First = start
	if m.Next.Before(start) {
		m.Next = start
	}
}

// locate finds the range of a reference that is stated in rows, and the window
// that suits its rate.
func (m *Monitor) locate(ctx context.Context, now time.Time) error {
	if m.cfg.From.Before(m.cfg.To) {
		if err := m.settled(ctx, now); err != nil {
			return err
		}
		return m.chooseWindow(ctx)
	}
	first, err := m.store.FirstRows(ctx, m.cfg.Table, m.Answers.since(), m.cfg.First)
	if err != nil {
		return err
	}
	if first.Rows < uint64(m.cfg.First) {
		return &Learning{Rows: first.Rows, Of: uint64(m.cfg.First)}
	}
	span := first.To.Sub(first.From)
	if m.cfg.Window == 0 {
		m.cfg.Window = windowFor(float64(first.Rows) / max(span.Seconds(), 1))
	}
	first.From = upTo(first.From, m.cfg.Window) // a window that rows began in the middle of is no example
	least := first.From.Add(m.cfg.Window * learnWindows)
	if first.To.Before(least) {
		first.To = least
	}
	whole := upTo(first.To, m.cfg.Window)
	after, err := m.store.FirstRows(ctx, m.cfg.Table, whole.Add(m.lateness()), 1)
	if err != nil {
		return err
	}
	if after.Rows == 0 {
		return &Learning{Rows: first.Rows, Of: uint64(m.cfg.First), Windows: fmt.Sprintf("%d windows of %v, until %s", learnWindows, m.cfg.Window, whole.Format(time.RFC3339))}
	}
	came, err := m.store.Arrived(ctx, m.cfg.Table, first.From, whole)
	if err != nil {
		return err
	}
	if recent(came.Imported, now, settleAfter) {
		return &Learning{Rows: first.Rows, Of: uint64(m.cfg.First), Windows: "an import is under way"}
	}
	m.cfg.From, m.cfg.To = first.From, whole
	return nil
}

const (
	settleAfter = 15 * time.Second // without rows of a range, where some came behind it
	settleAlone = time.Minute      // and where none did
)

// settled says whether all rows of a stated range are there: its time is over,
// and no row of it has come for a while. Rows need not come in their order, least
// of all in the middle of an import, and what is learnt of a part stays.
func (m *Monitor) settled(ctx context.Context, now time.Time) error {
	n, err := m.store.CountRows(ctx, m.cfg.Table, m.cfg.From, m.cfg.To)
	if err != nil {
		return err
	}
	wait := func(format string, args ...any) error {
		return &Learning{Rows: n, Windows: fmt.Sprintf("%s rows of the reference are there, ", thousands(n)) + fmt.Sprintf(format, args...)}
	}
	over := m.cfg.To.Add(m.lateness())
	if over.After(now) {
		return wait("it is over at %s", over.Format(time.RFC3339))
	}
	came, err := m.store.Arrived(ctx, m.cfg.Table, m.cfg.From, m.cfg.To)
	if err != nil {
		return err
	}
	quiet := settleAlone
	if came.Beyond {
		quiet = settleAfter
	}
	if n == 0 || recent(came.Last, now, quiet) {
		return wait("and it waits until none has come for %v", quiet)
	}
	return nil
}

// recent says whether something happened within a while of now; clocks of
// processes may differ by less than that.
func recent(at, now time.Time, while time.Duration) bool {
	return !at.IsZero() && now.Sub(at).Abs() < while
}

// upTo is the next boundary of windows at a time or after it.
func upTo(t time.Time, window time.Duration) time.Time {
	start := t.UTC().Truncate(window)
	if start.Before(t) {
		start = start.Add(window)
	}
	return start
}

func (m *Monitor) chooseWindow(ctx context.Context) error {
	if m.cfg.Window != 0 {
		return nil
	}
	n, err := m.store.CountRows(ctx, m.cfg.Table, m.cfg.From, m.cfg.To)
	if err != nil {
		return err
	}
	m.cfg.Window = windowFor(float64(n) / m.cfg.To.Sub(m.cfg.From).Seconds())
	return nil
}

// windowFor is the shortest window that holds enough rows at a rate, rows a
// second.
func windowFor(rate float64) time.Duration {
	lengths := windowLengths()
	for _, w := range lengths {
		if rate*w.Seconds() >= windowRows {
			return w
		}
	}
	return lengths[len(lengths)-1]
}

// cutGrids takes the stored grid of each column, or cuts one from the
// reference. A column without values there is left out.
func (m *Monitor) cutGrids(ctx context.Context, revision uint64) error {
	stored, err := m.store.Grids(ctx, m.cfg.Table)
	if err != nil {
		return err
	}
	var fresh []store.SummaryColumn
	m.grids = nil
	for _, w := range m.cfg.Columns {
		if w.OfText != "" && m.refused[w.OfText] != errText.Error() {
			continue
		}
		if i := slices.IndexFunc(stored, func(c store.SummaryColumn) bool { return c.Name == w.Name }); i >= 0 {
			m.grids = append(m.grids, stored[i])
			continue
		}
		c, err := m.cutGrid(ctx, w, m.cfg.From, m.cfg.To)
		switch {
		case errors.Is(err, dist.ErrNoSample):
			if !w.Optional {
				m.refused[w.Name] = "the reference has no value of it"
			}
		case errors.Is(err, errIdentifier), errors.Is(err, errText):
			m.refused[w.Name] = err.Error()
		case err != nil:
			return err
		default:
			delete(m.refused, w.Name)
			fresh, m.grids = append(fresh, c), append(m.grids, c)
		}
	}
	if len(m.grids) == 0 {
		return fmt.Errorf("no column of %s has values in the reference", m.cfg.Subject)
	}
	return m.store.SaveGrids(ctx, m.cfg.Table, fresh, revision)
}

// Why a column of texts has no grid of its own.
var (
	errIdentifier = errors.New("it looks like an identifier: nearly every row has a value of its own")
	errText       = errors.New("it is a text: its descriptors are watched in its place")
)

// maxCategories bounds what is read of a column's categories.
const maxCategories = 50_000

func (m *Monitor) cutGrid(ctx context.Context, w WatchedColumn, from, to time.Time) (store.SummaryColumn, error) {
	cut := m.cutNumbers
	if w.Categorical {
		cut = m.cutCategories
	}
	g, err := cut(ctx, w.Name, from, to)
	return store.SummaryColumn{Name: w.Name, Grid: g}, err
}

func (m *Monitor) cutCategories(ctx context.Context, column string, from, to time.Time) (*dist.Grid, error) {
	counts, err := m.store.ColumnCategories(ctx, m.cfg.Table, column, from, to, maxCategories)
	if err != nil {
		return nil, err
	}
	rows := uint64(0)
	for _, n := range counts {
		rows += n
	}
	if rows >= 100 && float64(len(counts)) > 0.5*math.Min(float64(rows), maxCategories) {
		if written(counts) {
			return nil, errText
		}
		return nil, errIdentifier
	}
	g, err := dist.CategoryGrid(counts, dist.GridConfig{})
	if err != nil {
		return nil, fmt.Errorf("reference of %s: %w", column, err)
	}
	return g, nil
}

func (m *Monitor) cutNumbers(ctx context.Context, column string, from, to time.Time) (*dist.Grid, error) {
	anchor, err := m.store.Anchor(ctx, m.cfg.Table, column, from, to)
	if err != nil {
		return nil, err
	}
	sample, err := m.store.ColumnNumbers(ctx, m.cfg.Table, column, anchor, from, to, m.cfg.Sample)
	if err != nil {
		return nil, err
	}
	g, err := dist.NumericGrid(sample, dist.GridConfig{Anchor: anchor})
	if err != nil {
		return nil, fmt.Errorf("reference of %s: %w", column, err)
	}
	return g, nil
}

// written says that most of a column's values were written by somebody for
// somebody: three words or more, or letters of scripts that leave no room
// between words.
func written(counts map[string]uint64) bool {
	texts := 0
	for value := range counts {
		joined := strings.ContainsFunc(value, func(r rune) bool { return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai) })
		if joined || len(strings.Fields(value)) >= 3 {
			texts++
		}
	}
	return 2*texts > len(counts)
}

// learn derives the reference in windows of the monitor's length.
func (m *Monitor) learn(ctx context.Context) error {
	learnt := map[string]*Baseline{}
	var all []store.WindowSummary
	for group := range slices.Chunk(m.grids, 8) {
		windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, group, m.cfg.From, m.cfg.To, m.cfg.Window)
		if err != nil {
			return err
		}
		for _, c := range group {
			b, err := LearnBaseline(c.Grid, m.examples(c.Name, windows), 1)
			if err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
			if old := m.baselines[c.Name]; b.Reference.Rows() == b.Reference.Missing && old != nil && old.Grid.ID() == c.Grid.ID() {
				b = old // it came later than these rows
			}
			learnt[c.Name] = b
		}
		all = append(all, windows...)
	}
	m.baselines = learnt
	for _, c := range m.grids {
		m.renewEvidence(c, m.examples(c.Name, all))
	}
	m.learnVolume(all)
	return m.learnSegments(ctx)
}

// learnVolume counts each window of the reference once: every column has the
// same rows.
func (m *Monitor) learnVolume(windows []store.WindowSummary) {
	var slots []int
	var rows []float64
	for _, w := range windows {
		if w.Column == m.grids[0].Name && !m.disturbed(allRows, w.Start) && !w.Start.Add(m.cfg.Window).After(m.cfg.To) {
			slots, rows = append(slots, m.cfg.slot(w.Start)), append(rows, float64(w.Summary.Rows()))
		}
	}
	m.Volume = nil
	if len(rows) >= learnWindows-4 {
		m.Volume = learnVolume(slots, rows)
	}
}

// parts are a column's windows without those of its own incidents: what was
// wrong must not become what is right.
func (m *Monitor) parts(column string, windows []store.WindowSummary) []SlotWindow {
	var out []SlotWindow
	for _, w := range windows {
		if w.Column == column && !m.disturbed(column, w.Start) {
			out = append(out, SlotWindow{m.cfg.slot(w.Start), w.Summary})
		}
	}
	return out
}

// examples are the parts that a reference is learnt from. A reference that lies
// wholly within what was unquiet is what somebody asked for, or all that there is of
// a version: a column without one would be watched by nobody.
func (m *Monitor) examples(column string, windows []store.WindowSummary) []SlotWindow {
	parts := m.parts(column, windows)
	if len(parts) > 0 || m.renewed(column, m.cfg.To.Add(-m.cfg.Window)) {
		return parts
	}
	return m.allParts(slices.DeleteFunc(slices.Clone(windows), func(w store.WindowSummary) bool { return w.Column != column }))
}

func (m *Monitor) disturbed(column string, start time.Time) bool {
	for _, r := range m.Unquiet[column] {
		if start.Before(r[1]) && !start.Before(r[0]) {
			return true
		}
	}
	return false
}

// renewColumns learns columns anew from where people accepted them as the new
// normal: for good in the place of their reference, until a time beside it. All of
// them are stored as one, for the state that is stored says that they are accepted.
func (m *Monitor) renewColumns(ctx context.Context, revision uint64) error {
	if len(m.renew) == 0 {
		return nil
	}
	for _, r := range m.renew {
		renew := m.learnAccepted
		if r.incident.Until.IsZero() {
			renew = m.replaceReference
		}
		if err := renew(ctx, r); err != nil {
			return err
		}
	}
	if err := m.saveBaselines(ctx, revision); err != nil {
		return err
	}
	m.renew = nil
	return nil
}

// replaceReference learns a column from a time on; what it was before is no
// example for longer references either.
func (m *Monitor) replaceReference(ctx context.Context, r renewal) error {
	name := r.incident.Column
	if m.Unquiet == nil {
		m.Unquiet = map[string][][2]time.Time{}
	}
	window := m.cfg.Window
	if _, _, ok := ofSegment(name); ok && m.segments != nil {
		window = m.segments.window
	}
	m.Unquiet[name] = [][2]time.Time{{{}, r.from.Truncate(window)}}
	if i := slices.IndexFunc(m.grids, func(c store.SummaryColumn) bool { return c.Name == name }); i >= 0 {
		return m.learnColumn(ctx, m.grids[i], r.from.Truncate(m.cfg.Window))
	}
	if column, segment, ok := ofSegment(name); ok {
		return m.renewSegment(ctx, column, segment, r.from)
	}
	return nil
}

// learnColumn learns one column from a time on.
func (m *Monitor) learnColumn(ctx context.Context, c store.SummaryColumn, from time.Time) error {
	windows, err := m.store.DeriveSummaries(ctx, m.cfg.Table, []store.SummaryColumn{c}, from, m.Next, m.cfg.Window)
	if err != nil {
		return fmt.Errorf("learn %s: %w", c.Name, err)
	}
	parts := m.parts(c.Name, windows)
	b, err := LearnBaseline(c.Grid, parts, 1)
	if err != nil {
		return fmt.Errorf("learn %s: %w", c.Name, err)
	}
	m.baselines[c.Name] = b
	m.referenceEvidence(c.Name, evidenceOf(c, parts))
	return nil
}

// stages are the lengths of history at which a growing reference is learnt
// anew, and the season that it then knows.
func stages() [][2]time.Duration {
	const day = 24 * time.Hour
	return [][2]time.Duration{{4 * day, day}, {28 * day, 7 * day}}
}

// grow learns a longer reference once there is enough history and no incident
// is open. Verdicts given keep what they said.
func (m *Monitor) grow(ctx context.Context, revision uint64) error {
	if !m.cfg.Grow || m.baselines == nil || m.watch.open() > 0 {
		return nil
	}
	for _, s := range slices.Backward(stages()) {
		length, season := s[0], s[1]
		if m.cfg.Season >= season || m.Next.Sub(m.cfg.From) < length || season%m.cfg.Window != 0 {
			continue
		}
		old, known := m.cfg, m.baselines
		m.cfg.To, m.cfg.Season = m.cfg.From.Add(length), season
		if err := m.learn(ctx); err != nil {
			m.cfg = old
			return fmt.Errorf("learn a longer reference: %w", err)
		}
		m.overlay(known, known)
		return m.saveBaselines(ctx, revision)
	}
	return nil
}
