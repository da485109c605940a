package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/model/linear"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// TestParseDeployment joins every fault.
func TestParseDeployment(t *testing.T) {
	_, err := ParseDeployment([]byte(`{"versions":[{"version":"1"},{"version":"1","artifact":"x"}],"champion":"2","record":"maybe"}`))
	for _, want := range []string{"needs a version and an artifact", "stands twice", "names version 2", "unknown record policy"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in %v", want, err)
		}
	}
	if _, err := ParseDeployment([]byte(`{"versions":[],"champion":"1","champoin":"2"}`)); err == nil || !strings.Contains(err.Error(), "champoin") {
		t.Errorf("a misspelt member: %v", err)
	}
}

// linearFile is a model file of one input that is multiplied by w.
func linearFile(t *testing.T, w float64) []byte {
	t.Helper()
	b, err := json.Marshal(linear.Model{Version: linear.Format, Link: linear.Identity, Intercept: []float64{0},
		Terms: []linear.Term{{Scale: 1, Weights: []float64{w}, Missing: []float64{0}, Average: []float64{0}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openRegistry(t testing.TB) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(context.Background(), memlog.New(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return reg
}

// artifact writes the artefact of f0 × w and returns its digest.
func artifact(t *testing.T, root *os.Root, w float64) string {
	t.Helper()
	sig := model.Signature{Format: model.FormatVersion, Kind: model.Linear, Task: model.Regression,
		Inputs:  []model.Input{{Name: "f0", Type: "Float64"}},
		Outputs: []model.Output{{Name: "prediction", Width: 1}}}
	file := linearFile(t, w)
	g := model.Golden{Features: 1, Outputs: 1, Inputs: []float32{1, 2}, Expected: []float32{float32(w), float32(2 * w)}}
	digest, err := model.Write(root, &model.Artifact{Signature: sig, Model: file, Golden: g, Card: model.Card{Name: "m", Created: time.Unix(1, 0).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// TestFollow walks a deployment from its first version to a canary, past an
// artefact that does not exist, to its end.
func TestFollow(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	one, two := artifact(t, root, 1), artifact(t, root, 2)
	reg := openRegistry(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f := NewFollower(r.s, reg, model.NewLibrary(root, nil))
	go f.Run(ctx)

	version := uint64(0)
	apply := func(op registry.Op, spec string) {
		t.Helper()
		d, err := reg.Apply(ctx, registry.Entry{Kind: DeploymentKind, Namespace: "default", Name: "fraud", Op: op, Expect: version, Spec: json.RawMessage(spec), Who: "test"})
		if err != nil {
			t.Fatal(err)
		}
		version = d.Version
	}
	eventually := func(want string) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() error {
			got := fmt.Sprint(r.s.Models(), " ", f.Faults())
			if !strings.Contains(got, want) {
				return fmt.Errorf("%s has no %q", got, want)
			}
			return nil
		})
	}
	v := func(version, digest string) string {
		return fmt.Sprintf(`{"version":%q,"artifact":%q}`, version, digest)
	}
	apply(registry.Put, `{"versions":[`+v("1", one)+`],"champion":"1"}`)
	eventually("block [1]")
	if _, body, _ := r.post("/v2/models/fraud/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP64","data":[7]}]}`); !strings.Contains(body, "[7.0]") {
		t.Errorf("version 1: %s", body)
	}
	apply(registry.Put, `{"versions":[`+v("1", one)+`,`+v("2", two)+`],"champion":"2","shadows":["1"],"record":"drop"}`)
	eventually("drop [1 2]")
	if _, body, _ := r.post("/v2/models/fraud/infer", `{"inputs":[{"name":"f0","shape":[1],"datatype":"FP64","data":[7]}]}`); !strings.Contains(body, "[14.0]") {
		t.Errorf("version 2: %s", body)
	}
	apply(registry.Put, `{"versions":[`+v("3", strings.Repeat("0", 64))+`],"champion":"3"}`)
	eventually("load version 3")
	eventually("drop [1 2]") // what it would have replaced still answers
	apply(registry.Put, `{"versions":[`+v("2", two)+`],"champion":"2"}`)
	eventually("block [2]")
	apply(registry.Delete, "")
	eventually("[] map[]")
}
