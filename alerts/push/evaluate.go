package push

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/query"
)

// Instance is one label set of a rule, and whether its condition holds.
type Instance struct {
	Labels map[string]string
	Value  float64
	Firing bool
	NoData bool // it was there, but without a value
}

// Evaluate takes the steps of a rule over the frames that its question was
// answered with, as Grafana takes them over the plugin's. No instance at all is
// no data.
func Evaluate(r alerts.Rule, frames []query.Frame) ([]Instance, error) {
	var out []Instance
	if r.Numeric && len(frames) > 1 { // as the plugin does: what comes beside the first table is for people
		frames = frames[:1]
	}
	for i := range frames {
		f := &frames[i]
		switch f.Type {
		case query.NumericLong, query.Table:
			if (f.Type == query.Table) != r.Numeric || r.Reduce != "" {
				return nil, fmt.Errorf("rule %s: a %s needs other steps", r.UID, f.Type)
			}
			out = append(out, largest(f, r.Values)...)
		case query.TimeSeriesWide, query.TimeSeriesMulti:
			if r.Reduce != "last" {
				return nil, fmt.Errorf("rule %s: a series is reduced to its last value", r.UID)
			}
			out = append(out, last(f, r)...)
		default:
			return nil, fmt.Errorf("rule %s: no step takes a %s", r.UID, f.Type)
		}
	}
	seen := map[string]bool{}
	for i := range out {
		out[i].NoData = math.IsNaN(out[i].Value)
		out[i].Firing = out[i].Value > r.Above
		key := fingerprint(out[i].Labels)
		if seen[key] {
			return nil, fmt.Errorf("rule %s: two instances have the labels %v", r.UID, out[i].Labels)
		}
		seen[key] = true
	}
	return out, nil
}

// largest is one number for each combination of texts.
func largest(f *query.Frame, values []string) []Instance {
	texts, groups := grouped(f)
	var out []Instance
	for i := range f.Columns {
		c := &f.Columns[i]
		if !slices.Contains(values, c.Name) || c.Type == query.Text {
			continue
		}
		for _, rows := range groups {
			inst := Instance{Labels: labelsOf(texts, rows[0], nil), Value: math.NaN()}
			for _, row := range rows {
				if v := numberAt(c, row); !math.IsNaN(v) && !(v <= inst.Value) { // anything beats NaN
					inst.Value = v
				}
			}
			out = append(out, inst)
		}
	}
	return out
}

// last is the newest number of each series.
func last(f *query.Frame, r alerts.Rule) []Instance {
	texts, groups := grouped(f)
	own := map[string]string{"model": r.Query.Model, "view": r.Query.View}
	var out []Instance
	for i := range f.Columns {
		c := &f.Columns[i]
		if c.Type == query.Time || c.Type == query.Text || c.Type == query.RawJSON || len(r.Values) > 0 && !slices.Contains(r.Values, c.Name) {
			continue
		}
		for _, rows := range groups {
			inst := Instance{Labels: labelsOf(texts, rows[0], c.Labels), Value: math.NaN()}
			for k, v := range own {
				if v != "" && inst.Labels[k] == "" {
					inst.Labels[k] = v
				}
			}
			for _, row := range slices.Backward(rows) {
				if v := numberAt(c, row); !math.IsNaN(v) && !math.IsInf(v, 0) {
					inst.Value = v
					break
				}
			}
			out = append(out, inst)
		}
	}
	return out
}

// grouped lists the rows of each combination of a frame's texts.
func grouped(f *query.Frame) (texts []*query.Column, groups [][]int) {
	for i := range f.Columns {
		if f.Columns[i].Type == query.Text {
			texts = append(texts, &f.Columns[i])
		}
	}
	place := map[string]int{}
	for row := range f.Rows() {
		var key strings.Builder
		for _, c := range texts {
			key.WriteString(textAt(c, row))
			key.WriteByte(0)
		}
		at, known := place[key.String()]
		if !known {
			at = len(groups)
			place[key.String()] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], row)
	}
	return texts, groups
}

func labelsOf(texts []*query.Column, row int, more map[string]string) map[string]string {
	out := maps.Clone(more)
	if out == nil {
		out = map[string]string{}
	}
	for _, c := range texts {
		out[c.Name] = textAt(c, row)
	}
	return out
}

func textAt(c *query.Column, row int) string {
	switch v := c.Values.(type) {
	case []string:
		return v[row]
	case []*string:
		if v[row] != nil {
			return *v[row]
		}
	}
	return ""
}

// numberAt is NaN for what is none.
func numberAt(c *query.Column, row int) float64 {
	switch v := c.Values.(type) {
	case []float64:
		return v[row]
	case []*float64:
		if v[row] != nil {
			return *v[row]
		}
	case []int64:
		return float64(v[row])
	case []*int64:
		if v[row] != nil {
			return float64(*v[row])
		}
	case []uint64:
		return float64(v[row])
	case []*uint64:
		if v[row] != nil {
			return float64(*v[row])
		}
	}
	return math.NaN()
}
