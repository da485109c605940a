package features

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// HistoryConfig bounds what a join takes.
type HistoryConfig struct {
	Memory int64 // bytes, half of them for the engine; default 1 GiB. Larger frames take more passes over the rows
}

// History answers what was known of entities at times in the past: training
// sets that hold what serving would have seen.
type History struct {
	cfg    HistoryConfig
	online *Online // for the definitions
	store  *store.Store
}

// NewHistory makes a History over stored rows.
func NewHistory(cfg HistoryConfig, o *Online, st *store.Store) *History {
	if cfg.Memory == 0 {
		cfg.Memory = 1 << 30
	}
	return &History{cfg: cfg, online: o, store: st}
}

// HistoryRequest asks for features of entity rows.
type HistoryRequest struct {
	Namespace string
	Features  []string // "view:feature"; or
	Service   string   // a feature service
	FullNames bool     // view__feature rather than feature
	// TimeColumn of the entity frame says when each row is asked for; default
	// event_timestamp.
	TimeColumn string
	// IgnoreKnownAt joins on event_time alone, as Feast does by default: rows
	// that were written later than the time asked for then leak into it.
	IgnoreKnownAt bool
	// FromPredictions names a model whose stored predictions are the entity
	// frame, with what they were given and answered; then no features need be
	// asked for. WithLabels leaves those without a label out and adds label,
	// label_class and weight.
	FromPredictions string
	WithLabels      bool
	From, To        int64 // of FromPredictions, µs: from ≤ event_time < to; To 0: no bound
	// AllEntities makes an entity frame of every key that the asked views have
	// rows of, once for each of At (µs).
	AllEntities bool
	At          []int64
	// Labels makes an entity frame of a view's rows, whose column is the label.
	Labels *LabelRequest
	// Until bounds what is read by offset, so that the same question has the same
	// answer later; nil: all that has landed.
	Until store.Bounds
	// Sample keeps a share of the rows of FromPredictions or Labels.
	Sample store.Sample
	// Hides says what whoever asks may not see; nil: nothing.
	Hides Hides
	// Progress is told how many entity rows are done; nil: nobody is.
	Progress func(rows int64)
}

// LabelRequest says which rows of a view are labels: one per key and time.
type LabelRequest struct {
	View, Column string
	Weight       string // column of row weights; empty: none
	From, To     int64  // µs: from ≤ event_time < to; To 0: no bound
	Lead         int64  // µs before the label's time by which features must have been known
}

// HistoryReport says what a join did.
type HistoryReport struct {
	Rows  int64                 `json:"rows"` // in and out
	Views map[string]ViewReport `json:"views"`
}

// ViewReport counts entity rows per view.
type ViewReport struct {
	// NotYetKnown: the newest row before the time asked for was not known then;
	// an older one, or none, was used.
	NotYetKnown int64 `json:"not_yet_known"`
	// WithoutValue: no row, a deleted one, or one older than the ttl.
	WithoutValue int64 `json:"without_value"`
}

// FrameReader yields an entity frame: io.EOF after the last record. A record is
// valid until it is released.
type FrameReader interface {
	Schema() *arrow.Schema
	Read() (arrow.RecordBatch, error)
}

// FrameWriter takes the answer's records. Open comes first, Close last.
type FrameWriter interface {
	Open(*arrow.Schema) error
	Write(arrow.RecordBatch) error
	Close() error
}

// Join reads entity rows and writes the same rows, in order and duplicates
// kept, with the features behind their own columns. It holds a bounded number
// of entity rows at a time and reads the stored rows once per so many.
func (h *History) Join(ctx context.Context, req HistoryRequest, in FrameReader, out FrameWriter) (*HistoryReport, error) {
	p, err := h.plan(req, in.Schema())
	if err != nil {
		return nil, err
	}
	if err := out.Open(p.schema); err != nil {
		return nil, fmt.Errorf("history: write the answer's head: %w", err)
	}
	report := &HistoryReport{Views: map[string]ViewReport{}}
	for {
		chunk, err := p.read(in)
		if err != nil {
			return nil, err
		}
		if chunk.rows == 0 {
			break
		}
		err = h.joinChunk(ctx, p, chunk, report)
		if err == nil {
			err = chunk.write(p, out)
		}
		chunk.release()
		if err != nil {
			return nil, err
		}
		report.Rows += int64(chunk.rows)
		if req.Progress != nil {
			req.Progress(report.Rows)
		}
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("history: write the answer's end: %w", err)
	}
	return report, nil
}

// joinChunk joins every view with the chunk's entity rows.
func (h *History) joinChunk(ctx context.Context, p *historyPlan, c *chunk, report *HistoryReport) error {
	for i := range p.views {
		v := &p.views[i]
		j, err := h.joinView(ctx, p, v, c)
		if err != nil {
			return err
		}
		c.joined = append(c.joined, j)
		r := report.Views[v.view.Name]
		r.NotYetKnown += int64(j.early)
		r.WithoutValue += int64(j.missing + j.expired)
		report.Views[v.view.Name] = r
	}
	return nil
}

