package drift

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/store"
)

// Champion is the version of a model that answers now.
type Champion struct {
	Version  string
	Artifact string    // digest of what is served
	Since    time.Time // when it was promoted

	// Training reads what its training rows looked like, by column of the
	// predictions: grid and reference, without floors. Columns may be absent.
	Training func() (map[string]*Baseline, error)
}

// answering is the champion whose reference a monitor stands on.
type answering struct {
	Version  string    `json:"version"`
	Artifact string    `json:"artifact"`
	From     time.Time `json:"from"`    // its first rows are those from here on; zero: from the beginning
	Trained  []string  `json:"trained"` // columns that are held against its training rows
	Again    bool      `json:"again"`   // so it was under an earlier definition
}

func (a answering) since() time.Time {
	if a.From.IsZero() {
		return time.Unix(0, 0)
	}
	return a.From
}

// anew is what stays of it under another definition: that a version was
// promoted, and its first rows.
func (a answering) anew() answering {
	return answering{From: a.From, Again: a.Again || len(a.Trained) > 0}
}

func (a answering) name() string {
	return fmt.Sprintf("training of version %s (%.12s)", a.Version, a.Artifact)
}

// crown says who answers. It counts from the next Tick on.
func (m *Monitor) crown(c Champion) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crowned = &c
}

// promote gives the monitor the reference of a champion that is new to it, once
// the windows before its promotion are judged: verdicts given stay under the
// reference that they name, and late rows no longer reach them. A monitor whose
// reference is a range or a file keeps it.
func (m *Monitor) promote(ctx context.Context, revision uint64) error {
	c := m.crowned
	if c == nil || c.Version == m.Answers.Version && c.Artifact == m.Answers.Artifact {
		return nil
	}
	first := m.Answers.Version == ""
	if !m.cfg.Follow || first && !m.cfg.Training && !m.Answers.Again {
		m.Answers.Version, m.Answers.Artifact = c.Version, c.Artifact
		return m.saveBaselines(ctx, revision)
	}
	if m.Live && !first && m.Next.Before(upTo(c.Since, m.cfg.Window)) {
		return nil
	}
	training, err := c.Training()
	if err != nil {
		m.refused[allRows] = fmt.Sprintf("what version %s learnt from cannot be read: %v", c.Version, err)
		training = nil
	}
	trained := m.known(training)
	if len(trained) == 0 {
		return m.learnPromoted(ctx, c, revision)
	}
	return m.standOn(ctx, c, trained, revision)
}

// known are the training references that fit the columns as they are stored: a
// number is no category, and categories must be spelt alike.
func (m *Monitor) known(training map[string]*Baseline) map[string]*Baseline {
	out := map[string]*Baseline{}
	for _, c := range m.grids {
		b := training[c.Name]
		if b == nil || b.Grid == nil || b.Reference == nil || b.Grid.Categorical() != c.Grid.Categorical() || b.Reference.Rows() == b.Reference.Missing {
			continue
		}
		if b.Grid.Categorical() && !slices.ContainsFunc(c.Grid.Categories, func(name string) bool { return slices.Contains(b.Grid.Categories, name) }) {
			continue
		}
		out[c.Name] = b
	}
	return out
}

// standOn changes references. How restless a column is from window to window is
// not in a training set: floors are learnt anew, on the new grids, from the rows
// they were learnt from before.
func (m *Monitor) standOn(ctx context.Context, c *Champion, trained map[string]*Baseline, revision uint64) error {
	old, grids, volume, was := m.baselines, m.grids, m.Volume, m.Answers
	m.grids = slices.Clone(grids)
	for i := range m.grids {
		if b := trained[m.grids[i].Name]; b != nil {
			m.grids[i].Grid = b.Grid
		}
	}
	m.Answers = answering{Version: c.Version, Artifact: c.Artifact, From: was.From, Trained: slices.Sorted(maps.Keys(trained))}
	accepted := m.Accepted
	err := m.learn(ctx)
	if err == nil {
		err = m.recountAccepted(ctx)
	}
	if err != nil {
		m.baselines, m.grids, m.Volume, m.Answers, m.Accepted = old, grids, volume, was, accepted
		return fmt.Errorf("take the reference of version %s: %w", c.Version, err)
	}
	m.overlay(trained, old)
	if m.Volume == nil {
		m.Volume = volume
	}
	if err := m.store.SaveGrids(ctx, m.cfg.Table, m.grids, revision); err != nil {
		return err
	}
	m.Switched = m.Next
	var minutes []time.Time
	for t := m.Next; t.Before(m.Seen); t = t.Add(base) { // counted on the old grids
		minutes = append(minutes, t)
	}
	if err := m.deriveMinutes(ctx, minutes, revision); err != nil {
		return err
	}
	return m.saveBaselines(ctx, revision)
}

// overlay puts the champion's training rows in the place of what was learnt of
// the same columns, and keeps the floors. A training set has no seasons: its
// windows are held against the whole of it, by the floor of their slot.
func (m *Monitor) overlay(trained, old map[string]*Baseline) {
	for _, name := range m.Answers.Trained {
		t, now := trained[name], m.baselines[name]
		if t == nil {
			continue
		}
		b := &Baseline{Grid: t.Grid, Reference: t.Reference}
		if now != nil {
			b.Shape, b.Missing = now.Shape, now.Missing
		}
		if was := old[name]; b.Shape == nil && was != nil { // the rows are gone
			b.Shape, b.Missing = was.Shape, was.Missing
		}
		m.baselines[name] = b
	}
}

// learnPromoted waits for the first rows of a champion whose training is not
// known.
func (m *Monitor) learnPromoted(ctx context.Context, c *Champion, revision uint64) error {
	m.Answers = answering{Version: c.Version, Artifact: c.Artifact, From: m.Next}
	m.cfg.From, m.cfg.To = time.Time{}, time.Time{}
	m.cfg.Window, m.cfg.Season, m.Switched = m.asked.Window, m.asked.Season, m.Next
	m.baselines, m.segments, m.Volume = nil, nil, nil
	m.grids = []store.SummaryColumn{}
	clear(m.evidence)
	return m.saveBaselines(ctx, revision)
}
