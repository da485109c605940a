package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

// TestSecretsAreNotInherited: what a file's or a variable's setting refers to is
// read, and then in no environment that a child gets; all else is.
func TestSecretsAreNotInherited(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kedge.yaml")
	if err := os.WriteFile(file, []byte("clickhouse: {url: env:CLICKHOUSE_AT}\nerasure: {key: env:ERASURE}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{"CLICKHOUSE_AT": "http://u:canary1@127.0.0.1:8123", "ERASURE": "canary2", "PROM": "canary3", "KEDGE_KAFKA_SASL_PASSWORD": "env:PROM", "OTHER": "env:STAYS", "STAYS": "plain"} {
		t.Setenv(name, v)
	}
	f := runFlags{file: file}
	cfg, err := f.config(&cobra.Command{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.forgetSecrets(); err != nil {
		t.Fatal(err)
	}
	if string(cfg.ClickHouse.URL) != "http://u:canary1@127.0.0.1:8123" || string(cfg.Erasure.Key) != "canary2" || string(cfg.Kafka.SASL.Password) != "canary3" {
		t.Errorf("settings: %#v %#v", string(cfg.ClickHouse.URL), string(cfg.Erasure.Key))
	}
	for _, name := range []string{"CLICKHOUSE_AT", "ERASURE", "PROM"} {
		if v, there := os.LookupEnv(name); there {
			t.Errorf("%s is still %s", name, v)
		}
	}
	if os.Getenv("STAYS") != "plain" {
		t.Error("a variable that no setting refers to is gone")
	}
}
