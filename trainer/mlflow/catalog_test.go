package mlflow

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer"
)

// What a client registers is in Kedge's registry of models, and what Kedge
// registers is a client's to see, to name and to approve: there is one.
func TestOneRegistry(t *testing.T) {
	cfg := config(t)
	kedge, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kedge.Close()
	digest := strings.Repeat("ab", 32)
	kedge.Mkdir(digest, 0o755)
	kedge.WriteFile(digest+"/model.json", []byte("{}"), 0o644)
	cfg.Artifacts = model.NewLibrary(kedge, nil)
	c, _ := serveWith(t, t.TempDir(), cfg)
	run := newRun(c)

	// A client's version is Kedge's.
	c.ok("POST", "registered-models/create", map[string]any{"name": "fraud", "description": "d", "tags": []any{map[string]any{"key": "team", "value": "risk"}}})
	c.ok("POST", "model-versions/create", map[string]any{"name": "fraud", "source": "mlflow-artifacts:/0/x", "run_id": run})
	c.ok("POST", "registered-models/alias", map[string]any{"name": "fraud", "alias": "champion", "version": "1"})
	c.ok("POST", "model-versions/transition-stage", map[string]any{"name": "fraud", "version": "1", "stage": "Production"})
	m, err := cfg.Models.Find("test", "fraud")
	if err != nil {
		t.Fatal(err)
	}
	if v := m.Spec.Versions[0]; m.Spec.Aliases["champion"] != "1" || v.Stage != trainer.StageProduction || v.Run != run || v.Source != "mlflow-artifacts:/0/x" || v.Who != "local" || m.Spec.Tags["team"] != "risk" {
		t.Errorf("%+v", m.Spec)
	}

	// Kedge's version is a client's.
	if _, err := cfg.Models.Register(t.Context(), "test", "fraud", trainer.ModelVersion{Artifact: digest, Run: "r2"}, "challenger", "trainer", "passed"); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Models.SetStage(t.Context(), "test", "fraud", "2", trainer.StageStaging, "ann", "looks well"); err != nil {
		t.Fatal(err)
	}
	v := get(c.ok("GET", "registered-models/alias", url.Values{"name": {"fraud"}, "alias": {"challenger"}}), "model_version")
	if get(v, "version") != "2" || get(v, "run_id") != "r2" || get(v, "current_stage") != "Staging" || get(v, "source") != "mlflow-artifacts:/kedge/"+digest {
		t.Errorf("%v", v)
	}
	resp, err := http.Get(c.base + "/api/2.0/mlflow-artifacts/artifacts?path=kedge/" + digest)
	if err != nil {
		t.Fatal(err)
	}
	var listing map[string]any
	json.NewDecoder(resp.Body).Decode(&listing)
	resp.Body.Close()
	if get(listing, "files", 0, "path") != "model.json" {
		t.Errorf("Kedge's artefact lists %v", listing)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, c.base+"/api/2.0/mlflow-artifacts/artifacts/kedge/"+digest+"/model.json", strings.NewReader("evil"))
	if resp, err = http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an artefact of Kedge's was written: %v, %v", resp, err)
	}
	resp.Body.Close()

	// A copied version keeps its artefact; a number is never given twice.
	c.ok("POST", "registered-models/create", map[string]any{"name": "prod"})
	c.ok("POST", "model-versions/create", map[string]any{"name": "prod", "source": "models:/fraud/2"})
	if m, err := cfg.Models.Find("test", "prod"); err != nil || m.Spec.Versions[0].Artifact != digest {
		t.Errorf("%+v, %v", m.Spec, err)
	}
	c.ok("DELETE", "model-versions/delete", map[string]any{"name": "fraud", "version": "2"})
	if m, _ := cfg.Models.Find("test", "fraud"); m.Spec.Aliases["challenger"] != "" {
		t.Error("an alias of a deleted version stays")
	}
	next := c.ok("POST", "model-versions/create", map[string]any{"name": "fraud", "source": "s"})
	if get(next, "model_version", "version") != "3" {
		t.Errorf("after a deletion: %v", next)
	}
	c.ok("POST", "registered-models/rename", map[string]any{"name": "fraud", "new_name": "risk"})
	if _, err := cfg.Models.Find("test", "fraud"); err == nil {
		t.Error("the old name is still there")
	}
	if m, err := cfg.Models.Find("test", "risk"); err != nil || len(m.Spec.Versions) != 2 || m.Spec.Aliases["champion"] != "1" {
		t.Errorf("%+v, %v", m.Spec, err)
	}
}

// Models that an older build kept in its journal move into the registry, once.
func TestOldModelsAreAdopted(t *testing.T) {
	dir, cfg := t.TempDir(), config(t)
	journal := `{"op":"POST experiments/create","at":1,"fresh":"0","body":{"name":"Default"}}
{"op":"POST registered-models/create","at":2,"fresh":"a","body":{"name":"old"}}
{"op":"POST model-versions/create","at":3,"fresh":"b","body":{"name":"old","source":"mlflow-artifacts:/0/y"}}
{"op":"POST registered-models/alias","at":4,"fresh":"c","body":{"name":"old","alias":"champion","version":"1"}}
`
	if err := os.WriteFile(filepath.Join(dir, journalFile), []byte(journal), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, s := serveWith(t, dir, cfg)
		follow(t, s)()
		s.Close()
	}
	if m, err := cfg.Models.Find("test", "old"); err != nil || len(m.Spec.Versions) != 1 || m.Spec.Aliases["champion"] != "1" {
		t.Errorf("%+v, %v", m.Spec, err)
	}
}

// What a viewer may call changes nothing: models are changed by writers alone.
func TestRoutesThatChange(t *testing.T) {
	_, s := serve(t, t.TempDir())
	models := 0
	for _, r := range s.Routes(1) {
		method, path, ok := strings.Cut(r.Pattern, " ")
		if !ok {
			continue // of no method: answers that there is no such endpoint
		}
		asks := method == http.MethodGet || strings.HasSuffix(path, "/search") || strings.HasSuffix(path, "/get-latest-versions")
		if r.Changes == asks {
			t.Errorf("%s: changes something: %v", r.Pattern, r.Changes)
		}
		if r.Changes && (strings.Contains(path, "/registered-models/") || strings.Contains(path, "/model-versions/")) {
			models++
		}
	}
	if models < 20 {
		t.Errorf("%d routes change models", models)
	}
}
