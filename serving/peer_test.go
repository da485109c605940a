package serving

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// startMLServer serves the XGBoost file with MLServer, as its documentation
// says for one process, and returns its address.
func startMLServer(b *testing.B, python, file string) (addr string) {
	b.Helper()
	dir := b.TempDir()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	var ports [3]int
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		ports[i] = ln.Addr().(*net.TCPAddr).Port
		ln.Close()
	}
	for name, content := range map[string]string{
		"model.json":          string(text),
		"settings.json":       fmt.Sprintf(`{"host":"127.0.0.1","parallel_workers":0,"debug":false,"http_port":%d,"grpc_port":%d,"metrics_port":%d}`, ports[0], ports[1], ports[2]),
		"model-settings.json": `{"name":"fraud","implementation":"mlserver_xgboost.XGBoostModel","parameters":{"uri":"./model.json","version":"1"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(python, "-m", "mlserver.cli", "start", dir)
	if script := filepath.Join(filepath.Dir(python), "mlserver"); fileExists(script) {
		cmd = exec.Command(script, "start", dir)
	}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "OMP_NUM_THREADS=1"), log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); log.Close() })
	addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	testenv.Eventually(b, 3*time.Minute, func() error {
		res, err := http.Get("http://" + addr + "/v2/models/fraud/ready")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%d: %s", res.StatusCode, said)
		}
		return nil
	})
	return addr
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// BenchmarkBesideMLServer asks both servers for the same model's predictions in
// turns. KEDGE_MLSERVER names a Python that has mlserver and mlserver-xgboost.
func BenchmarkBesideMLServer(b *testing.B) {
	python := os.Getenv("KEDGE_MLSERVER")
	if python == "" {
		testenv.Skip(b, testenv.Short, "KEDGE_MLSERVER names no Python with mlserver and mlserver-xgboost")
	}
	file := hundredTreesFile(b)
	s := recordingServer(b)
	if err := s.Load(treesOf(b, file)); err != nil {
		b.Fatal(err)
	}
	addrs := [2]string{startMLServer(b, python, file), serve(b, s)}
	request := post("/v2/models/fraud/infer", nil, jsonRow())
	for _, conns := range []int{1, 8} {
		b.Run(fmt.Sprint("json-1x30/", conns), func(b *testing.B) {
			var rate, p50 [2]float64
			const turns = 6
			for turn := range turns {
				at := turn % 2
				l := offer(b, addrs[at], request, 600*(1+9*at), conns, 0)
				if l.failed+l.refused > 0 {
					b.Fatalf("%d failed, %d refused", l.failed, l.refused)
				}
				rate[at] += float64(len(l.took)) / l.elapsed.Seconds() / (turns / 2)
				p50[at] += l.at(0.5).Seconds() * 1e6 / (turns / 2)
			}
			b.ReportMetric(rate[0], "mlserver-req/s")
			b.ReportMetric(rate[1], "kedge-req/s")
			b.ReportMetric(rate[1]/rate[0], "kedge/mlserver")
			b.ReportMetric(p50[0], "mlserver-p50-µs")
			b.ReportMetric(p50[1], "kedge-p50-µs")
		})
	}
}
