package app

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kedge.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigDefaultsAreValidAndRoundTrip(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	text, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(writeFile(t, string(text)), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !reflect.DeepEqual(normal(got), normal(cfg)) {
		t.Fatalf("got  %+v\nwant %+v", got, cfg)
	}
}

// normal makes an empty list or map the same as none.
func normal(c Config) Config {
	walkConfig(reflect.ValueOf(&c).Elem(), "", func(_ string, v reflect.Value) {
		if k := v.Kind(); (k == reflect.Slice || k == reflect.Map) && v.Len() == 0 {
			v.SetZero()
		}
	})
	return c
}

func TestConfigFile(t *testing.T) {
	cfg, err := LoadConfig(writeFile(t, `
data_dir: /var/lib/kedge
http:
  listen: 0.0.0.0:80
  query_timeout: 1m30s
kafka:
  brokers: [a:9092, b:9092]
  retention: 2d
  retention_size: 512MB
`), []string{"KEDGE_HTTP_LISTEN=127.0.0.1:8080", "KEDGE_INGEST_MAX_ROWS=7", "KEDGE_ROLES=store, query", "KEDGE_DEMO_ENABLED=true", "KEDGE_TELEMETRY_SAMPLE_RATIO=0.5", "HOME=/x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want any }{
		{cfg.DataDir, "/var/lib/kedge"},
		{cfg.HTTP.Listen, "127.0.0.1:8080"}, // the environment wins over the file
		{time.Duration(cfg.HTTP.QueryTimeout), 90 * time.Second},
		{cfg.Kafka.Brokers, []string{"a:9092", "b:9092"}},
		{time.Duration(cfg.Kafka.Retention), 48 * time.Hour},
		{cfg.Kafka.RetentionSize, Size(512 << 20)},
		{cfg.Ingest.MaxRows, 7},
		{cfg.Roles, []string{"store", "query"}},
		{cfg.Demo.Enabled, true},
		{cfg.Telemetry.SampleRatio, 0.5},
		{cfg.HTTP.MaxBody, DefaultConfig().HTTP.MaxBody}, // untouched neighbours keep their defaults
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestConfigFileFaults(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":        {"http:\n  listen: 127.0.0.1:1\n  lisen: x\n", `[3:3] unknown field "lisen"`},
		"unknown top key":    {"htpp: {}\n", `[1:1] unknown field "htpp"`},
		"bad yaml":           {"http:\n\tlisten: x\n", "[2:1]"},
		"bad duration":       {"drain: soon\n", `duration "soon"`},
		"bare number":        {"drain: 5\n", `duration "5"`},
		"bad size":           {"http:\n  max_body: lots\n", `size "LOTS"`},
		"wrong type":         {"roles: 5\n", "[1:8]"},
		"two documents":      {"drain: 5s\n---\ndrain: 6s\n", "more than one YAML document"},
		"duplicate key":      {"drain: 5s\ndrain: 6s\n", "drain"},
		"missing secret":     {"kafka:\n  sasl:\n    password: file:/does/not/exist\n", "read secret"},
		"missing secret env": {"kafka:\n  sasl:\n    password: env:KEDGE_NO_SUCH\n", "KEDGE_NO_SUCH is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadConfig(writeFile(t, c.text), nil)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(c.want)) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
		})
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Fatal("a missing file was accepted")
	}
	if _, err := LoadConfig("", []string{"KEDGE_DRAIN=soon", "KEDGE_INGEST_MAX_ROWS=-1"}); err == nil ||
		!strings.Contains(err.Error(), "KEDGE_DRAIN") || !strings.Contains(err.Error(), "KEDGE_INGEST_MAX_ROWS") {
		t.Fatalf("both faults should be named, got %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"data_dir":                  func(c *Config) { c.DataDir = "" },
		"namespace":                 func(c *Config) { c.Namespace = "A b" },
		"roles: none":               func(c *Config) { c.Roles = nil },
		`unknown role "x"`:          func(c *Config) { c.Roles = []string{"x"} },
		"given twice":               func(c *Config) { c.Roles = []string{"store", "store"} },
		"need the role store":       func(c *Config) { c.Roles = []string{"ingest"} },
		"http.listen":               func(c *Config) { c.HTTP.Listen = "7070" },
		"http.max_body":             func(c *Config) { c.HTTP.MaxBody = 1 },
		"kafka.listen":              func(c *Config) { c.Kafka.Listen = "host:99999" },
		"kafka.brokers[1]":          func(c *Config) { c.Kafka.Brokers = []string{"a:1", "b"} },
		"kafka.partitions":          func(c *Config) { c.Kafka.Partitions = 0 },
		"kafka.retention":           func(c *Config) { c.Kafka.Retention = 0 },
		"kafka.sasl.mechanism":      func(c *Config) { c.Kafka.Brokers, c.Kafka.SASL.Mechanism = []string{"a:1"}, "MAGIC" },
		"embedded broker takes":     func(c *Config) { c.Kafka.TLS.Enabled = true },
		"cert_file and key_file":    func(c *Config) { c.Kafka.Brokers, c.Kafka.TLS.CertFile = []string{"a:1"}, "x" },
		"clickhouse.url":            func(c *Config) { c.ClickHouse.URL = "nonsense" },
		"clickhouse.listen":         func(c *Config) { c.ClickHouse.URL, c.ClickHouse.Listen = "http://h:1", "127.0.0.1:1" },
		"clickhouse.share_password": func(c *Config) { c.ClickHouse.Share = "127.0.0.1:8123" },
		"clickhouse.memory":         func(c *Config) { c.ClickHouse.Memory = 1 },
		"volume \"Cold\"":           func(c *Config) { c.ClickHouse.Volumes = map[string]string{"Cold": "/mnt/cold"} },
		"is not absolute":           func(c *Config) { c.ClickHouse.Volumes = map[string]string{"cold": "cold"} },
		"lies in the data": func(c *Config) {
			c.DataDir, c.ClickHouse.Volumes = "/srv/kedge", map[string]string{"cold": "/srv/kedge/cold"}
		},
		"or that in it":     func(c *Config) { c.DataDir, c.ClickHouse.Volumes = "/srv/kedge", map[string]string{"cold": "/srv"} },
		"clickhouse.policy": func(c *Config) { c.ClickHouse.Policy = "tiers" },
		"server's storage policy": func(c *Config) {
			c.ClickHouse.URL, c.ClickHouse.Volumes = "http://h:1", map[string]string{"cold": "/mnt/cold"}
		},
		"ingest.max_rows":         func(c *Config) { c.Ingest.MaxRows = 0 },
		"ingest.future_bound":     func(c *Config) { c.Ingest.FutureBound = 0 },
		"retention":               func(c *Config) { c.Retention.Rows = -1 },
		"telemetry.log_format":    func(c *Config) { c.Telemetry.LogFormat = "xml" },
		"telemetry.log_level":     func(c *Config) { c.Telemetry.LogLevel = "loud" },
		"telemetry.sample_ratio":  func(c *Config) { c.Telemetry.SampleRatio = 2 },
		"telemetry.otlp":          func(c *Config) { c.Telemetry.OTLP = "host:4318" },
		"features.history.memory": func(c *Config) { c.Features.History.Memory = 1 },
		"trainer.memory":          func(c *Config) { c.Trainer.Memory = 1 },
		"demo.rate":               func(c *Config) { c.Demo.Rate = 0 },
		"drain":                   func(c *Config) { c.Drain = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want a fault that says %q, got %v", want, err)
		}
	}
	cfg := DefaultConfig()
	cfg.DataDir, cfg.HTTP.Listen = "", "x"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "data_dir") || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("both faults should be named, got %v", err)
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	const canary = "s3cr3t-canary"
	cfg, err := LoadConfig(writeFile(t, "kafka:\n  brokers: [a:1]\n  sasl: {mechanism: PLAIN, username: u, password: "+canary+"}\nclickhouse:\n  url: http://u:"+canary+"@h:8123/?password="+canary+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(cfg.Kafka.SASL.Password) != canary {
		t.Fatal("the value itself must stay usable")
	}
	text, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	cfg.ClickHouse.URL = "http://u:" + canary + "@h:1"
	for _, shown := range []string{string(text), fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.Kafka.SASL.Password)} {
		if strings.Contains(shown, canary) {
			t.Errorf("the secret is shown: %s", shown)
		}
	}
	cfg.ClickHouse.URL = ServerURL("nonsense://u:" + canary + "@[")
	if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("a fault shows the secret: %v", err)
	}
}

func TestConfigSecretReferences(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEDGE_TEST_PW", "from env")
	for ref, want := range map[string]string{"file:" + file: "from file", "env:KEDGE_TEST_PW": "from env", "plain": "plain"} {
		var s Secret
		if err := s.UnmarshalText([]byte(ref)); err != nil || string(s) != want {
			t.Errorf("%s: got %q, %v", ref, string(s), err)
		}
	}
}

func TestDurationAndSizeText(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1.5d": 36 * time.Hour, "90s": 90 * time.Second, "12h": 12 * time.Hour, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		var back Duration
		b, _ := d.MarshalText()
		if err := back.UnmarshalText(b); err != nil || back != d {
			t.Errorf("%s wrote %s, which reads %v, %v", text, b, back, err)
		}
	}
	for text, want := range map[string]Size{"1048576": 1 << 20, "64MB": 64 << 20, "64mib": 64 << 20, "2 G": 2 << 30, "0": 0, "7": 7} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		var back Size
		b, _ := s.MarshalText()
		if err := back.UnmarshalText(b); err != nil || back != s {
			t.Errorf("%s wrote %s", text, b)
		}
	}
	for _, bad := range []string{"", "B", "-1", "9999999999T", "1X", "1e6"} {
		if err := new(Size).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("size %q was accepted", bad)
		}
	}
}

func FuzzConfigDecode(f *testing.F) {
	text, _ := DefaultConfig().YAML()
	f.Add(text)
	f.Add([]byte("http: {listen: 1}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := DefaultConfig()
		if decodeConfig(b, &cfg) == nil {
			_ = cfg.Validate()
		}
	})
}
