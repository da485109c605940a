package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// BenchmarkPluginOverhead is what the built backend adds to Kedge's own answer:
// one query through its gRPC protocol, with all that Grafana's protocol costs,
// beside two fetches of the same bytes. The answer is a panel's: twenty series
// of 300 points. The floor is a backend of the same SDK that does nothing of its
// own, asked for nothing and for the same frames, prepared: what it takes is
// Grafana's, and what the plugin takes beyond it and a fetch is ours.
//
// The calls of a round follow each other within milliseconds, in an order that
// turns. The second fetch is the control: what it "adds" to the first is the
// unrest of the machine. Reported are the quantiles of the paired differences,
// the difference of the tails, and the processor time that each backend takes
// for a query, which other work on the machine hardly moves. This process, which
// stands for Grafana and for Kedge, collects its garbage between rounds.
func BenchmarkPluginOverhead(b *testing.B) {
	body, err := web.EncodeFrames(web.TypeArrow, []query.Frame{panelFrame(20, 300)})
	if err != nil {
		b.Fatal(err)
	}
	var prepared []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/prepared" {
			_, _ = w.Write(prepared)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}))
	defer s.Close()
	file, err := buildPlugin("grafana-plugin/pkg/floor")
	if err != nil {
		b.Fatal(err)
	}
	p, nothing := startPlugin(b, s.URL, `{}`, nil), startBackend(b, file, s.URL, `{}`, nil)
	floor := startBackend(b, file, s.URL, `{}`, nil)
	answer, err := p.data.QueryData(b.Context(), p.question("throughput"))
	if err != nil || len(answer.Responses["A"].Frames) != 1 {
		b.Fatal(answer, err)
	}
	prepared = answer.Responses["A"].Frames[0]
	plain := func() error { return fetch(b, s.URL) }
	calls := []func() error{plain, plain, p.asking(b, "throughput", 1), floor.asking(b, "prepared", 1), nothing.asking(b, "nothing", 0)}
	for range 100 { // connections, and the processor's caches
		for _, call := range calls {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
	}
	took := make([][]time.Duration, len(calls))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	backends := map[string]*pluginProcess{"cpu-ms/query": p, "floor-cpu-ms/query": floor, "nothing-cpu-ms/query": nothing}
	before, rounds := map[string]time.Duration{}, 0
	for name, p := range backends {
		before[name] = p.processorTime(b)
	}
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
		if rounds%100 == 0 {
			runtime.GC()
		}
	}
	for name, p := range backends {
		b.ReportMetric(float64((p.processorTime(b)-before[name]).Microseconds())/1000/float64(rounds), name)
	}
	var added, control, own []time.Duration
	for i := range rounds {
		added, control = append(added, took[2][i]-took[0][i]), append(control, took[1][i]-took[0][i])
		own = append(own, took[2][i]-took[0][i]-took[3][i])
	}
	for _, q := range []float64{0.5, 0.99} {
		name := fmt.Sprintf("p%.0f-ms", 100*q)
		b.ReportMetric(quantileMs(added, q), "paired-"+name)
		b.ReportMetric(quantileMs(control, q), "control-"+name)
		b.ReportMetric(quantileMs(took[3], q), "floor-"+name)
		b.ReportMetric(quantileMs(took[4], q), "nothing-"+name)
		b.ReportMetric(quantileMs(own, q), "own-"+name)
		b.ReportMetric(quantileMs(took[2], q)-quantileMs(slices.Concat(took[0], took[1]), q), "tails-"+name)
	}
}

// asking is a call that asks a panel's question and wants so many frames.
func (p *pluginProcess) asking(b *testing.B, kind string, frames int) func() error {
	req := p.question(kind)
	return func() error {
		res, err := p.data.QueryData(b.Context(), req)
		if err == nil && len(res.Responses["A"].Frames) != frames {
			err = fmt.Errorf("%d frames: %s", len(res.Responses["A"].Frames), res.Responses["A"].Error)
		}
		return err
	}
}

// question is a request of one panel, as it travels.
func (p *pluginProcess) question(kind string) *pluginv2.QueryDataRequest {
	now := time.Now().UTC()
	return backend.ToProto().QueryDataRequest(&backend.QueryDataRequest{PluginContext: p.context(), Queries: []backend.DataQuery{panel("A", query.Request{Kind: kind}, now.Add(-time.Hour), now)}})
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

// processorTime is what a backend has used, from the nanoseconds that the
// scheduler counts for each of its threads.
func (p *pluginProcess) processorTime(b *testing.B) time.Duration {
	pid := p.client.ReattachConfig().Pid
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
