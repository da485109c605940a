package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// composeLoad has the Compose project's own loader read a file: schema,
// interpolation, and whether what is named is there.
func composeLoad(t *testing.T, file string) ([]byte, error) {
	t.Helper()
	root := testenv.Root(t)
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile", filepath.Join(root, "internal/tools/go.mod"), "github.com/compose-spec/compose-go/v2/cmd", "-format", "json", file)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "COMPOSE_PROFILES=*")
	return cmd.Output()
}

// composeLint has a linter read a file with the committed rules.
func composeLint(t *testing.T, file string) (string, error) {
	t.Helper()
	lint := filepath.Join(testenv.Dep(t, "dclint/node_modules"), "dclint/bin/dclint.cjs")
	out, err := exec.CommandContext(t.Context(), "node", lint, "--config", filepath.Join(testenv.Root(t), "compose/dclint.json"), "--max-warnings", "0", file).CombinedOutput()
	return string(out), err
}

// TestComposeIsValid holds that others' tools take compose.yaml, and that they
// would notice: a misspelt member, a condition that there is not, a port that is
// open to the world.
func TestComposeIsValid(t *testing.T) {
	file := filepath.Join(testenv.Root(t), "compose", "compose.yaml")
	out, err := composeLoad(t, file)
	var loaded struct {
		Services map[string]json.RawMessage `json:"services"`
		Secrets  map[string]json.RawMessage `json:"secrets"`
	}
	if err != nil || json.Unmarshal(out, &loaded) != nil || len(loaded.Services) < 10 || len(loaded.Secrets) != 3 {
		t.Errorf("compose-go: %d services, %d secrets, %v", len(loaded.Services), len(loaded.Secrets), err)
	}
	if said, err := composeLint(t, file); err != nil {
		t.Errorf("dclint: %v\n%s", err, said)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(from, to string) string {
		t.Helper()
		text := strings.Replace(string(good), from, to, 1)
		if text == string(good) {
			t.Fatalf("compose.yaml has no %q", from)
		}
		name := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for from, to := range map[string]string{"    command: [run, --config, /etc/kedge/demo.yaml]": "    comand: [run]", "      kafka: { condition: service_healthy }": "      kafka: { condition: service_happy }"} {
		if _, err := composeLoad(t, bad(from, to)); err == nil {
			t.Errorf("compose-go takes %q", to)
		}
	}
	if said, err := composeLint(t, bad("127.0.0.1:3000:3000", "3000:3000")); err == nil || !strings.Contains(said, "no-unbound-port-interfaces") {
		t.Errorf("dclint takes a port that is open to the world: %s", said)
	}
}
