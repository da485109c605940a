package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamespaceDefinition: a namespace is defined by whoever runs the
// installation, wherever its own definitions are, and comes with its topics.
func TestNamespaceDefinition(t *testing.T) {
	p := startKedge(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "ns.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const doc = "kind: Namespace\nname: growth\nspec: {owner: ann, weight: 2, quotas: {events_per_second: 5000}}\n"
	write(doc)
	p.must("apply", "-f", file)
	if _, body := get(t, p.http+"/v1/definitions?kind=Namespace"); !strings.Contains(body, `"namespace":"growth"`) {
		t.Errorf("the namespace is not listed: %s", body)
	}
	status, body := post(t, p.http+"/v1/definitions/plan", `{"definitions":[{"kind":"Namespace","name":"Growth","spec":{}}]}`)
	if status != 200 || !strings.Contains(body, "want a lower-case letter") {
		t.Errorf("a name that topics cannot have: %d %s", status, body)
	}
	for _, topic := range []string{"kedge.growth.features", "kedge.growth.predictions", "kedge.growth.labels"} {
		if _, body := post(t, p.http+"/v1/sources/draft", `{"topic":"`+topic+`"}`); !strings.Contains(body, "is empty") { // so it exists
			t.Errorf("%s: %s", topic, body)
		}
	}
	write(strings.Replace(doc, "5000", "-1", 1))
	if _, errs, status := p.kedge("apply", "-f", file); status != 1 || !strings.Contains(errs, "events_per_second") {
		t.Errorf("a negative quota: %d %s", status, errs)
	}
	write("kind: FeatureView\nname: v\nspec: {origin: declared, keys: [{name: k, type: Int64}], columns: []}\n")
	p.must("apply", "-f", file, "--prune") // a folder of one team never deletes a namespace
	if out := p.must("get", "Namespace", "growth"); !strings.Contains(out, "weight: 2") {
		t.Errorf("after a prune: %s", out)
	}
	p.must("delete", "Namespace", "growth")
	if out := p.must("history", "Namespace", "growth"); !strings.Contains(out, "deleted") {
		t.Errorf("history: %s", out)
	}
}