func (h *History) joinView(ctx context.Context, p *historyPlan, v *historyView, c *chunk) (*joined, error) {
	var keys []*event.Column
	for _, at := range v.keys {
		keys = append(keys, &c.keys[at])
	}
	schema := v.view.Schema
	if w := v.view.windows; w != nil {
		return h.joinWindows(ctx, p, w.plan, v, newQuestions(keys, c.at), firstKeys(keys[0]))
	}
	if err := h.store.Prepare(ctx, []*event.Schema{schema}); err != nil {
		return nil, fmt.Errorf("history of view %s: %w", v.view.Name, err)
	}
	ttl := int64(v.view.Spec.TTL) / 1000
	r := HistoryRange{Schema: schema, Columns: v.columns, From: event.MinTime, To: slices.Max(c.at)}
	if ttl > 0 {
		r.From = slices.Min(c.at) - ttl
	}
	ask := store.HistoryQuery{Schema: schema, Columns: v.columns, From: r.From, To: r.To, Memory: h.cfg.Memory / 2, Until: p.until}
	var other sync.WaitGroup
	other.Go(func() { ask.FirstKeys = firstKeys(keys[0]) })
	q := newQuestions(keys, c.at)
	other.Wait()
	return onDisk(ask, func(ask store.HistoryQuery) (*joined, error) {
		if v.wide() && schema.From == nil {
			if j, err := h.joinTwice(ctx, q, keys[0], r, v, ask, p.leaky); j != nil || err != nil {
				return j, err
			}
		}
		return join(q, r, v.types, ttl, p.leaky, h.store.History(ctx, ask))
	})
}

// onDisk does a join again, with rows that are sorted on disk, if the engine's
// share of the memory is too small for the parts of the table.
func onDisk(ask store.HistoryQuery, do func(store.HistoryQuery) (*joined, error)) (*joined, error) {
	j, err := do(ask)
	if err != nil && !ask.Sorted && store.OutOfMemory(err) {
		ask.Sorted = true
		return do(ask)
	}
	return j, err
}

// joinWindows aggregates the source's rows as they were known at each time.
func (h *History) joinWindows(ctx context.Context, p *historyPlan, w *windowPlan, v *historyView, q *questions, first []string) (*joined, error) {
	if err := h.store.Prepare(ctx, []*event.Schema{w.source}); err != nil {
		return nil, fmt.Errorf("history of view %s: %w", v.view.Name, err)
	}
	ask := store.HistoryQuery{Schema: w.source, Columns: w.columnNames(), From: slices.Min(q.at) - w.reach(), To: slices.Max(q.at), FirstKeys: first, Memory: h.cfg.Memory / 2, Until: p.until}
	return onDisk(ask, func(ask store.HistoryQuery) (*joined, error) {
		return joinWindows(q, w, w.outputsOf(v.columns), p.leaky, nil, h.store.History(ctx, ask))
	})
}

// outputsOf are the positions of features by name.
func (p *windowPlan) outputsOf(names []string) (at []int) {
	for _, n := range names {
		at = append(at, p.layout.byName[n])
	}
	return at
}

// firstKeys are the distinct values of the first key column, sorted, as the
// store takes them; nil for types whose text could be ambiguous.
func firstKeys(c *event.Column) []string {
	switch c.Type.Elem {
	case event.Int32, event.Int64:
		n := make([]int64, c.Len())
		for i := range n {
			n[i] = columnNumber(c, i).i
		}
		slices.Sort(n)
		n = slices.Compact(n)
		if len(n) > 1000 { // the ends are enough
			n = append(n[:1000:1000], n[len(n)-1])
		}
		out := make([]string, len(n))
		for i, v := range n {
			out[i] = strconv.FormatInt(v, 10)
		}
		return out
	case event.String:
		return firstTexts(c)
	}
	return nil
}

func firstTexts(c *event.Column) []string {
	if c.Len() == 0 {
		return nil
	}
	seen, low, high := map[string]bool{}, c.Str(0), c.Str(0)
	for i := range c.StrEnds {
		s := c.Str(i)
		if len(seen) <= 1000 {
			seen[string(s)] = true
		}
		if bytes.Compare(s, low) < 0 {
			low = s
		}
		if bytes.Compare(s, high) > 0 {
			high = s
		}
	}
	out := slices.Sorted(maps.Keys(seen))
	out[0], out[len(out)-1] = string(low), string(high) // of more than 1000 the ends are enough
	return out
}

// bytesPerRow is what one entity row takes while it is joined, roughly: its own
// columns, what is found of each view, and what one view's join takes meanwhile.
// Of the answer a record at a time is made.
func (p *historyPlan) bytesPerRow() int64 {
	own, keys := len(p.schema.Fields())-len(p.columns), 0
	n := int64(16 + 24*own)
	for _, v := range p.views {
		keys = max(keys, len(v.keys))
		n += 16
		for _, t := range v.types {
			if w := fixedWidth(t); w > 0 {
				n += int64(w + 1)
			} else {
				n += 96
			}
		}
	}
	return n + 160 + int64(40*keys)
}
