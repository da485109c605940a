package features

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// windowTestSpec has every function over every window length that differs in
// its hop: a second, a minute, a day.
func windowTestSpec() *WindowSpec {
	spec := &WindowSpec{Source: "v"}
	for _, w := range []time.Duration{time.Minute, time.Hour, 90 * 24 * time.Hour} {
		add := func(function, column string) {
			spec.Features = append(spec.Features, WindowFeature{Name: fmt.Sprintf("%s_%s_%s", function, column, w), Function: function, Column: column, Window: event.Duration(w)})
		}
		add("count", "")
		for _, column := range []string{"x", "n", "s"} {
			for _, function := range []string{"count", "first", "last", "distinct"} {
				add(function, column)
			}
		}
		for _, function := range []string{"sum", "mean", "stddev", "min", "max"} {
			add(function, "x")
			add(function, "n")
		}
	}
	return spec
}

func windowTestPlan(t testing.TB) *windowPlan {
	t.Helper()
	s := viewSchema(fieldsOf("k Int64", "c String"), fieldsOf("x Float64", "n Int64", "s String", "unused Bool"))
	p, err := compileWindow(windowTestSpec(), s, "w", 9)
	must(t, err)
	return p
}

// randomEvents are rows whose event times lie behind end by spans from
// microseconds to months, some late, some early, some deletes.
func randomEvents(r *rand.Rand, n int, end int64) (rows []factRow) {
	arrival := end - 95*day
	for i := range n {
		arrival += 1 + r.Int64N(2*95*day/int64(n)-1)
		if r.IntN(3) == 0 {
			arrival = max(arrival-r.Int64N(max(arrival-lastKnown(rows), 1)), lastKnown(rows)+1) // bursts
		}
		late := int64(math.Exp(r.Float64()*30)) - 1
		if r.IntN(8) == 0 {
			late = -r.Int64N(600 * second)
		}
		row := factRow{keys: []any{r.Int64N(3), fmt.Sprint(r.IntN(2))}, knownAt: arrival, deleted: r.IntN(40) == 0, values: map[string]any{}}
		row.v = Version{EventTime: arrival - late, Created: arrival - late + r.Int64N(3), Partition: int32(row.keys[0].(int64)), Offset: int64(i)}
		if r.IntN(5) > 0 && !row.deleted {
			row.values["x"] = []float64{r.NormFloat64() * math.Pow(10, float64(r.IntN(20)-5)), math.NaN(), math.Copysign(0, -1), 7}[min(r.IntN(12), 11)%4]
			row.values["n"] = []int64{r.Int64N(100), 1<<53 + 1 + r.Int64N(9), -5}[r.IntN(3)]
		}
		if r.IntN(5) > 0 && !row.deleted {
			row.values["s"] = fmt.Sprint("text", r.IntN(40))
		}
		rows = append(rows, row)
	}
	return rows
}

func lastKnown(rows []factRow) int64 {
	if len(rows) == 0 {
		return -1 << 60
	}
	return rows[len(rows)-1].knownAt
}

// bruteWindow is the rule, said again: which events a window holds at t.
func bruteWindow(rows []factRow, keys []any, t, length int64, leaky bool) (out []factRow) {
	hop := min(max(length/60, 1_000_000), 86_400_000_000)
	tile := func(x int64) int64 {
		return new(big.Int).Div(big.NewInt(x), big.NewInt(hop)).Int64()
	}
	available := func(r factRow) int64 {
		if leaky {
			return r.v.EventTime
		}
		return max(r.v.EventTime, r.knownAt)
	}
	var mine []factRow
	for _, r := range rows {
		if compareKeys(r.keys, keys) == 0 && available(r) <= t {
			mine = append(mine, r)
		}
	}
	slices.SortFunc(mine, func(a, b factRow) int {
		if c := cmp.Compare(available(a), available(b)); c != 0 {
			return c
		}
		if newer(a.v, b.v) {
			return 1
		}
		return -1
	})
	cut := Version{EventTime: math.MinInt64}
	for _, r := range mine {
		switch {
		case !newer(r.v, cut):
		case r.deleted:
			cut = r.v
			out = slices.DeleteFunc(out, func(e factRow) bool { return tile(e.v.EventTime) <= tile(cut.EventTime) })
		default:
			out = append(out, r)
		}
	}
	return slices.DeleteFunc(out, func(e factRow) bool { return tile(e.v.EventTime) < tile(t-length) })
}

