package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// checkVeiled refuses questions whose answer would tell what is hidden by what
// it leaves out, and those that name a column which is denied.
func (a *App) checkVeiled(ctx context.Context, c auth.Caller, v *veil, kind query.Kind, r query.Request) error {
	if v == nil || kind.Shows == query.ShowsNames {
		return nil
	}
	what := "query " + kind.Name
	for _, column := range r.Columns {
		if v.action(column) == event.DenyColumn {
			return a.refuseColumn(ctx, c, what, column)
		}
	}
	asked := slices.Clone(r.GroupBy)
	for name := range r.Filter {
		asked = append(asked, name)
	}
	for name := range r.Segment {
		asked = append(asked, name)
	}
	for _, name := range asked {
		if v.hides(name) {
			return a.refuseColumn(ctx, c, what, name)
		}
	}
	if len(r.Params) > 0 && v.words.Match(r.Params) {
		return a.refuseColumn(ctx, c, what, "params")
	}
	return nil
}

// hidesFeatures is what features are asked without.
func (a *App) hidesFeatures(ctx context.Context, c auth.Caller) features.Hides {
	v := a.veilOf(c)
	if v == nil {
		return nil
	}
	return func(name string) features.Hiding {
		switch v.action(name) {
		case "":
			return features.Shown
		case event.DenyColumn:
			a.record(a.columnRefusal(ctx, c, "features", name))
			return features.Denied
		}
		return features.Masked
	}
}

// hidesInputs is what answers to predictions leave out.
func (a *App) hidesInputs(ctx context.Context) func(string) bool {
	if v := a.veilOf(auth.From(ctx)); v != nil {
		return v.hides
	}
	return nil
}

