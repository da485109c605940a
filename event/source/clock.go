package source

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	_ "time/tzdata" // zones must be known on a bare machine too

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// unitMicros is a unit's length in µs; 0 for ns and for what is no unit.
func unitMicros(unit string) int64 {
	switch unit {
	case "us":
		return 1
	case "ms":
		return 1000
	case "s":
		return 1_000_000
	case "day":
		return 86_400_000_000
	}
	return 0
}

// clock reads one of an event's times from a row.
type clock struct {
	spec   Time
	layout string
	zone   *time.Location
	expr   *expression.Program
	total  int64 // rows of the file; spread only
	years  *years
}

var errNeedsFile = errors.New("spread needs a file, whose rows can be counted")

func newClock(spec Time, total int64, byField map[string]*years) (*clock, error) {
	c := &clock{spec: spec, total: total, layout: layout(spec.Format)}
	var err error
	if c.zone, err = time.LoadLocation(spec.Zone); err != nil {
		return nil, err
	}
	if spec.Expr != "" {
		if c.expr, err = expression.Compile(spec.Expr); err != nil {
			return nil, err
		}
	}
	if s := spec.Spread; s != nil {
		if total <= 0 {
			return nil, errNeedsFile
		}
		c.years = byField[s.Year]
	}
	return c, nil
}

// years places a file's rows within their years: the row in hand is the at-th
// of its year. Rows that give no event have their place, too.
type years struct {
	field  string
	counts map[int64]int64
	met    map[int64]int64
	year   int64
	at     int64
}

// count notes a row of the first reading.
func (y *years) count(row Row) {
	if year, ok := wholeNumber(row.Field(y.field)); ok {
		y.counts[year]++
	}
}

// place notes a row of the second reading; row 0 starts it anew.
func (y *years) place(row Row) {
	if row.Index == 0 {
		clear(y.met)
	}
	year, ok := wholeNumber(row.Field(y.field))
	if !ok || year < 1900 || year > 2299 {
		y.year = 0
		return
	}
	y.year, y.at = year, y.met[year]
	y.met[year]++
}

// micros returns the time of a row in µs; same is the event's own time.
func (c *clock) micros(row Row, m *machine, same int64) (int64, error) {
	t, err := c.unshifted(row, m, same)
	if err != nil {
		return 0, err
	}
	return t + time.Duration(c.spec.Shift).Microseconds(), nil
}

func (c *clock) unshifted(row Row, m *machine, same int64) (int64, error) {
	switch {
	case c.spec.Same:
		return same, nil
	case c.spec.Start != nil:
		return int64(*c.spec.Start) + row.Index*time.Duration(c.spec.Step).Microseconds(), nil
	case c.spec.Spread != nil && c.spec.Spread.Year != "":
		return c.inYear()
	case c.spec.Spread != nil:
		from, to := int64(*c.spec.Spread.Start), int64(*c.spec.Spread.End)
		return evenly(from, to, row.Index, c.total), nil
	case c.expr != nil:
		out, err := m.run(c.expr, row)
		if err != nil {
			return 0, err
		}
		v, err := event.FromNative(out)
		if err != nil {
			return 0, err
		}
		return c.read(v, "the expression")
	}
	return c.read(row.Field(c.spec.Field), c.spec.Field)
}

// evenly places item i of n in [from, to).
func evenly(from, to, i, n int64) int64 {
	return from + int64(float64(to-from)*(float64(i)/float64(n)))
}

// inYear places the k-th row of a year at k/n of it.
func (c *clock) inYear() (int64, error) {
	y := c.years
	if y.year == 0 || y.counts[y.year] <= y.at {
		return 0, fmt.Errorf("the field %s holds no year", y.field)
	}
	from := time.Date(int(y.year), 1, 1, 0, 0, 0, 0, c.zone).UnixMicro()
	to := time.Date(int(y.year)+1, 1, 1, 0, 0, 0, 0, c.zone).UnixMicro()
	return evenly(from, to, y.at, y.counts[y.year]), nil
}

func wholeNumber(v event.Value) (int64, bool) {
	switch v.Type.Elem {
	case event.Int32, event.Int64:
		return v.Int, true
	case event.Float32, event.Float64:
		return int64(v.Float), v.Float == math.Trunc(v.Float) && math.Abs(v.Float) < 1<<53
	}
	return 0, false
}

// read turns a field's value into a time.
func (c *clock) read(v event.Value, what string) (int64, error) {
	switch v.Type.Elem {
	case event.Timestamp:
		return v.Int, nil
	case event.String:
		return c.parse(v.Text, what)
	case event.Int32, event.Int64, event.Float32, event.Float64:
		return c.number(v, what)
	case event.Unknown:
		return 0, fmt.Errorf("%s is null, so the event has no time", what)
	}
	return 0, fmt.Errorf("%s is a %s and no time", what, v.Type)
}

func (c *clock) number(v event.Value, what string) (int64, error) {
	unit := unitMicros(c.spec.Unit)
	whole, ok := wholeNumber(v)
	switch {
	case c.spec.Unit == "ns" && ok:
		return floorDiv(whole, 1000), nil
	case unit == 0:
		return 0, fmt.Errorf("%s is a bare number: state its unit (s, ms, us, ns or day)", what)
	case ok && whole > -event.MaxTime/unit && whole < event.MaxTime/unit:
		return whole * unit, nil
	case v.Type.Elem == event.Float64 || v.Type.Elem == event.Float32:
		if f := v.Float * float64(unit); math.Abs(f) < float64(event.MaxTime) {
			return int64(math.Floor(f)), nil
		}
	}
	return 0, fmt.Errorf("%s lies outside the years 1900 to 2299 when read in %q", what, c.spec.Unit)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (c *clock) parse(text, what string) (int64, error) {
	if c.layout == "" {
		t, err := event.ParseTime([]byte(text))
		if err != nil && c.spec.Zone != "" {
			return c.parseLayout("2006-01-02T15:04:05.999999999", strings.Replace(text, " ", "T", 1), what)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		return t, nil
	}
	return c.parseLayout(c.layout, text, what)
}

func (c *clock) parseLayout(layout, text, what string) (int64, error) {
	t, err := time.ParseInLocation(layout, text, c.zone)
	if err != nil {
		return 0, fmt.Errorf("%s: %q does not have the form %q", what, text, layout)
	}
	return t.UnixMicro(), nil
}

// layout turns a format into a Go layout; empty means RFC 3339.
func layout(format string) string {
	if format == "rfc3339" {
		return ""
	}
	if !strings.Contains(format, "%") {
		return format
	}
	return strings.NewReplacer("%Y", "2006", "%m", "01", "%d", "02", "%H", "15", "%M", "04", "%S", "05", "%f", "000000",
		"%y", "06", "%b", "Jan", "%B", "January", "%I", "03", "%p", "PM", "%z", "-0700", "%Z", "MST", "%T", "15:04:05",
		"%F", "2006-01-02", "%j", "002", "%%", "%").Replace(format)
}
