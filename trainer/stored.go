package trainer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

// Stored makes training sets of stored rows. Everything is streamed: memory
// holds the matrix and one chunk of the join.
type Stored struct {
	History  *features.History
	Store    *store.Store
	Registry *registry.Registry
	Memory   int64 // bytes that a run may take ([ErrMemory]); 0: no bound
}

// Source returns what reads a frozen job's rows, as of the offsets that have
// landed when it is first called; with offsets given, as of those.
func (s *Stored) Source(namespace string, d DataSpec, until store.Bounds) func(context.Context) (*Matrix, model.Data, error) {
	return func(ctx context.Context) (*Matrix, model.Data, error) {
		bounds := until
		if bounds == nil {
			var err error
			if bounds, err = s.Store.Positions(ctx, namespace); err != nil {
				return nil, model.Data{}, err
			}
		}
		req := d.request(namespace)
		req.Until = bounds
		out := model.Data{From: d.From, To: d.To, Offsets: flatBounds(bounds), Definitions: map[string]any{}}
		query, err := json.Marshal(d)
		if err != nil {
			return nil, out, err
		}
		out.Query = string(query)
		asked, uses, err := s.History.Describe(req)
		if err != nil {
			return nil, out, fmt.Errorf("%s: %w", d.about(), err)
		}
		versions := s.versions(namespace, uses)
		for name, v := range versions {
			out.Definitions[name] = v
		}
		w := &matrixWriter{data: d, asked: asked, versions: versions, limits: DefaultBuilderConfig()}
		w.limits.MaxBytes = s.Memory
		if _, err := s.History.JoinStored(ctx, req, w); err != nil {
			return nil, out, fmt.Errorf("%s: %w", d.about(), err)
		}
		if w.builder == nil {
			return nil, out, fmt.Errorf("%w: %s has none from %s to %s: check the range, the labels and the join keys", ErrNoRows, d.about(), d.From.Format("2006-01-02 15:04"), d.To.Format("2006-01-02 15:04"))
		}
		m, err := w.builder.Matrix()
		return m, out, err
	}
}

func (d *DataSpec) request(namespace string) features.HistoryRequest {
	req := features.HistoryRequest{
		Namespace: namespace, Features: d.Features, Service: d.Service, FullNames: d.FullNames,
		FromPredictions: d.Predictions, WithLabels: d.Predictions != "",
		From: d.From.UnixMicro(), To: d.To.UnixMicro(), Sample: store.Sample{Share: d.Sample, Seed: d.Seed},
	}
	if d.From.IsZero() {
		req.From = 0
	}
	if l := d.Labels; l != nil {
		req.Labels = &features.LabelRequest{View: l.View, Column: l.Column, Weight: l.Weight, From: req.From, To: req.To, Lead: int64(l.Lead) / 1000}
	}
	return req
}

// versions are the live versions of definitions by "Kind/name".
func (s *Stored) versions(namespace string, names []string) map[string]uint64 {
	out := map[string]uint64{}
	state := s.Registry.State()
	for _, id := range names {
		kind, name, _ := strings.Cut(id, "/")
		if d, ok := state.Get(kind, namespace, name); ok {
			out[id] = d.Version
		}
	}
	return out
}

// Verify reads a run's rows again and answers its digest now. The error says
// which definitions have changed since.
func (s *Stored) Verify(ctx context.Context, r Run) (*Matrix, error) {
	var d DataSpec
	if err := json.Unmarshal([]byte(r.Data.Query), &d); err != nil {
		return nil, fmt.Errorf("%w: run %s did not read stored rows", ErrParam, r.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(r.Data.Definitions)) {
		was := fmt.Sprint(r.Data.Definitions[id])
		if now := fmt.Sprint(s.versions(r.Namespace, []string{id})[id]); now != was {
			return nil, fmt.Errorf("%s was version %s when run %s read it, and is version %s now: apply version %s again to verify the run's rows", id, was, r.ID, now, was)
		}
	}
	m, _, err := s.Source(r.Namespace, d, boundsOf(r.Data.Offsets))(ctx)
	return m, err
}

func flatBounds(b store.Bounds) map[string]int64 {
	out := map[string]int64{}
	for topic, ends := range b {
		for p, end := range ends {
			out[topic+"/"+strconv.Itoa(int(p))] = end
		}
	}
	return out
}

func boundsOf(flat map[string]int64) store.Bounds {
	out := store.Bounds{}
	for id, end := range flat {
		i := strings.LastIndexByte(id, '/')
		p, err := strconv.ParseInt(id[i+1:], 10, 32)
		if i < 0 || err != nil {
			continue
		}
		if out[id[:i]] == nil {
			out[id[:i]] = map[int32]int64{}
		}
		out[id[:i]][int32(p)] = end
	}
	return out
}

// recode writes a matrix's categories with another model's codes and puts its
// columns in that model's order. It answers nil when an input is not there.
func recode(m *Matrix, sig *model.Signature) *Matrix {
	out := *m
	out.Columns = nil
	enc := model.NewEncoder(sig)
	for i := range sig.Inputs {
		c := m.Column(sig.Inputs[i].Name)
		if c == nil || c.Categorical() != enc.Categorical(i) {
			return nil
		}
		col := *c
		if c.Categorical() {
			codes := make([]float32, len(c.Categories))
			for k, name := range c.Categories {
				codes[k], _ = enc.Text(i, []byte(name))
			}
			col.Values, col.Categories = make([]float32, len(c.Values)), sig.Inputs[i].Categories
			for r, v := range c.Values {
				col.Values[r] = float32(math.NaN())
				if v == v {
					col.Values[r] = codes[int(v)]
				}
			}
		}
		out.Columns = append(out.Columns, col)
	}
	return &out
}
