package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestReload changes settings of a running process: those that may change do,
// and a file with any other changes nothing and is named.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kedge.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("retention: {rows: 30d}\n")
	p := startKedge(t, t.TempDir(), "--config", file)
	p.send(`{"view":"v","key":{"k":1},"event_time":"2026-03-01T00:00:00Z","values":{"x":1}}`)
	p.caughtUp(1)
	reload := func(text string, want func() error) {
		t.Helper()
		write(text)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, time.Minute, want)
	}
	config := func(want string) error {
		if out := p.must("config"); !strings.Contains(out, want) {
			return fmt.Errorf("no %q in %s", want, out)
		}
		return nil
	}
	ttl := func(days int) error {
		if out := p.clickhouseText("SELECT engine_full FROM system.tables WHERE name LIKE 'features_%'"); !strings.Contains(out, fmt.Sprint(days*24*3600)) {
			return fmt.Errorf("retention: %s", out)
		}
		return nil
	}
	if err := ttl(30); err != nil {
		t.Error(err)
	}
	reload("retention: {rows: 77d}\ntelemetry: {log_level: debug}\n", func() error { return ttl(77) })
	if err := config("log_level: debug"); err != nil {
		t.Error(err)
	}
	reload("retention: {rows: 12d}\nkafka: {partitions: 9}\ningest: {writers: 7}\n", func() error {
		if log := p.log.String(); !strings.Contains(log, "kafka.partitions, ingest.writers") && !strings.Contains(log, "ingest.writers, kafka.partitions") {
			return fmt.Errorf("the log does not name what needs a restart: %s", log)
		}
		return nil
	})
	if err := ttl(77); err != nil {
		t.Errorf("a part of a refused reload was done: %v", err)
	}
}
