package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMembers holds a reader against encoding/json: the same names with the same
// values, and the same texts refused.
func TestMembers(t *testing.T) {
	r := NewFieldReader(DefaultDecoderConfig())
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{`1`, `-0.5e3`, `"a"`, `"\u00e9\n"`, `null`, `true`, `[1,{"a":[]}]`, `{}`, `{"b":{"c":"}"}}`})
		var parts []string
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "key", `q\"`, "\\u0041", ""}), 0, 4, rapid.ID).Draw(t, "names") {
			parts = append(parts, fmt.Sprintf(`"%s" :%s`, name, value.Draw(t, "value")))
		}
		text := []byte(" {" + strings.Join(parts, " ,\n") + "} ")
		if rapid.IntRange(0, 3).Draw(t, "spoilt") == 0 {
			text[rapid.IntRange(0, len(text)-1).Draw(t, "at")] = rapid.SampledFrom([]byte(`{}[]",: x`)).Draw(t, "byte")
		}
		var want map[string]json.RawMessage
		bad := json.Unmarshal(text, &want)
		got, err := r.Members(nil, text)
		if bad == nil && want == nil || err != nil && strings.Contains(err.Error(), "twice") {
			return // null, which is no object here; names that a spoilt byte made equal
		}
		if (err != nil) != (bad != nil) {
			t.Fatalf("%s: %v, encoding/json says %v", text, err, bad)
		}
		if err != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d members, want %d", text, len(got), len(want))
		}
		for _, m := range got {
			if !bytes.Equal(bytes.TrimSpace(want[m.Name]), m.Text) {
				t.Fatalf("%s: %q is %s, want %s", text, m.Name, m.Text, want[m.Name])
			}
		}
	})
	for text, want := range map[string]string{`{"a":1,"\u0061":2}`: "stands twice", `[]`: "must be an object", `null`: "must be an object", `{} {}`: "bytes follow", "{\"a\":\"\x80\"}": "UTF-8"} {
		if _, err := r.Members(nil, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if got, err := r.Members([]Member{{Name: "a"}}, []byte(`{"a":1}`)); err != nil || len(got) != 2 {
		t.Errorf("appended: %v, %v", got, err) // what was there is another object's
	}
}
