package expression

import "testing"

// TestFieldsNamedAsFunctions: a name that is not called is a field's.
func TestFieldsNamedAsFunctions(t *testing.T) {
	m := NewMachine()
	m.Put("type", "a")
	m.Put("count", 3)
	m.Put("last.len", 2)
	m.Put("values", []any{1, 2})
	for text, want := range map[string]any{
		`type == "a"`: true, `count > 2 && max(count, 5) == 5`: true, `last.len + len(values)`: 4, `type(count)`: "int", `first == nil`: true,
		`map(values, # + count)[1]`: 5,
	} {
		p, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := m.Run(p); err != nil || got != want {
			t.Errorf("%s is %v %v, want %v", text, got, err, want)
		}
	}
	if p, err := Compile("type + count"); err != nil || len(p.Names()) != 2 {
		t.Errorf("names %v %v", p.Names(), err)
	}
}
