package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// BenchmarkPluginOverhead is what the built backend adds to Kedge's own answer:
// one query through its gRPC protocol, with all that Grafana's protocol costs,
// beside two fetches of the same bytes. The answer is a panel's: twenty series
// of 300 points.
//
// The three calls of a round follow each other within milliseconds, in an order
// that turns. The second fetch is the control: what it "adds" to the first is
// the unrest of the machine. Reported are the quantiles of the paired
// differences of both, the difference of the tails, and the processor time that
// the backend takes for a query, which other work on the machine hardly moves.
func BenchmarkPluginOverhead(b *testing.B) {
	body, err := web.EncodeFrames(web.TypeArrow, []query.Frame{panelFrame(20, 300)})
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}))
	defer s.Close()
	p := startPlugin(b, s.URL, `{}`, nil)
	now := time.Now().UTC()
	req := backend.ToProto().QueryDataRequest(&backend.QueryDataRequest{PluginContext: p.context(), Queries: []backend.DataQuery{panel("A", query.Request{Kind: "throughput"}, now.Add(-time.Hour), now)}})
	through := func() error {
		res, err := p.data.QueryData(b.Context(), req)
		if err == nil && len(res.Responses["A"].Frames) != 1 {
			err = fmt.Errorf("%d frames: %s", len(res.Responses["A"].Frames), res.Responses["A"].Error)
		}
		return err
	}
	plain := func() error { return fetch(b, s.URL) }
	for range 100 { // connections, and the processor's caches
		if err := through(); err != nil {
			b.Fatal(err)
		}
	}
	calls := [3]func() error{plain, plain, through}
	var took [3][]time.Duration
	pid := p.client.ReattachConfig().Pid
	before, rounds := processorTime(b, pid), 0
	for b.Loop() {
		for i := range calls {
			i = (i + rounds) % len(calls)
			start := time.Now()
			if err := calls[i](); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(start))
		}
		rounds++
	}
	b.ReportMetric(float64((processorTime(b, pid)-before).Microseconds())/1000/float64(rounds), "cpu-ms/query")
	var added, control []time.Duration
	for i := range rounds {
		added, control = append(added, took[2][i]-took[0][i]), append(control, took[1][i]-took[0][i])
	}
	for _, q := range []float64{0.5, 0.99} {
		name := fmt.Sprintf("p%.0f-ms", 100*q)
		b.ReportMetric(quantileMs(added, q), "paired-"+name)
		b.ReportMetric(quantileMs(control, q), "control-"+name)
		b.ReportMetric(quantileMs(took[2], q)-quantileMs(slices.Concat(took[0], took[1]), q), "tails-"+name)
	}
}

// panelFrame is an answer to a panel.
func panelFrame(series, points int) query.Frame {
	times := make([]time.Time, points)
	for i := range times {
		times[i] = time.Unix(int64(60*i), 0).UTC()
	}
	f := query.Frame{Name: "f", Type: query.TimeSeriesWide, Columns: []query.Column{{Name: "time", Type: query.Time, Values: times}}}
	for i := range series {
		values := make([]float64, points)
		for k := range values {
			values[k] = math.Sin(float64(i * k))
		}
		f.Columns = append(f.Columns, query.Column{Name: "v", Type: query.Float, Labels: map[string]string{"column": fmt.Sprint(i)}, Values: values})
	}
	return f
}

// fetch is the same call made directly.
func fetch(b *testing.B, url string) error {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url+"/v1/query", strings.NewReader(`{"kind":"throughput"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", web.TypeArrow)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func quantileMs(v []time.Duration, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return float64(v[int(q*float64(len(v)-1))].Microseconds()) / 1000
}

// processorTime is what a process has used, from the nanoseconds that the
// scheduler counts for each of its threads.
func processorTime(b *testing.B, pid int) time.Duration {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("process %d: no threads: %v", pid, err)
	}
	var sum time.Duration
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has just ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
