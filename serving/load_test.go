package serving

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/tree"
	"github.com/kedge-ml/kedge/stream"
)

const trainHundredTrees = `
import sys, numpy as np, xgboost as xgb
rng = np.random.default_rng(1)
x = rng.normal(size=(20000, 30)).astype(np.float32)
y = (x[:, :5].sum(1) + x[:, 5] * x[:, 6] + rng.normal(size=20000) > 0).astype(int)
xgb.train({"objective": "binary:logistic", "max_depth": 6, "nthread": 1}, xgb.DMatrix(x, y), 100).save_model(sys.argv[1])
`

// hundredTrees is XGBoost's own model of 100 trees over 30 inputs.
func hundredTrees(b *testing.B) Model { return treesOf(b, hundredTreesFile(b)) }

func hundredTreesFile(b *testing.B) string {
	b.Helper()
	file := filepath.Join(b.TempDir(), "model.json")
	if out, err := exec.Command(testenv.Dep(b, "python/truth/bin/python"), "-c", trainHundredTrees, file).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return file
}

func treesOf(b *testing.B, file string) Model {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	p, err := tree.Read(text, tree.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	m := sum("1", make([]float32, 30)...)
	m.Signature.Kind, m.Signature.Task, m.Predictor = model.XGBoost, model.Binary, p
	return m
}

// recordingServer records to nobody.
func recordingServer(b *testing.B) *Server {
	s := NewServer(DefaultConfig(), nil, slog.New(slog.DiscardHandler))
	s.rec.send = func(context.Context, string, ...stream.Message) error { return nil }
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	go s.Run(ctx)
	return s
}

// BenchmarkOverHTTP asks a server over loopback connections, client and server
// in this process: per request the wall time at the stated number of
// connections, p50 and p99, and the processor's time of both sides.
func BenchmarkOverHTTP(b *testing.B) {
	s := recordingServer(b)
	if err := s.Load(hundredTrees(b)); err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, r := range Routes(s) {
		mux.Handle(r.Pattern, r.Handler)
	}
	mux.HandleFunc("POST /bare", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		write(w, http.StatusOK, []byte(`{"model_name":"fraud","outputs":[{"name":"prediction","datatype":"FP32","shape":[1],"data":[0.5]}]}`))
	})
	addr := listen(b, mux, PlainPaths())
	row := jsonRow()
	for _, c := range []struct {
		name    string
		request []byte
		conns   int
		rows    int
	}{
		{"bare-handler/1", post("/bare", nil, row), 1, 1},
		{"json-1x30/1", post("/v2/models/fraud/infer", nil, row), 1, 1},
		{"bare-handler/8", post("/bare", nil, row), 8, 1},
		{"json-1x30/8", post("/v2/models/fraud/infer", nil, row), 8, 1},
		{"binary-64x30/8", binaryRows(64), 8, 64},
	} {
		b.Run(c.name, func(b *testing.B) { drive(b, addr, c.request, c.conns, c.rows) })
	}
	if n := s.Records(); n.Dropped+n.Failed > 0 {
		b.Errorf("records: %+v", n)
	}
}

func jsonRow() []byte {
	var values []string
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		values = append(values, strconv.FormatFloat(rng.NormFloat64(), 'f', 5, 32))
	}
	return []byte(`{"inputs":[{"name":"input","shape":[1,30],"datatype":"FP32","data":[` + strings.Join(values, ",") + `]}]}`)
}

func binaryRows(n int) []byte {
	head := fmt.Sprintf(`{"inputs":[{"name":"input","shape":[%d,30],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, n, n*120)
	body := []byte(head)
	rng := rand.New(rand.NewPCG(1, 1))
	for range n * 30 {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(rng.NormFloat64())))
	}
	return post("/v2/models/fraud/infer", []string{headerLength + ": " + strconv.Itoa(len(head))}, body)
}

func post(path string, header []string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, len(body))
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// drive sends one request over and over on each of several connections.
func drive(b *testing.B, addr string, request []byte, conns, rows int) {
	var next sync.Mutex
	left := b.N
	took := make([][]time.Duration, conns)
	var wg sync.WaitGroup
	cpu := processorTime(b)
	b.ResetTimer()
	for i := range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				next.Lock()
				left--
				done := left < 0
				next.Unlock()
				if done {
					return
				}
				began := time.Now()
				if err := ask(c, r, request); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		b.Fatal("nothing was answered")
	}
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / 1e3 }
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.99), "p99-µs")
	b.ReportMetric(float64(processorTime(b)-cpu)/float64(b.N)/1e3, "cpu-µs/op")
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}

// ask sends a request and reads the answer, as cheaply as one can.
func ask(w io.Writer, r *bufio.Reader, request []byte) error {
	if _, err := w.Write(request); err != nil {
		return err
	}
	return readAnswer(r)
}

// readAnswer reads one answer; any status but 200 is the error.
func readAnswer(r *bufio.Reader) error {
	length, status := 0, ""
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(line))
		if status == "" {
			status = text
		}
		if text == "" {
			break
		}
		if v, ok := strings.CutPrefix(strings.ToLower(text), "content-length: "); ok {
			length, _ = strconv.Atoi(v)
		}
	}
	if _, err := r.Discard(length); err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		return fmt.Errorf("%s", status)
	}
	return nil
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
