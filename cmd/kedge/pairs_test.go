package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/stream"
)

// payloadLogger sends to Kafka what KServe's payload logger does: CloudEvents in
// binary mode, the request and the response apart.
type payloadLogger struct {
	t        *testing.T
	producer *stream.Producer
}

func newPayloadLogger(t *testing.T, kafka string) *payloadLogger {
	c, err := stream.NewClient(stream.Config{Brokers: []string{kafka}, ClientID: "kserve"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: "kserve.log", Partitions: 2, Replication: 1}}); err != nil {
		t.Fatal(err)
	}
	return &payloadLogger{t, c.Producer(stream.ProducerConfig{})}
}

func (l *payloadLogger) send(id string, response bool, partition int) {
	kind, body := "request", `{"instances":[[6.8,2.8],[6.0,3.4]]}`
	if response {
		kind, body = "response", `{"predictions":["versicolor","setosa"]}`
	}
	m := stream.Message{Value: []byte(body), Partition: int32(partition), Pinned: true}
	for _, h := range [][2]string{{"ce_specversion", "1.0"}, {"ce_id", id}, {"ce_type", "org.kubeflow.serving.inference." + kind},
		{"ce_source", "http://localhost:9081/"}, {"ce_inferenceservicename", "iris"}, {"content-type", "application/json"}} {
		m.Headers = append(m.Headers, stream.Header{Name: h[0], Value: []byte(h[1])})
	}
	if err := l.producer.Produce(l.t.Context(), "kserve.log", m); err != nil {
		l.t.Error(err)
	}
}

// pairedSource is the one of docs/sources.md.
func pairedSource(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "sources.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fences(string(text)) {
		if strings.HasPrefix(f[1], "# iris.yaml") {
			return f[1]
		}
	}
	t.Fatal("the document has no source with pairs")
	return ""
}

// TestPairedTopic monitors a topic of requests and responses whose producer knows
// nothing of Kedge, while the process is killed under load: each pair is stored
// once, and what stays alone becomes a dead letter when it has waited.
func TestPairedTopic(t *testing.T) {
	dir := t.TempDir()
	p := startKedge(t, dir)
	logger := newPayloadLogger(t, p.kafka)
	file := filepath.Join(dir, "iris.yaml")
	apply := func(wait string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Replace(pairedSource(t), "wait: 10m", "wait: "+wait, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.must("apply", "-f", file)
	}
	apply("24h")
	for i := range 10 {
		logger.send(fmt.Sprint("alone-", i), i%2 == 0, i%2)
	}
	const rounds, each = 1, 800
	for round := range rounds {
		var load sync.WaitGroup
		for side := range 2 {
			load.Go(func() {
				for i := range each {
					logger.send(fmt.Sprint(round, "-", i), side == 1, (i+side)%2)
				}
			})
		}
		testenv.Eventually(t, time.Minute, func() error { // it is at work
			if n := landed(p, "predictions", "iris"); n < int64(2*each*round+1) {
				return fmt.Errorf("%d predictions", n)
			}
			return nil
		})
		load.Wait() // the broker goes with the process, and a producer's half that it has not acknowledged too
		p.kill()
		p = startKedge(t, dir)
		logger = newPayloadLogger(t, p.kafka)
	}
	testenv.Eventually(t, 2*time.Minute, func() error {
		if n := landed(p, "predictions", "iris"); n != 2*rounds*each {
			return fmt.Errorf("%d predictions, want %d", n, 2*rounds*each)
		}
		_, metrics := get(t, p.http+"/metrics")
		if m := regexp.MustCompile(`(?m)^kedge_pairs_waiting\{.*\} (\S+)$`).FindStringSubmatch(metrics); m == nil || m[1] != "10" {
			return fmt.Errorf("halves that wait: %v, want 10", m)
		}
		return nil
	})
	counts := func(want map[string]int64) {
		t.Helper()
		testenv.Eventually(t, 2*time.Minute, func() error {
			ledger := p.ask(query.Request{Kind: "ledger"})[0]
			for name, n := range want {
				if got := columnSum(t, ledger, name); got != n {
					return fmt.Errorf("ledger: %s is %d, want %d", name, got, n)
				}
			}
			return nil
		})
	}
	logger.send("0-0", false, 0) // once more, after its pair is long stored
	counts(map[string]int64{"records": rounds*each + 1, "silent": 1, "dead_letters": 0})
	apply("1s") // now those that are alone have waited
	counts(map[string]int64{"records": rounds*each + 11, "rows": 2 * rounds * each, "dead_letters": 10, "silent": 1, "duplicates": 0})
	if out := p.must("dead-letters", "list"); strings.Count(out, "unpaired") < 10 || !strings.Contains(out, "alone-") {
		t.Errorf("dead letters:\n%s", out)
	}
	if out := p.must("dead-letters", "replay"); !strings.HasPrefix(out, "0 replayed, 10 skipped") {
		t.Errorf("replay: %s", out)
	}
	p.mustBalance()
	if out, _, _ := p.kedge("status"); !strings.Contains(out, "pairs") {
		t.Errorf("status does not tell of pairs:\n%s", out)
	}
}
