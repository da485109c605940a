package push

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestTortureAlertmanagersModels holds what an Alertmanager was told, of beginnings
// and of ends, against the models that its own API is made of; they find what is
// wrong with other bodies. It is no part of `make test` because compiling those
// models takes half a minute of processor time.
func TestTortureAlertmanagersModels(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "compiling Alertmanager's models takes long: make torture")
	}
	check := filepath.Join(t.TempDir(), "amcheck")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", check, ".")
	build.Dir, build.Env = filepath.Join(testenv.Root(t), "internal/tools/amcheck"), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	refused := func(body []byte) string {
		cmd := exec.CommandContext(t.Context(), check)
		cmd.Stdin = bytes.NewReader(body)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}
	s := newStage(t, drifts)
	s.state["age"], s.state["größe ✓"] = 3, 2
	s.look()
	s.now = s.now.Add(time.Hour) // beyond any patience
	s.look()
	s.state["age"] = 0
	s.look()
	if len(s.am.bodies) < 2 || !bytes.Contains(s.am.bodies[0], []byte("größe")) {
		t.Fatalf("%d bodies", len(s.am.bodies))
	}
	for _, body := range s.am.bodies {
		if said := refused(body); said != "" {
			t.Errorf("%s\n%s", said, body)
		}
	}
	good := string(s.am.bodies[0])
	for _, bad := range []string{strings.Replace(good, `"labels":{`, `"labels":[`, 1), strings.Replace(good, `"labels"`, `"label"`, 1), strings.Replace(good, `"endsAt":"2`, `"endsAt":"yesterday 2`, 1),
		strings.Replace(good, `"generatorURL":"http://`, `"generatorURL":"http://a b %zz/`, 1)} {
		if bad == good || refused([]byte(bad)) == "" {
			t.Errorf("the models take %s", bad)
		}
	}
}