// bruteValue computes a feature from the events, with big floats.
func bruteValue(events []factRow, f WindowFeature) any {
	slices.SortFunc(events, func(a, b factRow) int {
		if newer(a.v, b.v) {
			return 1
		}
		return -1
	})
	if f.Column == "" {
		return int64(len(events))
	}
	var values []any
	distinct := map[any]bool{}
	for _, e := range events {
		v := e.values[f.Column]
		if x, ok := v.(float64); v == nil || ok && x != x {
			continue
		}
		values = append(values, v)
		distinct[v] = true
	}
	switch f.Function {
	case "count":
		return int64(len(values))
	case "distinct":
		return int64(len(distinct))
	}
	if len(values) == 0 {
		return nil
	}
	switch f.Function {
	case "first":
		return values[0]
	case "last":
		return values[len(values)-1]
	case "min", "max":
		return bruteExtreme(values, f.Function)
	}
	return bruteMoments(values, f.Function)
}

func bruteExtreme(values []any, function string) any {
	best := values[0]
	for _, v := range values[1:] {
		var less bool
		switch v := v.(type) {
		case int64:
			less = v < best.(int64)
			if function == "max" {
				less = v > best.(int64)
			}
		case float64:
			less = v < best.(float64)
			if function == "max" {
				less = v > best.(float64)
			}
		}
		if less {
			best = v
		}
	}
	return best
}

func bruteMoments(values []any, function string) any {
	sum, n := new(big.Float).SetPrec(400), new(big.Float).SetPrec(400).SetInt64(int64(len(values)))
	wide := make([]*big.Float, len(values))
	for i, v := range values {
		wide[i] = new(big.Float).SetPrec(400)
		switch v := v.(type) {
		case int64:
			wide[i].SetFloat64(float64(v))
		case float64:
			wide[i].SetFloat64(v)
		}
		sum.Add(sum, wide[i])
	}
	if function == "sum" {
		out, _ := sum.Float64()
		return out
	}
	mean := new(big.Float).SetPrec(400).Quo(sum, n)
	if function == "mean" {
		out, _ := mean.Float64()
		return out
	}
	if len(values) < 2 {
		return nil
	}
	squares := new(big.Float).SetPrec(400)
	for _, w := range wide {
		d := new(big.Float).SetPrec(400).Sub(w, mean)
		squares.Add(squares, d.Mul(d, d))
	}
	squares.Quo(squares, new(big.Float).SetInt64(int64(len(values)-1)))
	out, _ := squares.Sqrt(squares).Float64()
	return out
}

func checkWindowValue(t *testing.T, where string, f WindowFeature, got, want any) {
	t.Helper()
	switch f.Function {
	case "sum", "mean", "stddev":
		g, ok1 := got.(float64)
		w, ok2 := want.(float64)
		if ok1 != ok2 || ok1 && math.Abs(g-w) > 1e-9*math.Abs(w) {
			t.Fatalf("%s: %s: %v, want %v", where, f.Name, got, want)
		}
	case "distinct":
		g, w := float64(got.(int64)), float64(want.(int64))
		if math.Abs(g-w) > max(1, 0.15*w) {
			t.Fatalf("%s: %s: %v, want about %v", where, f.Name, got, want)
		}
	default:
		if got != want {
			t.Fatalf("%s: %s: %v (%[3]T), want %v (%[4]T)", where, f.Name, got, want)
		}
	}
}

