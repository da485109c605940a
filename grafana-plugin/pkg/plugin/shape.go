package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// limits bound what one query sends to a browser.
type limits struct {
	points  int      // of one series; 0: as many as there are
	rows    int      // of a table
	values  []string // of a series or numbers, by name; none: all
	numeric bool     // read tables as numbers
}

// shape makes of Kedge's frames what panels and alerts both take: long series
// are dealt out, several values in one frame too, and what is too much is cut
// or thinned with a notice.
func shape(frames []query.Frame, r query.Request, l limits) []query.Frame {
	var out []query.Frame
	if l.numeric && len(frames) > 1 { // alerting takes numbers in one frame; what comes beside it is for people
		frames = frames[:1]
	}
	for _, f := range frames {
		if l.numeric && f.Type == query.Table {
			f = numbers(chosen(f, l.values))
		}
		for _, part := range dealOut(chosen(f, l.values)) {
			if series(part.Type) && len(part.Columns) < 2 {
				part.Columns = nil // a time alone is a fault to readers, nothing at all is no data
			} else if series(part.Type) {
				part = thin(labelled(part, r, len(l.values) == 1), l.points)
			} else {
				part = cut(part, l.rows)
			}
			out = append(out, part)
		}
	}
	return out
}

// chosen keeps the named values of a series or of numbers.
func chosen(f query.Frame, values []string) query.Frame {
	if len(values) == 0 || f.Type == query.LogLines || f.Type == query.NodeGraph {
		return f
	}
	isValue := func(c query.Column) bool {
		return c.Type != query.Text && (c.Type != query.Time || f.Type == query.NumericLong)
	}
	kept := slices.DeleteFunc(slices.Clone(f.Columns), func(c query.Column) bool { return isValue(c) && !slices.Contains(values, c.Name) })
	if !slices.ContainsFunc(kept, isValue) && slices.ContainsFunc(f.Columns, isValue) {
		f.Notices = append(slices.Clone(f.Notices), query.Notice{Severity: "warning", Text: fmt.Sprintf("%s has none of the values %s: all are shown", f.Name, strings.Join(values, ", "))})
		return f
	}
	f.Columns = kept
	return f
}

// numbers reads a table as one number for each combination of its texts, which
// become labels. Of rows with equal texts the largest value counts.
func numbers(f query.Frame) query.Frame {
	var names []query.Column
	for _, c := range f.Columns {
		if c.Type == query.Text {
			names = append(names, c)
		}
	}
	groups, order := groupBy(names, f.Rows())
	var first []int
	for _, key := range order {
		first = append(first, groups[key][0])
	}
	out := f
	out.Type, out.Columns = query.NumericLong, pickAll(names, first)
	for _, c := range f.Columns {
		if c.Type != query.Float && c.Type != query.Int && c.Type != query.Uint {
			continue
		}
		var largest []int
		for _, key := range order {
			at := groups[key][0]
			for _, i := range groups[key] {
				v, ok := numberAt(c, i)
				if w, has := numberAt(c, at); ok && (!has || v > w) {
					at = i
				}
			}
			largest = append(largest, at)
		}
		out.Columns = append(out.Columns, pick(c, largest))
	}
	return out
}

func series(t query.FrameType) bool {
	return t == query.TimeSeriesWide || t == query.TimeSeriesMulti || t == query.HeatmapRows
}

// dealOut makes frames of one time and one value each of a long frame, and of a
// multi frame with several values: a panel draws a long one as a zigzag, and
// alerting reads only the first value of a multi one.
func dealOut(f query.Frame) []query.Frame {
	if f.Type != query.TimeSeriesLong && f.Type != query.TimeSeriesMulti || len(f.Columns) == 0 {
		return []query.Frame{f}
	}
	var times *query.Column
	var names, values []query.Column
	for i, c := range f.Columns {
		switch {
		case c.Type == query.Time && times == nil:
			times = &f.Columns[i]
		case c.Type == query.Text:
			names = append(names, c)
		case c.Type != query.RawJSON:
			values = append(values, c)
		}
	}
	if times == nil || len(values) == 0 {
		return []query.Frame{f}
	}
	var out []query.Frame
	groups, order := groupBy(names, f.Rows())
	for _, key := range order {
		rows := groups[key]
		for _, v := range values {
			part := f
			part.Type = query.TimeSeriesMulti
			v.Labels = maps.Clone(v.Labels)
			for i, n := range names {
				if v.Labels == nil {
					v.Labels = map[string]string{}
				}
				v.Labels[n.Name] = strings.Split(key, "\x00")[i]
			}
			part.Columns = []query.Column{pick(*times, rows), pick(v, rows)}
			out = append(out, part)
		}
	}
	if len(out) == 0 { // no rows: the type and the value's name remain
		f.Type, f.Columns = query.TimeSeriesMulti, []query.Column{*times, values[0]}
		return []query.Frame{f}
	}
	return out
}

// groupBy lists the rows of each combination of names, in the order met.
func groupBy(names []query.Column, rows int) (groups map[string][]int, order []string) {
	groups = map[string][]int{}
	parts := make([]string, len(names))
	for i := range rows {
		for k, n := range names {
			parts[k] = textAt(n, i)
		}
		key := strings.Join(parts, "\x00")
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], i)
	}
	return groups, order
}

func textAt(c query.Column, i int) string {
	switch v := c.Values.(type) {
	case []string:
		return v[i]
	case []*string:
		if v[i] != nil {
			return *v[i]
		}
	}
	return ""
}

