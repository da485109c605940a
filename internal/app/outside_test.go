package app

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

// TestOutsideTables takes a table that Kedge did not make through the life of
// its view: allowed, refused, planned, read, and gone without a trace in it.
func TestOutsideTables(t *testing.T) {
	dir := t.TempDir()
	r := startApp(t, func(c *Config) {
		c.Outside.Tables = []OutsideTable{
			{Name: "spend", Namespaces: []string{"default"}, Parquet: filepath.Join(dir, "*.parquet")},
			{Name: "theirs", Namespaces: []string{"elsewhere"}, Parquet: filepath.Join(dir, "*.parquet")},
		}
		c.Ingest.MinDelay = Duration(10 * time.Millisecond)
	})
	define := func(path, table, column string) (int, string) {
		d := fmt.Sprintf(`{"kind":"FeatureView","name":"spend","spec":{"origin":"declared","from":{"table":%q,"event_time":"at","columns":{"driver_id":"id"}},"keys":[{"name":"driver_id","type":"Int64"}],"columns":[{"name":%q,"type":"Float64"}]}}`, table, column)
		if path == "/v1/definitions/plan" {
			d = `{"definitions":[` + d + `]}`
		}
		return r.call("POST", path, d)
	}
	if _, text := define("/v1/definitions/plan", "spend", "amount"); !strings.Contains(text, "no Parquet files") {
		t.Errorf("without files the plan says %s", text)
	}
	file := filepath.Join(dir, "a.parquet")
	exec := func(sql string) {
		if err := r.store.Embedded().Exec(t.Context(), chdb.Statement{SQL: sql}); err != nil {
			t.Fatal(err)
		}
	}
	exec("INSERT INTO FUNCTION file('" + file + "', 'Parquet') SELECT toInt64(number % 3) AS id, toDateTime64('2026-03-01 12:00:00', 6, 'UTC') + number AS at, number + 0.5 AS amount FROM numbers(30)")
	planted, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ table, column, want string }{
		{"theirs", "amount", "namespace default may read no outside table"},
		{"spend", "absent", `there is no column \"absent\"`},
		{"spend", "id", "which is no Float64"},
	} {
		status, text := define("/v1/definitions", c.table, c.column)
		if status != http.StatusBadRequest || !strings.Contains(text, c.want) {
			t.Errorf("%s, %s: %d %s, want %s", c.table, c.column, status, text, c.want)
		}
		if _, text := define("/v1/definitions/plan", c.table, c.column); !strings.Contains(text, c.want) {
			t.Errorf("the plan of %s, %s says %s, want %s", c.table, c.column, text, c.want)
		}
	}
	if status, text := define("/v1/definitions", "spend", "amount"); status != http.StatusOK {
		t.Fatalf("apply: %d %s", status, text)
	}
	const rows = `{"kind":"rows","view":"spend","from":"2026-03-01T00:00:00Z","to":"2026-03-02T00:00:00Z","limit":100}`
	testenv.Eventually(t, time.Minute, func() error {
		if status, text := r.call("POST", "/v1/query", rows); status != http.StatusOK || !strings.Contains(text, "29.5") {
			return fmt.Errorf("rows: %d %s", status, text)
		}
		return nil
	})
	status, text := r.call("POST", "/v1/historical-features?features=spend:amount", "driver_id,event_timestamp\n1,2026-03-01T12:00:20Z\n2,2026-03-01T11:00:00Z\n", "Content-Type", "text/csv", "Accept", "text/csv")
	if status != http.StatusOK || !strings.Contains(text, "1,2026-03-01T12:00:20Z,19.5") {
		t.Errorf("history: %d %s", status, text)
	}
	for panel, want := range map[string]string{
		`{"kind":"summary","view":"spend","columns":["amount"],"from":"2026-03-01T00:00:00Z","to":"2026-03-02T00:00:00Z","step":"24h"}`: "2026-03-01T00:00:00Z,30,0,0,15,",
		`{"kind":"freshness","view":"spend"}`: ",2026-03-01T12:00:29Z,",
	} {
		if status, text := r.call("POST", "/v1/query", panel, "Accept", "text/csv"); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", panel, status, text, want)
		}
	}
	if status, text := r.call("POST", "/v1/events", `{"view":"spend","key":{"driver_id":1},"event_time":"2026-03-01T12:00:00Z","values":{"amount":1}}`, "Content-Type", "application/x-ndjson"); status != http.StatusOK {
		t.Errorf("event: %d %s", status, text)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if _, text := r.call("POST", "/v1/query", `{"kind":"dead_letters"}`); !strings.Contains(text, "reads the outside table") {
			return fmt.Errorf("dead letters: %s", text)
		}
		return nil
	})
	if status, text := r.call("POST", "/v1/erasures", `{"entity":{"driver_id":"1"}}`); status != http.StatusOK || !strings.Contains(text, `"outside_tables":[{"view":"spend","table":"spend","rows":10}]`) {
		t.Errorf("erasure: %d %s", status, text)
	}
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if status, text := r.call("POST", "/v1/query", rows); status != http.StatusConflict || !strings.Contains(text, "outside_table") || !strings.Contains(text, "no Parquet files") {
		t.Errorf("rows without the file: %d %s", status, text)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	views := func() string {
		var out []byte
		err := r.store.Embedded().Query(t.Context(), chdb.Statement{SQL: "SELECT groupArray(name) FROM system.tables WHERE database = 'kedge' AND engine = 'View'"}, "TabSeparatedRaw", func(b []byte) error { out = append(out, b...); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if views() == "[]" {
		t.Fatal("no view was made")
	}
	if status, text := r.call("DELETE", "/v1/definitions?kind=FeatureView&name=spend", ""); status != http.StatusOK {
		t.Fatalf("delete: %d %s", status, text)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if got := views(); got != "[]" {
			return fmt.Errorf("views that are left: %s", got)
		}
		return nil
	})
	if now, err := os.ReadFile(file); err != nil || string(now) != string(planted) {
		t.Errorf("the outside file changed: %v", err)
	}
}

// dedented takes two spaces off every line.
func dedented(s string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\n"+s, "\n  ", "\n"), "\n")
}

// TestOutsideConfig: what would lead to Kedge's own tables is refused.
func TestOutsideConfig(t *testing.T) {
	for want, o := range map[string]OutsideTable{
		"is not outside":                   {Name: "a", Namespaces: []string{"*"}, Database: "Kedge", Table: "features_1"},
		"\"SYSTEM\" is not outside":        {Name: "a", Namespaces: []string{"*"}, Database: "SYSTEM", Table: "tables"},
		"want database and table, or":      {Name: "a", Namespaces: []string{"*"}, Database: "w", Table: "t", Parquet: "/x"},
		"name those that may read":         {Name: "a", Database: "w", Table: "t"},
		"want an absolute path":            {Name: "a", Namespaces: []string{"*"}, Parquet: "/data/../etc/*"},
		"want access_key and secret_key":   {Name: "a", Namespaces: []string{"*"}, S3: "https://host/x", AccessKey: "a"},
		"access_key is of s3":              {Name: "a", Namespaces: []string{"*"}, Parquet: "/x", AccessKey: "a", SecretKey: "b"},
		"without a key in it":              {Name: "a", Namespaces: []string{"*"}, S3: "https://key:secret@host/x"},
		"want a namespace, or":             {Name: "a", Namespaces: []string{"A B"}, Database: "w", Table: "t"},
		"outside.tables[0].name: a name i": {Namespaces: []string{"*"}, Database: "w", Table: "t"},
	} {
		cfg := DefaultConfig()
		cfg.Outside.Tables = []OutsideTable{o}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	server := DefaultConfig()
	server.ClickHouse.URL = "http://localhost:8123"
	server.Outside.Tables = []OutsideTable{{Name: "a", Namespaces: []string{"*"}, S3: "https://host/x", AccessKey: "a", SecretKey: "b"}}
	if err := server.Validate(); err == nil || !strings.Contains(err.Error(), "keys of the server's own") {
		t.Errorf("keys for a server: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "sources.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, written, _ := strings.Cut(string(text), "```yaml\noutside:")
	written, view, _ := strings.Cut(written, "```")
	cfg := DefaultConfig()
	cfg.ClickHouse.URL = "http://localhost:8123"
	if err := decodeConfig([]byte("outside:"+written), &cfg); err != nil || cfg.Validate() != nil || len(cfg.Outside.Tables) != 3 {
		t.Errorf("as documented: %v, %v, %+v", err, cfg.Validate(), cfg.Outside)
	}
	_, view, _ = strings.Cut(view, "spec:\n")
	view, _, _ = strings.Cut(view, "```")
	if spec, err := event.ParseView([]byte(dedented(view))); err != nil || spec.From == nil || spec.From.Column("amount_7d") != "amt7" {
		t.Errorf("as documented: %v, %+v", err, spec)
	}
	if _, err := LoadConfig("", []string{"KEDGE_OUTSIDE_TABLES=a"}); err == nil || !strings.Contains(err.Error(), "configuration file") {
		t.Errorf("from the environment: %v", err)
	}
}
