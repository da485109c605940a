package store

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// grid is a range of time cut into equal steps.
type grid struct {
	from, to time.Time // from lies on a multiple of step
	step     time.Duration
	notices  []query.Notice
}

const (
	defaultPoints = 300
	maxPoints     = 11_000
)

// niceSteps are what a step is rounded up to.
var niceSteps = [...]time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// timeRange is what a request asks for; by default what lies behind now.
func timeRange(r query.Request, now time.Time, length time.Duration) (from, to time.Time, err error) {
	from, to = r.From, r.To
	if to.IsZero() {
		to = now
	}
	if from.IsZero() {
		from = to.Add(-length)
	}
	if !from.Before(to) {
		return from, to, invalid("from %s does not lie before to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from.UTC(), to.UTC(), nil
}

// longestRange bounds what is cut into steps: a duration holds 292 years.
const longestRange = 250 * 365 * 24 * time.Hour

// gridOf chooses the steps: what the request says, but no more points than it
// allows.
func gridOf(r query.Request, now time.Time) (grid, error) {
	from, to, err := timeRange(r, now, time.Hour)
	if err != nil {
		return grid{}, err
	}
	if to.Sub(from) > longestRange {
		return grid{}, invalid("from %s to %s are more than 250 years: ask for less", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	points := r.MaxPoints
	if points <= 0 {
		points = defaultPoints
	}
	g := grid{to: to, step: time.Duration(r.Step)}
	least := to.Sub(from) / time.Duration(min(points, maxPoints))
	switch {
	case g.step < 0:
		return grid{}, invalid("step %v is negative", g.step)
	case g.step == 0:
		g.step = roundUp(least)
	case g.step < least:
		g.notices = append(g.notices, query.Notice{Severity: "info", Text: fmt.Sprintf("a step of %v would give more than %d points: thinned to %v", g.step, points, roundUp(least))})
		g.step = roundUp(least)
	}
	g.from = from.Truncate(g.step)
	return g, nil
}

func roundUp(d time.Duration) time.Duration {
	for _, s := range niceSteps {
		if d <= s {
			return s
		}
	}
	day := 24 * time.Hour
	return (d + day - 1) / day * day
}

// points is the number of steps.
func (g grid) points() int {
	whole, rest := g.to.Sub(g.from)/g.step, g.to.Sub(g.from)%g.step // their sum may be more than a duration holds
	if rest > 0 {
		whole++
	}
	return int(whole)
}

// seconds is how much of step i lies in the range.
func (g grid) seconds(i int) float64 {
	start := g.from.Add(time.Duration(i) * g.step)
	return min(g.step, g.to.Sub(start)).Seconds()
}

func (g grid) times() []time.Time {
	out := make([]time.Time, g.points())
	for i := range out {
		out[i] = g.from.Add(time.Duration(i) * g.step)
	}
	return out
}

// params binds {from}, {to} and {step}, all in µs.
func (g grid) params() params {
	return params{"from": micro(g.from), "to": micro(g.to), "step": strconv.FormatInt(g.step.Microseconds(), 10)}
}

func micro(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

// inRange is the condition that a time column lies in [from, to), so that the
// engine can use its indexes.
func inRange(column string) string {
	return column + " >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND " + column + " < fromUnixTimestamp64Micro({to:Int64}, 'UTC')"
}

// bucket is the number of a time's step.
func bucket(column string) string {
	return "intDiv(toUnixTimestamp64Micro(" + column + ") - {from:Int64}, {step:Int64})"
}
