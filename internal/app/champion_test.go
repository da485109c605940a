package app

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/trainer"
)

// The champion is whom the deployment says, from the entry on that made it so,
// and brings the grids and counts of its artefact's training rows, by the
// columns that its predictions are stored under.
func TestChampionBringsItsTraining(t *testing.T) {
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close() //nolint:errcheck // of a test
	reg, err := registry.Open(t.Context(), memlog.New(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	go reg.Run(t.Context()) //nolint:errcheck // ends with the test
	a := &App{dir: dir, registry: reg, cfg: Config{Namespace: "test"}}
	if _, err := a.library(); err != nil {
		t.Fatal(err)
	}
	put := func(kind, spec string) {
		t.Helper()
		d, _ := reg.State().Get(kind, "test", "m")
		if _, err := reg.Apply(t.Context(), registry.Entry{Kind: kind, Namespace: "test", Name: "m", Op: registry.Put, Expect: d.Version, Spec: json.RawMessage(spec), Who: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := a.champion("m"); ok {
		t.Error("a model nobody knows has a champion")
	}
	digest := trainSmall(t, dir.Sub(artifactsDir))
	put(trainer.ModelKind, fmt.Sprintf(`{"versions":[{"version":"7","artifact":%q,"stage":"candidate","created":"2026-01-01T00:00:00Z"}],"aliases":{"champion":"7"}}`, digest))
	if c, ok := a.champion("m"); !ok || c.Version != "7" || c.Artifact != digest {
		t.Errorf("by its alias: %+v", c)
	}
	deployed := `{"versions":[{"version":"1","artifact":"aa"},{"version":"2","artifact":%q}],"champion":%q%s}`
	put(serving.DeploymentKind, fmt.Sprintf(deployed, digest, "1", `,"canary":{"version":"2","weight":0.1}`))
	if c, _ := a.champion("m"); c.Version != "1" || c.Artifact != "aa" {
		t.Errorf("while a canary runs: %+v", c)
	}
	put(serving.DeploymentKind, fmt.Sprintf(deployed, digest, "2", ""))
	promoted, _ := a.champion("m")
	put(serving.DeploymentKind, fmt.Sprintf(deployed, digest, "2", `,"shadows":["1"]`))
	c, ok := a.champion("m")
	if !ok || c.Version != "2" || c.Artifact != digest || !c.Since.Equal(promoted.Since) {
		t.Errorf("promoted: %+v, since %v", c, promoted.Since)
	}
	training, err := c.Training()
	if err != nil {
		t.Fatal(err)
	}
	for column, mean := range map[string]float64{"x": 5, "score": 0.5} {
		b := training[column]
		if b == nil || b.Reference.Rows() < 300 {
			t.Fatalf("training of %s: %+v", column, b)
		}
		if got, _ := b.Reference.Mean(); got < mean-0.3 || got > mean+0.3 {
			t.Errorf("mean of %s in training %v, want about %v", column, got, mean)
		}
	}
	if b := training["district"]; b == nil || !b.Grid.Categorical() {
		t.Errorf("training of the category: %+v", b)
	}
	if err := os.RemoveAll(dir.Sub(artifactsDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Training(); err == nil {
		t.Error("an artefact that is gone was read")
	}
}

// trainSmall trains a linear model on 500 rows and returns its artefact.
func trainSmall(t *testing.T, artifacts string) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString("x,district,y\n")
	for range 500 {
		x := 5 + rng.NormFloat64()
		y := 0
		if x+rng.NormFloat64() > 5 {
			y = 1
		}
		fmt.Fprintf(&b, "%.4f,%c,%d\n", x, 'a'+rune(rng.IntN(3)), y)
	}
	file := filepath.Join(t.TempDir(), "small.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(artifacts, 0o700); err != nil {
		t.Fatal(err)
	}
	f := TrainFile{Path: file, Name: "m", Label: "y", Start: "2026-01-01T00:00:00Z", Step: time.Minute, Backend: "linear", Artifacts: artifacts}
	digest, err := f.Train(t.Context(), io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}
