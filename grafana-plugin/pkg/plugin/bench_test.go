package plugin

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// BenchmarkOverhead is what the plugin adds to Kedge's own answer: the time of a
// query through it, less that of fetching the same bytes beside it. The answer
// is a panel's: twenty series of 300 points. The same answer read as JSON, as
// other clients read it, is timed in the same run.
func BenchmarkOverhead(b *testing.B) {
	f := query.Frame{Name: "f", Type: query.TimeSeriesWide, Columns: []query.Column{{Name: "time", Type: query.Time, Values: minutes(300)}}}
	for i := range 20 {
		values := make([]float64, 300)
		for k := range values {
			values[k] = math.Sin(float64(i * k))
		}
		f.Columns = append(f.Columns, query.Column{Name: "v", Type: query.Float, Labels: map[string]string{"column": fmt.Sprint(i)}, Values: values})
	}
	bodies := map[string][]byte{}
	for _, media := range []string{web.TypeArrow, web.TypeJSON} {
		body, err := web.EncodeFrames(media, []query.Frame{f})
		if err != nil {
			b.Fatal(err)
		}
		bodies[media] = body
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(bodies[r.Header.Get("Accept")]) }))
	defer s.Close()
	d, err := New(b.Context(), backend.DataSourceInstanceSettings{URL: s.URL, Type: "kedgeml-kedge-datasource", Name: "Kedge"})
	if err != nil {
		b.Fatal(err)
	}
	req, client := asking("throughput"), query.Client{Server: s.URL}
	var added, text []time.Duration
	for b.Loop() {
		plain := timed(b, func() error {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL+"/v1/query", strings.NewReader(`{}`))
			if err != nil {
				return err
			}
			req.Header.Set("Accept", web.TypeArrow)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			return err
		})
		added = append(added, timed(b, func() error {
			a, err := d.(*Datasource).QueryData(b.Context(), req)
			if err == nil {
				err = a.Responses["throughput"].Error
			}
			return err
		})-plain)
		text = append(text, timed(b, func() error { _, err := client.Do(b.Context(), query.Request{Kind: "throughput"}); return err })-plain)
	}
	slices.Sort(added)
	slices.Sort(text)
	at := func(v []time.Duration, q float64) float64 {
		return float64(v[int(q*float64(len(v)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(added, 0.5), "p50-ms")
	b.ReportMetric(at(added, 0.99), "p99-ms")
	b.ReportMetric(at(text, 0.5), "json-p50-ms")
	b.ReportMetric(at(text, 0.99), "json-p99-ms")
}

func timed(b *testing.B, do func() error) time.Duration {
	start := time.Now()
	if err := do(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
