package page

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// A chart's drawing area in its own units; the style sheet stretches it.
const (
	chartW = 600.0
	chartH = 120.0
)

// scale maps values to the drawing area. The data's own ends are what is
// written at its edges.
type scale struct {
	low, high         float64
	dataLow, dataHigh float64
}

// scaleOf fits all series, from zero where fromZero is set. Flat data get room
// on both sides.
func scaleOf(fromZero bool, all ...Series) scale {
	s := scale{low: math.Inf(1), high: math.Inf(-1)}
	for _, series := range all {
		for _, v := range series.Values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				s.low, s.high = math.Min(s.low, v), math.Max(s.high, v)
			}
		}
	}
	if math.IsInf(s.low, 0) {
		return scale{0, 1, math.NaN(), math.NaN()}
	}
	if fromZero {
		s.low = math.Min(0, s.low)
	}
	s.dataLow, s.dataHigh = s.low, s.high
	if s.high == s.low {
		pad := math.Max(math.Abs(s.high)*0.1, 1e-9)
		s.low, s.high = s.low-pad, s.high+pad
		return s
	}
	room := (s.high - s.low) * 0.08
	if !fromZero {
		s.low -= room
	}
	s.high += room
	return s
}

func (s scale) y(v float64) float64 { return chartH * (1 - (v-s.low)/(s.high-s.low)) }

func x(i, n int) float64 {
	if n < 2 {
		return chartW / 2
	}
	return chartW * float64(i) / float64(n-1)
}

// area draws a filled line from zero.
func area(s Series, unit string) template.HTML {
	sc := scaleOf(true, s)
	var b strings.Builder
	open(&b, "chart")
	for _, run := range runs(s) {
		if len(run) > 1 {
			fmt.Fprintf(&b, `<path class="fill" d="%sL%.1f,%.1fL%.1f,%.1fZ"/>`, path(s, sc, run), x(run[len(run)-1], len(s.Values)), chartH, x(run[0], len(s.Values)), chartH)
		}
		line(&b, "line", s, sc, run)
	}
	hover(&b, s, unit)
	return closeSVG(&b) + marks(sc)
}

// lines draws series on one scale; classes name them for the style sheet.
func lines(unit string, classes []string, all ...Series) template.HTML {
	sc := scaleOf(false, all...)
	var b strings.Builder
	open(&b, "chart")
	for i, s := range all {
		for _, run := range runs(s) {
			line(&b, classes[i], s, sc, run)
		}
	}
	if len(all) > 0 {
		hover(&b, all[0], unit)
	}
	return closeSVG(&b) + marks(sc)
}

// band draws a mean within its low and high.
func band(c Column) template.HTML {
	sc := scaleOf(false, c.Mean, c.Low, c.High)
	var b strings.Builder
	open(&b, "chart")
	for _, run := range runs(c.Low) {
		if len(run) < 2 || len(c.High.Values) != len(c.Low.Values) {
			continue
		}
		fmt.Fprintf(&b, `<path class="band" d="%s`, path(c.High, sc, run))
		for i := len(run) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "L%.1f,%.1f", x(run[i], len(c.Low.Values)), sc.y(c.Low.Values[run[i]]))
		}
		b.WriteString(`Z"/>`)
	}
	for _, run := range runs(c.Mean) {
		line(&b, "line", c.Mean, sc, run)
	}
	hover(&b, c.Mean, "")
	return closeSVG(&b) + marks(sc)
}

// heat draws a distribution over time, darker where more values lie.
func heat(h *Heat) template.HTML {
	if h == nil || len(h.Cells) == 0 {
		return ""
	}
	var b strings.Builder
	open(&b, "chart heat")
	w := chartW / float64(len(h.Cells))
	for t, cells := range h.Cells {
		most, total := 0.0, 0.0
		for _, c := range cells {
			most, total = math.Max(most, c), total+c
		}
		if most == 0 {
			continue
		}
		cell := chartH / float64(len(cells))
		fmt.Fprintf(&b, `<g><title>%s · %s predictions</title>`, clock(h.From.Add(time.Duration(t)*h.Step)), short(total))
		for i, c := range cells {
			if c > 0 {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill-opacity="%.2f"/>`,
					float64(t)*w, chartH-float64(i+1)*cell, w, cell, 0.08+0.92*math.Sqrt(c/most))
			}
		}
		b.WriteString(`</g>`)
	}
	return closeSVG(&b)
}

// runs splits a series where values are missing.
func runs(s Series) [][]int {
	var out [][]int
	var run []int
	for i, v := range s.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			if run != nil {
				out = append(out, run)
			}
			run = nil
			continue
		}
		run = append(run, i)
	}
	if run != nil {
		out = append(out, run)
	}
	return out
}

func path(s Series, sc scale, run []int) string {
	var b strings.Builder
	for i, at := range run {
		fmt.Fprintf(&b, "%c%.1f,%.1f", "ML"[min(i, 1)], x(at, len(s.Values)), sc.y(s.Values[at]))
	}
	return b.String()
}

func line(b *strings.Builder, class string, s Series, sc scale, run []int) {
	if len(run) == 1 { // a lone point still shows
		fmt.Fprintf(b, `<path class="%s" d="M%.1f,%.1fh0.1"/>`, class, x(run[0], len(s.Values)), sc.y(s.Values[run[0]]))
		return
	}
	fmt.Fprintf(b, `<path class="%s" d="%s"/>`, class, path(s, sc, run))
}

// hover lays an invisible strip over each step that tells its value.
func hover(b *strings.Builder, s Series, unit string) {
	n := len(s.Values)
	if n == 0 {
		return
	}
	w := chartW / float64(n)
	for i, v := range s.Values {
		if math.IsNaN(v) {
			continue
		}
		fmt.Fprintf(b, `<rect class="hit" x="%.1f" y="0" width="%.1f" height="%.0f"><title>%s · %s%s</title></rect>`,
			float64(i)*w, w, chartH, clock(s.From.Add(time.Duration(i)*s.Step)), short(v), template.HTMLEscapeString(unit))
	}
}

func open(b *strings.Builder, class string) {
	fmt.Fprintf(b, `<svg class="%s" viewBox="0 0 %.0f %.0f" preserveAspectRatio="none" aria-hidden="true">`, class, chartW, chartH)
}

func closeSVG(b *strings.Builder) template.HTML {
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // made of numbers and escaped units only
}

// marks writes the ends of the scale over the chart.
func marks(s scale) template.HTML {
	return template.HTML(fmt.Sprintf(`<span class="hi">%s</span><span class="lo">%s</span>`, mark(s.dataHigh), mark(s.dataLow)))
}

func mark(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return short(v)
}

func clock(t time.Time) string { return t.UTC().Format("15:04") }