// labelled says of every value whose it is: without labels two series of one
// alert rule would be the same. Where one value alone was chosen its name tells
// no series from another and is left out of the legend.
func labelled(f query.Frame, r query.Request, one bool) query.Frame {
	own := map[string]string{"model": r.Model, "view": r.View, "version": r.Version}
	f.Columns = slices.Clone(f.Columns)
	for i := range f.Columns {
		c := &f.Columns[i]
		if c.Type == query.Time {
			continue
		}
		shown := c.Labels
		c.Labels = maps.Clone(c.Labels)
		for k, v := range own {
			if _, has := c.Labels[k]; !has && v != "" && f.Type != query.HeatmapRows {
				if c.Labels == nil {
					c.Labels = map[string]string{}
				}
				c.Labels[k] = v
			}
		}
		if c.Display == "" {
			c.Display = display(c.Name, shown, one)
		}
	}
	return f
}

// display is what a legend says of a series: what tells it from its neighbours,
// not everything that names it.
func display(name string, labels map[string]string, one bool) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; v != "" && v != name && !strings.HasPrefix(name, v+" ") && k != "monitor" { // "queue p95" says that it is the queue's
			parts = append(parts, v)
		}
	}
	switch {
	case len(parts) == 0 || labels["series"] == name:
		return name
	case one:
		return strings.Join(parts, " · ")
	}
	return strings.Join(append(parts, name), " · ")
}

// cut keeps the first rows of a table.
func cut(f query.Frame, most int) query.Frame {
	rows := f.Rows()
	if most <= 0 || rows <= most {
		return f
	}
	keep := make([]int, most)
	for i := range keep {
		keep[i] = i
	}
	f.Columns = pickAll(f.Columns, keep)
	f.Notices = append(slices.Clone(f.Notices), query.Notice{Severity: "warning",
		Text: fmt.Sprintf("%d of %d rows are shown: narrow the time range, filter, or raise the data source's row limit", most, rows)})
	return f
}

// thin brings a series down to about as many points as the panel is wide.
// Each stretch leaves two points, its smallest and its largest, so that no
// spike is lost to a panel or to an alert that reduces by min or max. A heat
// map has a cell for each stretch, which is its largest: the worst is looked for.
func thin(f query.Frame, points int) query.Frame {
	rows := f.Rows()
	if points <= 0 || rows <= points {
		return f
	}
	stretches, each, what := max(points/2, 1), 2, "its smallest and its largest"
	if f.Type == query.HeatmapRows {
		stretches, each, what = points, 1, "its largest"
	}
	out := make([]query.Column, len(f.Columns))
	for i, c := range f.Columns {
		out[i] = thinned(c, stretches, each)
	}
	f.Columns = out
	f.Notices = append(slices.Clone(f.Notices), query.Notice{Severity: "info",
		Text: fmt.Sprintf("%d points were thinned to %d: of each stretch %s", rows, each*stretches, what)})
	return f
}

// thinned leaves two values of each stretch, or one: its first time, its largest.
func thinned(c query.Column, stretches, each int) query.Column {
	rows := c.Len()
	keep := make([]int, 0, each*stretches)
	for s := range stretches {
		from, to := s*rows/stretches, (s+1)*rows/stretches
		if to-from < 1 {
			continue
		}
		low, high := from, to-1
		if c.Type != query.Time {
			low, high = extremes(c, from, to)
		}
		switch {
		case each == 2:
			keep = append(keep, low, high)
		case c.Type == query.Time:
			keep = append(keep, low)
		default:
			keep = append(keep, high)
		}
	}
	return pick(c, keep)
}

// extremes are the places of the smallest and the largest value; what is null
// or not a number loses to what is.
func extremes(c query.Column, from, to int) (low, high int) {
	low, high = from, from
	for i := from; i < to; i++ {
		v, ok := numberAt(c, i)
		if !ok {
			continue
		}
		if l, has := numberAt(c, low); !has || v < l {
			low = i
		}
		if h, has := numberAt(c, high); !has || v > h {
			high = i
		}
	}
	return low, high
}

func numberAt(c query.Column, i int) (float64, bool) {
	switch v := c.Values.(type) {
	case []float64:
		return v[i], v[i] == v[i]
	case []*float64:
		if v[i] != nil {
			return *v[i], *v[i] == *v[i]
		}
	case []int64:
		return float64(v[i]), true
	case []*int64:
		if v[i] != nil {
			return float64(*v[i]), true
		}
	case []uint64:
		return float64(v[i]), true
	case []*uint64:
		if v[i] != nil {
			return float64(*v[i]), true
		}
	}
	return 0, false
}

func pickAll(cols []query.Column, rows []int) []query.Column {
	out := make([]query.Column, len(cols))
	for i, c := range cols {
		out[i] = pick(c, rows)
	}
	return out
}

// pick keeps some rows of a column.
func pick(c query.Column, rows []int) query.Column {
	switch v := c.Values.(type) {
	case []time.Time:
		c.Values = take(v, rows)
	case []*time.Time:
		c.Values = take(v, rows)
	case []float64:
		c.Values = take(v, rows)
	case []*float64:
		c.Values = take(v, rows)
	case []int64:
		c.Values = take(v, rows)
	case []*int64:
		c.Values = take(v, rows)
	case []uint64:
		c.Values = take(v, rows)
	case []*uint64:
		c.Values = take(v, rows)
	case []string:
		c.Values = take(v, rows)
	case []*string:
		c.Values = take(v, rows)
	case []bool:
		c.Values = take(v, rows)
	case []*bool:
		c.Values = take(v, rows)
	case []json.RawMessage:
		c.Values = take(v, rows)
	}
	return c
}

func take[T any](v []T, rows []int) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}
