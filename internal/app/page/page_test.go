package page

import (
	"flag"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

var write = flag.String("write", "", "write the sample page to this file")

func wave(from time.Time, n int, f func(i float64) float64) Series {
	s := Series{From: from, Step: time.Minute}
	for i := range n {
		s.Values = append(s.Values, f(float64(i)))
	}
	return s
}

func ptr[T any](v T) *T { return &v }

// sample is a page with everything on it.
func sample() *Data {
	to := time.Date(2026, 5, 4, 15, 30, 0, 0, time.UTC)
	from := to.Add(-time.Hour)
	around := func(base, swing float64) Series {
		return wave(from, 60, func(i float64) float64 { return base + swing*math.Sin(i/6)*math.Cos(i/17) + swing*math.Max(0, i-40)/12 })
	}
	column := func(name string, base, swing float64) Column {
		m := around(base, swing)
		low, high := m, m
		low.Values, high.Values = nil, nil
		for _, v := range m.Values {
			low.Values, high.Values = append(low.Values, v-2*swing), append(high.Values, v+3*swing)
		}
		return Column{Name: name, Type: "Float64", Mean: m, Low: low, High: high, NullRate: 0.041}
	}
	heat := &Heat{From: from, Step: time.Minute, Low: 0, High: 1}
	for t := range 60 {
		row := make([]float64, 20)
		for b := range row {
			row[b] = math.Round(60 * math.Exp(-math.Pow(float64(b)-4-math.Max(0, float64(t)-40)/3, 2)/14))
		}
		heat.Cells = append(heat.Cells, row)
	}
	return &Data{
		Now: to, Version: "v0.1.0", Namespace: "default", Uptime: 51 * time.Minute, Roles: []string{"store", "ingest", "query"}, From: from, To: to,
		Problems: []Problem{{"warning", "12 dead letters in the last hour", `type: column "wait" of view driver_stats wants Float64, got a text: "soon" <script>alert(1)</script>`}, {"critical", "store is not writable", "disk full: 0 B free"}},
		Parts:    []Part{{"broker", true, "embedded, 127.0.0.1:9092, 12 partitions"}, {"store", false, "ClickHouse 26.7, disk full"}, {"ingest", true, "12 partitions, 0 records behind"}},
		Streams: []Stream{
			{Kind: "features", PerSecond: 4, Rows: 14400, Series: around(4, .3), Lag: ptr(0.21), Age: ptr(0.4)},
			{Kind: "predictions", PerSecond: 20.4, Rows: 72000, Series: around(20, 2), Lag: ptr(0.25), Age: ptr(0.1)},
			{Kind: "labels", PerSecond: 18.7, Rows: 66000, Series: wave(from, 60, func(i float64) float64 { return 20 * (1 - math.Exp(-i/5)) })},
		},
		Ledger:  &Ledger{Partitions: 12, Records: 1523345, Rows: 1523333, DeadLetters: 12},
		Dead:    []DeadReason{{Reason: "type", Count: 12, Last: to, Example: `column "wait" wants Float64`}},
		Storage: Storage{Used: 3 << 30, Free: 60 << 30, PerDay: 1 << 30, DaysToFull: ptr(61.2), Rows: "30d", Broker: "3d or 2GB", DeadLetters: "7d"},
		Models: []Subject{{Name: "ride_cancel", Origin: "inferred", Versions: []string{"v1", "v2"}, Rows: 72000, Age: ptr(0.1), Throughput: around(20, 2),
			Columns: []Column{column("wait_minutes", 5, .4), column("distance_km", 4.4, .1), column("surge", 1.2, .05)},
			Scores:  heat, Coverage: ptr(wave(from, 60, func(i float64) float64 { return 1 - math.Exp((i-60)/9) })), Score: ptr(around(.2, .02)), Truth: ptr(around(.24, .05))}},
		Views: []Subject{{Name: "driver_stats", Origin: "inferred", Keys: []string{"driver_id"}, Rows: 14400, Age: ptr(0.4), Throughput: around(4, .3),
			Columns: []Column{column("acceptance_rate", .8, .02), column("conversion_rate", .55, .01), column("mean_wait_minutes", 4.6, .3), column("battery", .5, .02)}}},
	}
}

func render(t *testing.T, d *Data) string {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Render(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPageShowsEverythingAndEscapes(t *testing.T) {
	html := render(t, sample())
	if *write != "" {
		if err := os.WriteFile(*write, []byte(html), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"2 things need attention", "disk full", "ride_cancel", "v2", "driver_stats", "by driver_id", "wait_minutes", "4.1 % null", "61 days", "predictions", "20.4", "&lt;script&gt;alert"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<script>alert", "NaN", "ZgotmplZ", "style=", "http://", "https://", "%!"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// An installation that has seen nothing must still have a page.
func TestPageOfNothing(t *testing.T) {
	html := render(t, &Data{Now: time.Now(), Streams: []Stream{{Kind: "features"}}})
	for _, want := range []string{"all is well", "No model has been seen yet", "Nothing needs you"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A trace is a link where a Grafana is known, and a text that can be entered there
// where none is.
func TestPageLinksToTraces(t *testing.T) {
	d := sample()
	d.Traces = []Trace{{ID: "4bf92f3577b34da6a3ce929d0e0e4736", Name: "POST /v1/predict/{model}", MS: 12.3, Age: 4, Failed: true, Link: "http://grafana:3000/d/kedge-trace?var-trace=4bf92f3577b34da6a3ce929d0e0e4736"},
		{ID: "00000000000000000000000000000001", Link: "javascript:alert(1)"}, {ID: "00000000000000000000000000000002"}}
	html := render(t, d)
	for _, want := range []string{`<a href="http://grafana:3000/d/kedge-trace?var-trace=4bf92f3577b34da6a3ce929d0e0e4736">`, "12.3 ms", "POST /v1/predict/{model}, 4.0 s ago, failed", "</i>00000000000000000000000000000002</td>"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(html, "javascript:") {
		t.Error("a link is a script")
	}
}

// A model that fell silent says so instead of drawing empty charts.
func TestSilentSubjectsSaySo(t *testing.T) {
	d := sample()
	d.Models = []Subject{{Name: "churn", Age: ptr(2e6)}}
	d.Views = []Subject{{Name: "user"}}
	html := render(t, d)
	if strings.Count(html, "Nothing in the last hour.") != 2 || strings.Contains(html, "<figure>") {
		t.Error("silent subjects are drawn")
	}
}

func TestChartsTakeAnyNumbers(t *testing.T) {
	nan := math.NaN()
	for name, values := range map[string][]float64{
		"none": nil, "one": {5}, "flat": {3, 3, 3}, "zero": {0, 0}, "gaps": {nan, 1, nan, nan, 2, 3}, "all gone": {nan, nan},
		"infinite": {1, math.Inf(1), 2, math.Inf(-1)}, "huge": {-1e300, 1e300}, "tiny": {1e-300, 2e-300},
	} {
		s := Series{Values: values, Step: time.Minute}
		for kind, svg := range map[string]string{
			"area": string(area(s, "x")), "lines": string(lines("", []string{"line"}, s)), "band": string(band(Column{Mean: s, Low: s, High: s})),
		} {
			if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") && name != "infinite" {
				t.Errorf("%s of %s: %s", kind, name, svg)
			}
			for d := range strings.SplitSeq(svg, ` d="`) {
				if end := strings.Index(d, `"`); end > 0 && strings.ContainsAny(d[:end], "IN") {
					t.Errorf("%s of %s draws %s", kind, name, d[:end])
				}
			}
		}
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", -3: "-3", 0.5: "0.5", 0.1234: "0.123", 0.00012: "0.00012", 4.567: "4.57", 12.34: "12.3", 99.96: "100", 100: "100", 1234: "1234",
		9999: "10k", 12345: "12.3k", 999499: "999k", 999999: "1M", 1523345: "1.52M", 2.5e9: "2.5G", 7e12: "7T", 1e20: "1.0e+20",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0.34: "0.3 s", 42: "42 s", 240: "4 min", 7200: "2 h", 400000: "5 d", -2: "now"} {
		if got := age(v); got != want {
			t.Errorf("age(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 %", 0.0004: "<0.1 %", 0.041: "4.1 %", 0.5: "50 %", 1: "100 %"} {
		if got := percent(v); got != want {
			t.Errorf("percent(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestAssets(t *testing.T) {
	for path, kind := range map[string]string{"/assets/page.css": "text/css", "/assets/page.js": "javascript", "/assets/icon.svg": "image/svg"} {
		rec := httptest.NewRecorder()
		Assets().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		if rec.Code != 200 || !strings.Contains(rec.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Header().Get("Content-Type"))
		}
	}
}
