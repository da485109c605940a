package broker_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// status reads one line of a process's status, in MB.
func (c *child) status(t *testing.T, key string) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(raw)) {
		var kb int
		if name, rest, _ := strings.Cut(line, ":"); name == key {
			fmt.Sscanf(strings.TrimSpace(rest), "%d", &kb)
			return kb / 1024
		}
	}
	t.Fatalf("no %s", key)
	return 0
}

func TestMemoryAfterARestart(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	cfg := config(t.TempDir())
	cfg.DefaultPartitions = 12
	b := startChild(t, cfg)
	c := client(t, b.addr, kgo.DefaultProduceTopic("load"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := make([]byte, 1000)
	for i := range 450_000 {
		c.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("writing 450 MB: %d MB, at most %d MB", b.status(t, "VmRSS"), b.status(t, "VmHWM"))
	b.kill()
	b = startChild(t, cfg)
	b.small(t, "a crash")
	b.stop(t)
	b = startChild(t, cfg)
	b.small(t, "a clean stop")
}

// small fails when a start took memory for all that is stored.
func (c *child) small(t *testing.T, after string) {
	t.Helper()
	now, most := c.status(t, "VmRSS"), c.status(t, "VmHWM")
	t.Logf("started after %s on 450 MB: %d MB, at most %d MB", after, now, most)
	if now > 80 || most > 250 {
		t.Errorf("a start after %s took %d MB and keeps %d MB", after, most, now)
	}
}
