package mlflow

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLogBatchHTTP logs 1,000 metrics in a request of the client's form,
// client included, while the store sends them on. cpu-ms is what the whole
// process spent on a batch, the engine's inserts included.
func BenchmarkLogBatchHTTP(b *testing.B) {
	s := openBench(b)
	server := httptest.NewServer(s.Handler(1 << 20))
	defer server.Close()
	post := func(path, body string) string {
		res, err := http.Post(server.URL+"/api/2.0/mlflow/"+path, "application/json", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("%s: %d %s %v", path, res.StatusCode, text, err)
		}
		return string(text)
	}
	_, rest, _ := strings.Cut(post("runs/create", `{"experiment_id":"0"}`), `"run_id":"`)
	run, _, _ := strings.Cut(rest, `"`)
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := cpu()
	for n := 0; b.Loop(); n++ {
		var batch strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&batch, `%s{"key":"m%d","value":%d.5,"timestamp":%d,"step":%d}`, strings.Repeat(",", min(i, 1)), i%10, i, 1_700_000_000_000+n, i)
		}
		post("runs/log-batch", `{"run_id":"`+run+`","metrics":[`+batch.String()+`]}`)
	}
	b.ReportMetric(float64((cpu()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}
