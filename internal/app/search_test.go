package app

import (
	"slices"
	"testing"

	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
)

// TestSearch looks for words in planted definitions: all words must stand
// somewhere, names come before columns and columns before descriptions.
func TestSearch(t *testing.T) {
	defs := []registry.Definition{
		{Kind: "FeatureView", Name: "spend", Spec: []byte(`{"description":"What a user spent","owner":"ann","tags":{"cost":"c-12"},"columns":[{"name":"amount"},{"name":"country","description":"ISO code"}]}`)},
		{Kind: "FeatureView", Name: "visits", Spec: []byte(`{"description":"Visits of a user","owner":"ben","columns":[{"name":"spend_per_visit"}]}`)},
		{Kind: "Model", Name: "churn", Spec: []byte(`{"description":"Who leaves; reads spend","owner":"ann","signatures":[{"id":1,"columns":[{"name":"amount"}]}]}`)},
	}
	for _, c := range []struct {
		words []string
		want  []string // in order
		where string   // of the first
	}{
		{nil, []string{"spend", "visits", "churn"}, ""},
		{[]string{"spend"}, []string{"spend", "visits", "churn"}, "name"},
		{[]string{"amount"}, []string{"spend", "churn"}, "columns.name"},
		{[]string{"amount", "ann", "leaves"}, []string{"churn"}, "signatures.columns.name"},
		{[]string{"c-12"}, []string{"spend"}, "tags.cost"},
		{[]string{"iso"}, []string{"spend"}, "columns.description"},
		{[]string{"user", "ben"}, []string{"visits"}, "owner"},
		{[]string{"nowhere"}, nil, ""},
		{[]string{"spend", "nowhere"}, nil, ""},
	} {
		var all []found
		for _, d := range defs {
			f, ok, err := searchOne(d, c.words)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				all = append(all, f)
			}
		}
		sortFound(all)
		var got []string
		for _, f := range all {
			got = append(got, f.definition.Name)
		}
		if !slices.Equal(got, c.want) || len(all) > 0 && all[0].where != c.where {
			t.Errorf("%q finds %v, want %v (first in %+v)", c.words, got, c.want, all)
		}
		if f := searchFrame(all); f.Rows() != len(c.want) || f.Type != query.Table {
			t.Errorf("frame of %q: %+v", c.words, f)
		}
	}
}
