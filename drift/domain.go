package drift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/store"
)

// Values are what a column may hold: texts, or numbers and flags, which may be
// written bare.
type Values []string

// UnmarshalJSON takes texts, numbers and flags.
func (v *Values) UnmarshalJSON(b []byte) error {
	var all []any
	if err := json.Unmarshal(b, &all); err != nil {
		return errors.New("values: want a list")
	}
	return v.take(all)
}

// UnmarshalYAML takes texts, numbers and flags.
func (v *Values) UnmarshalYAML(read func(any) error) error {
	var all []any
	if err := read(&all); err != nil {
		return err
	}
	return v.take(all)
}

func (v *Values) take(all []any) error {
	*v = make(Values, 0, len(all))
	for _, x := range all {
		switch x := x.(type) {
		case string:
			*v = append(*v, x)
		case float64:
			*v = append(*v, strconv.FormatFloat(x, 'g', -1, 64))
		case bool, int64, uint64, int:
			*v = append(*v, fmt.Sprint(x))
		default:
			return fmt.Errorf("values: %v is no text, number or flag", x)
		}
	}
	return nil
}

// foreign counts a window's values that their declared domains do not hold: of
// rows, for the counts of a grid do not name what the reference never had.
func (m *Monitor) foreign(ctx context.Context, start, end time.Time) (map[string]store.Foreign, error) {
	var domains []store.Domain
	for _, r := range m.cfg.Rules {
		if len(r.Values) > 0 {
			domains = append(domains, store.Domain{Column: r.Column, Values: r.Values})
		}
	}
	if len(domains) == 0 {
		return nil, nil
	}
	found, err := m.store.ForeignValues(ctx, m.cfg.Table, domains, start, end)
	if err != nil {
		return nil, err
	}
	out := map[string]store.Foreign{}
	for i, d := range domains {
		out[d.Column] = found[i]
	}
	return out, nil
}

// judgeDomain says which values are none that the column may hold.
func judgeDomain(c Column, r Constraint, f store.Foreign) Judgement {
	j := Judgement{Column: c.Name, Detector: domain, P: 1, Adjusted: 1, Calm: true}
	if f.Problem != "" {
		j.Reason, j.Detail, j.Calm = stat.WrongData, f.Problem, false
		return j
	}
	j.Effect = float64(f.Rows) / float64(max(c.Window.Rows(), 1))
	j.Low, j.High = j.Effect, j.Effect
	if f.Rows > 0 {
		j.Drifted, j.Calm, j.P, j.Adjusted, j.Severity = true, false, 0, 0, control.Warning
		j.Detail = fmt.Sprintf("%s of %s rows hold none of its %d values", thousands(f.Rows), thousands(c.Window.Rows()), len(r.Values))
		var examples []string
		for _, e := range f.Examples {
			examples = append(examples, strconv.Quote(e))
		}
		if !c.Names {
			j.Detail += ", such as " + strings.Join(examples, ", ")
		}
	}
	return j
}

// unheld says of constraints whose column is not watched that nobody holds them.
func (m *Monitor) unheld(columns []Column) []Judgement {
	var out []Judgement
	for _, r := range m.cfg.Rules {
		if slices.ContainsFunc(columns, func(c Column) bool { return c.Name == r.Column }) || slices.ContainsFunc(out, func(j Judgement) bool { return j.Column == r.Column }) {
			continue
		}
		why := m.refused[r.Column]
		if why == "" {
			why = "no column of this name is watched"
		}
		out = append(out, Judgement{Column: r.Column, Detector: constraint, P: 1, Adjusted: 1, Reason: stat.Unwatched, Detail: "its constraint is not held: " + why})
	}
	return out
}
