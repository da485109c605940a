package features

import (
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
)

// TestImportFeast reads a registry that Feast 0.67 wrote, and wants what comes
// of it to be definitions that can be applied.
func TestImportFeast(t *testing.T) {
	raw, err := os.ReadFile("testdata/feast-registry.db")
	must(t, err)
	defs, notes, err := ImportFeast(raw)
	must(t, err)
	var got []string
	for _, d := range defs {
		text, err := yaml.Marshal(d.Spec)
		must(t, err)
		got = append(got, d.Kind+" "+d.Name+"\n"+string(text))
		switch d.Kind {
		case event.FeatureViewKind:
			_, err = event.ParseView(text)
		case EntityKind:
			_, err = ParseEntity(text)
		case PushSourceKind:
			_, err = ParsePushSource(text)
		case FeatureServiceKind:
			_, err = ParseService(text)
		}
		if err != nil {
			t.Errorf("%s %s cannot be applied: %v\n%s", d.Kind, d.Name, err, text)
		}
	}
	all := strings.Join(got, "\n---\n")
	want, err := os.ReadFile("testdata/feast-import.txt")
	if os.Getenv("KEDGE_REWRITE") != "" {
		must(t, os.WriteFile("testdata/feast-import.txt", []byte(all+"\n---\n"+strings.Join(notes, "\n")+"\n"), 0o644))
		return
	}
	must(t, err)
	if all+"\n---\n"+strings.Join(notes, "\n")+"\n" != string(want) {
		t.Errorf("got\n%s\n---\n%s", all, strings.Join(notes, "\n"))
	}
	for cut := range len(raw) { // no prefix panics
		_, _, _ = ImportFeast(raw[:cut])
	}
}