// TestWindowsAgainstBruteForce asks the same of the training join and, at the
// times the online table reaches, of the table.
func TestWindowsAgainstBruteForce(t *testing.T) {
	spec, p := windowTestSpec(), windowTestPlan(t)
	outputs := make([]int, len(spec.Features))
	for i := range outputs {
		outputs[i] = i
	}
	for round := range 12 {
		r := rand.New(rand.NewPCG(uint64(round), 77))
		end := int64(1_790_000_000_000_000) + r.Int64N(day)
		rows := randomEvents(r, 150, end)
		frame, at := event.NewBatch(p.source, ""), []int64{}
		var asked [][]any
		for range 120 {
			e := rows[r.IntN(len(rows))]
			asked, at = append(asked, []any{r.Int64N(4), fmt.Sprint(r.IntN(2))}), append(at, e.v.EventTime+[]int64{0, -1, 1, r.Int64N(90 * second), r.Int64N(100 * day)}[r.IntN(5)])
			addRow(frame, factRow{keys: asked[len(asked)-1]})
		}
		for _, leaky := range []bool{false, true} {
			j, err := joinWindows(newQuestions(keyColumns(frame), at), p, outputs, leaky, nil, batches(p.source, rows, 1+r.IntN(60)))
			must(t, err)
			early := 0
			for q := range asked {
				for i, f := range spec.Features {
					want := bruteValue(bruteWindow(rows, asked[q], at[q], micros(f.Window), leaky), f)
					checkWindowValue(t, fmt.Sprintf("round %d leaky %v key %v at %d", round, leaky, asked[q], at[q]), f, valueAt(&j.columns[i], int(j.place[q])), want)
				}
				early += int(b2u(!leaky && bruteEarly(rows, asked[q], at[q])))
			}
			if j.early != early {
				t.Fatalf("%d questions with events that were not known yet, want %d", j.early, early)
			}
		}
		checkWindowTable(t, spec, p, rows, round)
	}
}

func bruteEarly(rows []factRow, keys []any, t int64) bool {
	const length, hop = 90 * day, day
	from := (t - length) - ((t-length)%hop+hop)%hop
	return slices.ContainsFunc(rows, func(r factRow) bool {
		return compareKeys(r.keys, keys) == 0 && r.v.EventTime <= t && r.v.EventTime >= from && r.knownAt > t
	})
}

// checkWindowTable feeds the rows as they come in, each batch twice, and reads
// in between.
func checkWindowTable(t *testing.T, spec *WindowSpec, p *windowPlan, rows []factRow, round int) {
	t.Helper()
	table := newWindowTable(p, 1000)
	defer table.close()
	view := &View{Name: "w", Schema: p.schema, windows: table}
	r := rand.New(rand.NewPCG(uint64(round), 78))
	for i := 0; i < len(rows); {
		n := min(1+r.IntN(10), len(rows)-i)
		for _, row := range rows[i : i+n] { // one by one: the clock of each is its arrival
			b := event.NewBatch(p.source, "")
			addRow(b, row)
			table.apply(b, row.knownAt)
			table.apply(b, row.knownAt)
		}
		i += n
		now := rows[i-1].knownAt
		if i < len(rows) {
			now += r.Int64N(rows[i].knownAt - now)
		} else {
			now += r.Int64N(2 * day)
		}
		key := []any{r.Int64N(4), fmt.Sprint(r.IntN(2))}
		var got Rows
		must(t, lookUp(t.Context(), view, now, &got, encodedKey(p.schema, key)))
		for f, feature := range spec.Features {
			c := newColumn(p.schema.Values()[f].Type, true)
			got.Row(0).AppendTo(&c, got.Row(0).Column(feature.Name))
			want := bruteValue(bruteWindow(rows[:i], key, now, micros(feature.Window), false), feature)
			checkWindowValue(t, fmt.Sprintf("online, round %d key %v at %d after %d rows", round, key, now, i), feature, valueAt(&c, 0), want)
		}
		if i%50 == 0 {
			table.sweep(now)
		}
	}
	if most := p.maxBytes(); table.stats().Used > 8*(2*most+2048) {
		t.Fatalf("six keys use %d bytes; one takes at most %d", table.stats().Used, most)
	}
}
