package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// listPackages asks the go command for every package of the module.
func listPackages(t *testing.T) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = testenv.Root(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []Package
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestWhoMayImportWhom(t *testing.T) {
	pkgs := listPackages(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	for _, v := range Violations(pkgs) {
		t.Error(v)
	}
}

// TestViolationsAreSeen is the positive control: each kind of breach is found,
// and each kind of permitted import is not.
func TestViolationsAreSeen(t *testing.T) {
	for _, c := range []struct {
		from, imp string
		ok        bool
	}{
		{"event", "encoding/json", true},
		{"event", "github.com/parquet-go/parquet-go", true},
		{"event", Module + "query", false},
		{"event", Module + "internal/telemetry", false},
		{"event", "net/http", false},
		{"query", "net/http", true},
		{"query", "github.com/goccy/go-yaml", false},
		{"registry", Module + "stream", false},
		{"registry/memlog", Module + "registry", true},
		{"ingest", Module + "stream", true},
		{"ingest", Module + "store", false},
		{"ingest", Module + "internal/telemetry", true},
		{"ingest", "database/sql", false},
		{"serving", Module + "store", false},
		{"drift", "github.com/segmentio/kafka-go", false},
		{"stream", "github.com/segmentio/kafka-go/protocol", true},
		{"stream", "github.com/twmb/franz-go/pkg/kfake", false},
		{"stream/broker", "github.com/twmb/franz-go/pkg/kfake", true},
		{"store/chdb", Module + "event", true},
		{"grafana-plugin/pkg/plugin", Module + "query", true},
		{"grafana-plugin/pkg/plugin", Module + "store", false},
		{"internal/app", Module + "store/chdb", true},
		{"features", Module + "serving", false},
		{"utils", "fmt", false},
	} {
		got := Violations([]Package{{ImportPath: Module + c.from, Imports: []string{c.imp}}})
		if ok := len(got) == 0; ok != c.ok {
			t.Errorf("%s importing %s: allowed = %v, want %v (%v)", c.from, c.imp, ok, c.ok, got)
		}
	}
}
