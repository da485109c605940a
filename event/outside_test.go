package event

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const outsideSpec = `{"origin":"declared","from":{"table":"spend","event_time":"at"},"keys":[{"name":"id","type":"Int64"}],"columns":[{"name":"x","type":"Float64"}]}`

// TestOutsideSpec: what a view over an outside table cannot have is refused, each
// with its reason, and an edit never makes stored rows an outside table's.
func TestOutsideSpec(t *testing.T) {
	if _, err := ParseView([]byte(outsideSpec)); err != nil {
		t.Fatal(err)
	}
	for was, c := range map[string]struct{ now, want string }{
		`"table":"spend",`:     {``, "from: table is missing"},
		`,"event_time":"at"`:   {``, "from: event_time is missing"},
		`"origin":"declared"`:  {`"origin":"inferred"`, "state origin: declared"},
		`"keys"`:               {`"online":true,"keys"`, "has no online rows"},
		`"columns":[`:          {`"version":2,"columns":[`, "has no versions"},
		`"x",`:                 {`"x","aliases":["y"],`, "aliases, which are for events"},
		`"event_time":"at"`:    {`"event_time":"at","columns":{"z":"q"}`, `no key part or column "z"`},
		`"table":"spend","eve`: {`"table":"spend","query":"SELECT 1","eve`, `unknown field "query"`},
	} {
		_, err := ParseView([]byte(strings.Replace(outsideSpec, was, c.now, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v, want %q", c.now, was, err, c.want)
		}
	}
	stored := strings.Replace(outsideSpec, `"from":{"table":"spend","event_time":"at"},`, "", 1)
	for _, c := range [][3]string{
		{stored, outsideSpec, "from refused"},
		{outsideSpec, stored, "from refused"},
		{outsideSpec, strings.Replace(outsideSpec, `"at"`, `"day"`, 1), "from read"},
		{outsideSpec, strings.Replace(outsideSpec, "Float64", "String", 1), "columns.x.type read"},
		{outsideSpec, strings.Replace(outsideSpec, `"x"`, `"y"`, 1), "columns.y read, columns.x read"},
		{outsideSpec, strings.Replace(outsideSpec, "Int64", "String", 1), "keys.id.type refused"},
	} {
		edits, err := CompareSpecs(FeatureViewKind, json.RawMessage(c[0]), json.RawMessage(c[1]))
		var got []string
		for _, e := range edits {
			got = append(got, e.Path+" "+string(e.Effect))
		}
		if err != nil || strings.Join(got, ", ") != c[2] {
			t.Errorf("%v, %v, want %s", got, err, c[2])
		}
	}
}

// TestOutsideViewTakesNoEvents: an event for one is a dead letter that says why.
func TestOutsideViewTakesNoEvents(t *testing.T) {
	catalog, err := NewCatalog([]CatalogEntry{{Kind: FeatureViewKind, Namespace: "default", Name: "v", UID: 1, Spec: json.RawMessage(outsideSpec)}})
	if err != nil {
		t.Fatal(err)
	}
	u := &Unit{Namespace: "default", Kind: Features, Catalog: catalog}
	NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Value: []byte(`{"view":"v","key":{"id":1},"event_time":"2026-01-01T00:00:00Z","values":{"x":1}}`), Time: 1_800_000_000_000_000})
	if len(u.Dead) != 1 || u.Dead[0].Reason != ReasonOutside || !strings.Contains(u.Dead[0].Detail, "write to that table") {
		t.Errorf("got %s", fmt.Sprint(u.Dead))
	}
}