// veiledFiles closes what holds rows as they were, golden rows and run files
// among them, to whoever a policy hides a part of.
func (a *App) veiledFiles(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.refuseRaw(r.Context(), r.Pattern); err != nil {
			web.WriteError(w, web.From(err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// holdsRows are the routes that give files away in which rows may stand.
func holdsRows(pattern string) bool {
	return pattern == "GET /api/2.0/mlflow-artifacts/artifacts/{path...}" || pattern == "GET /v1/registry/models/{model}/bundle"
}

// veiled takes out of an answer what its reader may not see. Of the data's own
// rows the columns are null; of findings about columns, those about hidden ones
// are left out.
func (v *veil) veiled(kind query.Kind, frames []query.Frame) []query.Frame {
	if v == nil || kind.Shows == query.ShowsNames {
		return frames
	}
	out := []query.Frame{}
	hidden := 0
	for _, f := range frames {
		if kind.Shows == query.ShowsFindings && v.mentions(f.Name) {
			hidden++
			continue
		}
		n := 0
		switch kind.Shows {
		case query.ShowsData:
			f, n = v.data(f)
		case query.ShowsRecords:
			f, n = records(f)
		default:
			f, n = v.findings(f)
		}
		hidden += n
		out = append(out, f)
	}
	if hidden > 0 {
		notice := query.Notice{Severity: "info", Text: "A column policy hides a part of this answer."}
		if len(out) == 0 {
			out = append(out, query.Frame{Name: "hidden", Type: kind.Frame, Columns: []query.Column{}})
		}
		out[0].Notices = append(slices.Clone(out[0].Notices), notice)
	}
	return out
}

// data nulls hidden columns, leaves denied ones out, and of maps by column
// (contributions, overflow) those that name one.
func (v *veil) data(f query.Frame) (query.Frame, int) {
	cols, hidden := []query.Column{}, 0
	for _, c := range f.Columns {
		switch action := v.action(c.Name); {
		case action == event.DenyColumn && !v.all:
			hidden++
			continue
		case action != "" && (!v.all || !systemColumn(c.Name)):
			hidden++
			c = nulled(c)
		case c.Type == query.RawJSON:
			values, ok := c.Values.([]json.RawMessage)
			if !ok {
				c = nulled(c)
				break
			}
			values = slices.Clone(values)
			for i := range values {
				if v.words.Match(values[i]) {
					hidden++
					values[i] = json.RawMessage("null")
				}
			}
			c.Values = values
		}
		cols = append(cols, c)
	}
	f.Columns = cols
	return f, hidden
}

// systemColumn are those that say when a row is of, which every frame needs.
func systemColumn(name string) bool { return name == "event_time" || name == "known_at" }

// records hides what came in and could not be read: whatever stands in it. What
// is left is where each lies, when it came and why it is none of the rows.
func records(f query.Frame) (query.Frame, int) {
	cols, hidden := slices.Clone(f.Columns), 0
	for i, c := range cols {
		switch c.Name {
		case "key", "value", "detail":
			hidden++
			cols[i] = nulled(c)
		case "body": // a line of a log, which is never null
			hidden++
			cols[i].Values = slices.Repeat([]string{"(hidden)"}, c.Len())
			if labels, ok := column(f, "labels").Values.([]json.RawMessage); ok {
				cols[i].Values = convert(labels, reasonOf)
			}
		}
	}
	f.Columns = cols
	return f, hidden
}

// reasonOf is the reason in the labels of a dead letter's line.
func reasonOf(labels json.RawMessage) string {
	var l struct{ Reason string }
	if json.Unmarshal(labels, &l) != nil {
		return "(hidden)"
	}
	return l.Reason + ": (hidden)"
}

// checkRecords refuses to look for a text in what records hold, which would tell
// it, where the caller may not read them.
func (a *App) checkRecords(ctx context.Context, c auth.Caller, v *veil, kind query.Kind, r query.Request) error {
	_, looks := r.Filter["detail"]
	switch {
	case kind.Shows != query.ShowsRecords || !looks:
		return nil
	case !c.May(auth.DeadLetterRead):
		return a.forbid(ctx, c, auth.DeadLetterRead, "query "+kind.Name, "filter detail")
	case v != nil:
		return a.refuseColumn(ctx, c, "query "+kind.Name, "what records hold")
	}
	return nil
}

// countedRecords is an answer about records for whoever may count them and not
// read them.
func countedRecords(c auth.Caller, kind query.Kind, frames []query.Frame) []query.Frame {
	if kind.Shows != query.ShowsRecords || c.May(auth.DeadLetterRead) {
		return frames
	}
	out, hidden := make([]query.Frame, len(frames)), 0
	for i, f := range frames {
		g, n := records(f)
		out[i], hidden = g, hidden+n
	}
	if hidden > 0 {
		out[0].Notices = append(slices.Clone(out[0].Notices), query.Notice{Severity: "info", Text: "Keys, values and details of dead letters take the permission " + auth.DeadLetterRead.String() + "."})
	}
	return out
}

// findings nulls columns that are, or are about, a hidden one, and drops rows
// that name one.
func (v *veil) findings(f query.Frame) (query.Frame, int) {
	cols, hidden := slices.Clone(f.Columns), 0
	drop := make([]bool, f.Rows())
	for i, c := range cols {
		if v.mentions(c.Name) || v.mentions(c.Display) || v.labelled(c.Labels) {
			hidden++
			cols[i] = nulled(c)
			cols[i].Labels = nil
			continue
		}
		for row := range drop {
			if v.mentions(cellText(c, row)) {
				drop[row] = true
			}
		}
	}
	keep := []int{}
	for row, d := range drop {
		if !d {
			keep = append(keep, row)
		}
	}
	f.Notices = slices.DeleteFunc(slices.Clone(f.Notices), func(n query.Notice) bool { return v.mentions(n.Text) })
	if len(keep) == len(drop) {
		f.Columns = cols
		return f, hidden
	}
	for i := range cols {
		cols[i].Values = picked(cols[i].Values, keep)
	}
	f.Columns = cols
	return f, hidden + len(drop) - len(keep)
}

func (v *veil) labelled(labels map[string]string) bool {
	for name, value := range labels {
		if v.mentions(name) || v.mentions(value) {
			return true
		}
	}
	return false
}

func cellText(c query.Column, row int) string {
	switch v := c.Values.(type) {
	case []string:
		return v[row]
	case []*string:
		if v[row] != nil {
			return *v[row]
		}
	case []json.RawMessage:
		return string(bytes.TrimSpace(v[row]))
	}
	return ""
}

// nulled is a column of as many nulls. JSON says so itself.
func nulled(c query.Column) query.Column {
	n := c.Len()
	c.Nullable, c.Thresholds = true, nil
	switch c.Type {
	case query.Time:
		c.Values = make([]*time.Time, n)
	case query.Float:
		c.Values = make([]*float64, n)
	case query.Int:
		c.Values = make([]*int64, n)
	case query.Uint:
		c.Values = make([]*uint64, n)
	case query.Bool:
		c.Values = make([]*bool, n)
	case query.RawJSON:
		c.Nullable = false
		c.Values = slices.Repeat([]json.RawMessage{json.RawMessage("null")}, n)
	default:
		c.Type, c.Values = query.Text, make([]*string, n)
	}
	return c
}

// picked are some of a column's values.
func picked(values any, rows []int) any {
	switch v := values.(type) {
	case []time.Time:
		return pick(v, rows)
	case []*time.Time:
		return pick(v, rows)
	case []float64:
		return pick(v, rows)
	case []*float64:
		return pick(v, rows)
	case []int64:
		return pick(v, rows)
	case []*int64:
		return pick(v, rows)
	case []uint64:
		return pick(v, rows)
	case []*uint64:
		return pick(v, rows)
	case []string:
		return pick(v, rows)
	case []*string:
		return pick(v, rows)
	case []bool:
		return pick(v, rows)
	case []*bool:
		return pick(v, rows)
	case []json.RawMessage:
		return pick(v, rows)
	}
	panic(fmt.Sprintf("a frame's column of %T", values)) // the kinds of query.Column have no other
}

func pick[T any](v []T, rows []int) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}
