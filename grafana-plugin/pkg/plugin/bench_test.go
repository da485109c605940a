package plugin

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/kedge-ml/kedge/query"
)

// BenchmarkOverhead is what the plugin adds to Kedge's own answer: the time of a
// query through it, less that of fetching the same bytes beside it. The answer
// is a panel's: twenty series of 300 points.
func BenchmarkOverhead(b *testing.B) {
	f := query.Frame{Name: "f", Type: query.TimeSeriesWide, Columns: []query.Column{{Name: "time", Type: query.Time, Values: minutes(300)}}}
	for i := range 20 {
		values := make([]float64, 300)
		for k := range values {
			values[k] = math.Sin(float64(i * k))
		}
		f.Columns = append(f.Columns, query.Column{Name: "v", Type: query.Float, Labels: map[string]string{"column": fmt.Sprint(i)}, Values: values})
	}
	body, err := json.Marshal(query.Answer{Frames: []query.Frame{f}})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer s.Close()
	d, err := New(b.Context(), backend.DataSourceInstanceSettings{URL: s.URL, Type: "kedgeml-kedge-datasource", Name: "Kedge"})
	if err != nil {
		b.Fatal(err)
	}
	req := asking("throughput")
	var added []time.Duration
	for b.Loop() {
		start := time.Now()
		res, err := http.Post(s.URL+"/v1/query", "application/json", nil)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		plain := time.Since(start)
		start = time.Now()
		if a, err := d.(*Datasource).QueryData(b.Context(), req); err != nil || a.Responses["throughput"].Error != nil {
			b.Fatal(err)
		}
		added = append(added, time.Since(start)-plain)
	}
	slices.Sort(added)
	at := func(q float64) float64 { return float64(added[int(q*float64(len(added)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
}
