package serving

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestOtherPeoplesClients lets tritonclient (HTTP and gRPC) and
// open-inference-openapi, as PyPI has them, talk to a server.
func TestOtherPeoplesClients(t *testing.T) {
	python := testenv.Dep(t, "python/oip/bin/python")
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewGRPC(r.s)
	go g.Serve(ln)
	defer g.Stop()
	out, err := exec.Command(python, "testdata/clients.py", strings.TrimPrefix(r.http.URL, "http://"), ln.Addr().String()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all checks passed") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
