package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// number is short and readable.
func number(v float64) string {
	if !finite(v) {
		return "–"
	}
	if math.Abs(v) >= 10_000 {
		return fmt.Sprintf("%.3gk", v/1000)
	}
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// svg collects a drawing. Texts are escaped; numbers are written with one
// decimal.
type svg struct {
	strings.Builder
	width, height float64
}

func newSVG(width, height float64, label string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(s, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(label))
	return s
}

func (s *svg) rect(class string, x, y, w, h float64, title string) {
	fmt.Fprintf(s, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`, template.HTMLEscapeString(class), x, y, max(w, 0), max(h, 0), template.HTMLEscapeString(title))
}

func (s *svg) text(class string, x, y float64, t string) {
	fmt.Fprintf(s, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, template.HTMLEscapeString(class), x, y, template.HTMLEscapeString(t))
}

// path draws through the points that are there and breaks where one is not.
func (s *svg) path(class string, x, y []float64) {
	var d strings.Builder
	pen := "M"
	for i := range x {
		if !finite(y[i]) {
			pen = "M"
			continue
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", pen, x[i], y[i])
		pen = "L"
	}
	fmt.Fprintf(s, `<path class="%s" d="%s"/>`, template.HTMLEscapeString(class), d.String())
}

func (s *svg) done() template.HTML {
	s.WriteString("</svg>")
	return template.HTML(s.String()) // made here, of escaped texts and numbers
}

// shown is how many bins a chart has room for; the rest are put together.
const shown = 24

// bars draws reference and window side by side, bin by bin.
func bars(bins []Bin) template.HTML {
	if len(bins) > shown {
		rest := Bin{Label: fmt.Sprintf("%d others", len(bins)-shown+1)}
		for _, b := range bins[shown-1:] {
			rest.Ref, rest.Cur = rest.Ref+b.Ref, rest.Cur+b.Cur
		}
		bins = append(append([]Bin{}, bins[:shown-1]...), rest)
	}
	const width, height, foot, left = 460.0, 150.0, 34.0, 34.0
	s := newSVG(width, height, "shares of the reference and of the window by bin")
	top := 0.0
	for _, b := range bins {
		top = max(top, b.Ref, b.Cur)
	}
	if top == 0 || len(bins) == 0 {
		s.text("note", left, height/2, "no values")
		return s.done()
	}
	plot := height - foot - 8
	for _, tick := range []float64{0, top / 2, top} {
		y := 8 + plot*(1-tick/top)
		fmt.Fprintf(s, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, left, width, y, y)
		s.text("tick end", left-4, y+3, fmt.Sprintf("%.0f %%", 100*tick))
	}
	slot := (width - left) / float64(len(bins))
	for i, b := range bins {
		x := left + slot*float64(i)
		tip := fmt.Sprintf("%s: %.1f %% now, %.1f %% in the reference", b.Label, 100*b.Cur, 100*b.Ref)
		s.rect("ref", x+slot*0.1, 8+plot*(1-b.Ref/top), slot*0.38, plot*b.Ref/top, tip)
		s.rect("cur", x+slot*0.5, 8+plot*(1-b.Cur/top), slot*0.38, plot*b.Cur/top, tip)
	}
	every := int(math.Ceil(float64(len(bins)) / 6))
	for i := 0; i < len(bins); i += every {
		s.text("tick mid", left+slot*(float64(i)+0.5), height-foot+14, shorten(begins(bins[i].Label), 12))
	}
	return s.done()
}

// begins is where a range of numbers begins.
func begins(label string) string {
	from, _, _ := strings.Cut(label, " to ")
	return from
}

func shorten(t string, n int) string {
	if r := []rune(t); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return t
}

// frame is a plot's place and scales.
type frame struct {
	*svg
	from, to  time.Time
	low, high float64
}

const (
	lineWidth, lineHeight = 460.0, 150.0
	lineLeft, lineFoot    = 58.0, 22.0
)

func newFrame(points []Point, values func(Point) []float64, extra ...float64) *frame {
	f := &frame{svg: newSVG(lineWidth, lineHeight, "over time"), from: points[0].At, to: points[len(points)-1].At, low: math.Inf(1), high: math.Inf(-1)}
	take := func(v float64) {
		if finite(v) {
			f.low, f.high = min(f.low, v), max(f.high, v)
		}
	}
	for _, p := range points {
		for _, v := range values(p) {
			take(v)
		}
	}
	for _, v := range extra {
		take(v)
	}
	if f.low > f.high {
		f.low, f.high = 0, 1
	}
	margin := max(0.08*(f.high-f.low), 1e-9)
	f.low, f.high = f.low-margin, f.high+margin
	for _, v := range []float64{f.low + margin, (f.low + f.high) / 2, f.high - margin} {
		fmt.Fprintf(f, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, lineLeft, lineWidth, f.y(v), f.y(v))
		f.text("tick end", lineLeft-4, f.y(v)+3, number(v))
	}
	layout := "15:04"
	if f.to.Sub(f.from) > 36*time.Hour {
		layout = "02 Jan 2006"
	}
	f.text("tick", lineLeft, lineHeight-6, f.from.UTC().Format(layout))
	f.text("tick end", lineWidth, lineHeight-6, f.to.UTC().Format(layout))
	return f
}

func (f *frame) x(t time.Time) float64 {
	span := f.to.Sub(f.from).Seconds()
	if span == 0 {
		return (lineLeft + lineWidth) / 2
	}
	return lineLeft + (lineWidth-lineLeft-4)*t.Sub(f.from).Seconds()/span
}

func (f *frame) y(v float64) float64 {
	return 6 + (lineHeight-lineFoot-6)*(1-(v-f.low)/(f.high-f.low))
}

func (f *frame) line(class string, points []Point, value func(Point) float64) {
	x, y := make([]float64, len(points)), make([]float64, len(points))
	for i, p := range points {
		x[i], y[i] = f.x(p.At), math.NaN()
		if v := value(p); finite(v) {
			y[i] = f.y(v)
		}
	}
	f.path(class, x, y)
}

// columnLine draws a column's distance and the floor that it is held against.
func columnLine(c Column) template.HTML {
	if len(c.Series) < 2 {
		return ""
	}
	f := newFrame(c.Series, func(p Point) []float64 { return []float64{p.Value, p.Low} }, 0)
	f.line("floor", c.Series, func(p Point) float64 { return p.Low })
	f.line("value", c.Series, func(p Point) float64 { return p.Value })
	for _, p := range c.Series {
		if p.Value >= p.Low && p.Low > 0 {
			fmt.Fprintf(f, `<circle class="bad" cx="%.1f" cy="%.1f" r="3"><title>%s: %s</title></circle>`, f.x(p.At), f.y(p.Value), when(p.At), number(p.Value))
		}
	}
	return f.done()
}

// metricLine draws a metric: realised, expected with its band, and the
// reference's value. Immature windows are hollow.
func metricLine(m Metric) template.HTML {
	if len(m.Points) == 0 {
		return ""
	}
	f := newFrame(m.Points, func(p Point) []float64 { return []float64{p.Value, p.Expected, p.Low, p.High} }, m.Reference)
	var up, down strings.Builder
	for i, p := range m.Points {
		if finite(p.Low) && finite(p.High) {
			fmt.Fprintf(&up, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[up.Len() == 0], f.x(p.At), f.y(p.High))
		}
		if q := m.Points[len(m.Points)-1-i]; finite(q.Low) && finite(q.High) {
			fmt.Fprintf(&down, "L%.1f %.1f", f.x(q.At), f.y(q.Low))
		}
	}
	fmt.Fprintf(f, `<path class="band" d="%s%s"/>`, up.String(), down.String())
	if finite(m.Reference) {
		fmt.Fprintf(f, `<line class="floor" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, lineLeft, lineWidth, f.y(m.Reference), f.y(m.Reference))
	}
	f.line("expected", m.Points, func(p Point) float64 { return p.Expected })
	f.line("value", m.Points, func(p Point) float64 { return p.Value })
	for _, p := range m.Points {
		if finite(p.Value) {
			class := map[bool]string{true: "hollow", false: "dot"}[p.Immature]
			fmt.Fprintf(f, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"><title>%s: %s</title></circle>`, class, f.x(p.At), f.y(p.Value), when(p.At), number(p.Value))
		}
	}
	return f.done()
}

// timesAway is how many floors a column is away.
func timesAway(x float64) string {
	if x > 100 {
		return "> 100×"
	}
	return number(x) + "×"
}

// overview draws every column as a bar of how many times its floor it is away.
func overview(columns []Column) template.HTML {
	n := min(len(columns), 40)
	if n == 0 {
		return ""
	}
	const row, left, width = 20.0, 190.0, 940.0
	s := newSVG(width, row*float64(n)+22, "how many times its floor each column is away from the reference")
	top := 2.0
	for _, c := range columns[:n] {
		top = max(top, min(c.Times(), 8))
	}
	one := left + (width-left-60)/top
	fmt.Fprintf(s, `<line class="floor" x1="%.1f" x2="%.1f" y1="0" y2="%.1f"/>`, one, one, row*float64(n))
	s.text("tick mid", one, row*float64(n)+14, "1 = the floor")
	for i, c := range columns[:n] {
		y := row * float64(i)
		length := (width - left - 60) * min(c.Times(), top) / top
		class := "calm"
		if c.Drifted {
			class = c.Severity
		}
		s.text("name end", left-8, y+14, shorten(c.Name, 28))
		s.rect("bar "+class, left, y+4, max(length, 1), row-8, c.Sentence)
		s.text("tick", left+length+6, y+14, timesAway(c.Times()))
	}
	return s.done()
}
