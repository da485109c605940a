package serving

import (
	"testing"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/conformance"
)

// TestConformance asks this server what the suite asks any.
func TestConformance(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	cat := sum("1", 1, 2)
	cat.Name, cat.Signature.Inputs = "cat", []model.Input{{Name: "c", Type: "String", Categories: []string{"a", "b"}}, {Name: "n", Type: "Int64"}}
	if err := r.s.Load(cat); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fraud", "cat"} {
		s := conformance.Suite{Server: r.http.URL, Model: name}
		results, err := s.Run(t.Context())
		if err != nil || len(results) < 20 {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for _, res := range results {
			if res.Broken != "" {
				t.Errorf("%s: %s: %s", name, res.Check, res.Broken)
			}
		}
	}
}
