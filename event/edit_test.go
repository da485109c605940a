package event

import (
	"fmt"
	"strings"
	"testing"
)

func TestCompareSpecs(t *testing.T) {
	view := `{"origin":"declared","owner":"a","keys":[{"name":"id","type":"Int64"}],"columns":[{"name":"x","type":"Int64"},{"name":"s","type":"String"}],"ttl":"7d","online":true}`
	for _, c := range []struct{ from, to, want string }{
		{`"owner":"a"`, `"owner":"b"`, "owner none"},
		{`"owner":"a"`, `"owner":"a","tags":{"k":"v"}`, "tags none"},
		{`"ttl":"7d"`, `"ttl":"8d"`, "ttl read"},
		{`"online":true`, `"online":false`, "online read"},
		{`"name":"x","type":"Int64"`, `"name":"x","type":"Float64"`, "columns.x.type widening"},
		{`"name":"x","type":"Int64"`, `"name":"x","type":"String"`, "columns.x.type refused"},
		{`"name":"x","type":"Int64"`, `"name":"x","type":"Int64","aliases":["y"]`, "columns.x.aliases alias"},
		{`"name":"x","type":"Int64"`, `"name":"x","type":"Int64","retired":true`, "columns.x.retired retire"},
		{`{"name":"s","type":"String"}`, `{"name":"s","type":"String"},{"name":"n","type":"Bool"}`, "columns.n column"},
		{`,{"name":"s","type":"String"}`, ``, "columns.s overflow"},
		{`"name":"id","type":"Int64"`, `"name":"id","type":"String"`, "keys.id.type refused"},
		{`{"name":"id","type":"Int64"}`, `{"name":"id","type":"Int64"},{"name":"b","type":"String"}`, "keys.b refused"},
		{`"name":"id"`, `"name":"ident"`, "keys[0] refused"},
		{`"online":true`, `"online":true,"retired":true`, "retired retire"},
		{`"columns":[{"name":"x","type":"Int64"},{"name":"s","type":"String"}]`, `"columns":[{"name":"s","type":"String"},{"name":"x","type":"Int64"}]`, ""},
	} {
		edits, err := CompareSpecs(FeatureViewKind, []byte(view), []byte(strings.Replace(view, c.from, c.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range edits {
			got = append(got, fmt.Sprint(e.Path, " ", e.Effect))
			if (e.Effect == EffectRefused) != (e.Remedy != "") {
				t.Errorf("%+v: a refusal has a remedy, nothing else has", e)
			}
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s → %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	model := `{"origin":"inferred","signatures":[{"id":1,"columns":[{"name":"x","type":"Float64"}],"versions":["1"]}]}`
	edits, err := CompareSpecs(ModelKind, []byte(model), []byte(strings.Replace(model, `"versions":["1"]}`, `"versions":["1","2"]},{"id":2,"columns":[],"versions":["3"]}`, 1)))
	if err != nil || len(edits) != 2 || edits[0].Effect != EffectSignature || edits[1].Effect != EffectSignature {
		t.Errorf("model: %+v %v", edits, err)
	}
	edits, err = CompareSpecs("Deployment", []byte(`{"champion":"1","a":[1]}`), []byte(`{"champion":"2","a":[1],"owner":"x"}`))
	if err != nil || len(edits) != 2 || edits[0].Path != "champion" || edits[1].Effect != EffectNone {
		t.Errorf("other kinds: %+v %v", edits, err)
	}
}
