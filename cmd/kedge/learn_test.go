package main

import (
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// TestLearntConstraintsAreADefinition: what the server suggests becomes YAML that
// a Monitor takes, but for what is withheld or stands there already.
func TestLearntConstraintsAreADefinition(t *testing.T) {
	f := &query.Frame{Columns: []query.Column{
		{Name: "column", Values: []string{"wait", "wait", "wait", "city", "age"}},
		{Name: "limit", Values: []string{"max_missing", "min", "max", "values", "max_missing"}},
		{Name: "value", Values: []string{"0.008", "0", "91.5", `["north","no: south","1"]`, "0.1"}},
		{Name: "windows", Values: []int64{40, 40, 40, 40, 40}}, {Name: "broken", Values: []int64{0, 0, 7, 0, 0}},
		{Name: "withheld", Values: []bool{false, false, true, false, false}}}}
	list, withheld, err := constraintsOf(f, []string{"age"})
	if err != nil || len(withheld) != 1 || withheld[0] != "wait: no max: 7 of the reference's 40 windows broke what the others suggest (91.5)" {
		t.Fatalf("%v, withheld %q (%v)", list, withheld, err)
	}
	b, err := yaml.Marshal(map[string]any{"view": "trips", "constraints": list})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := drift.ParseMonitor(b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if len(spec.Rules) != 2 || *spec.Rules[0].Missing != 0.008 || *spec.Rules[0].Min != 0 || spec.Rules[0].Max != nil || len(spec.Rules[1].Values) != 3 || spec.Rules[1].Values[1] != "no: south" {
		t.Errorf("%s\nis read as %+v", b, spec.Rules)
	}
}
