package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"testing"
)

// TestForgetFindsWhatIsEscaped stores what monitors know of somebody whose key has
// signs that JSON and HTML write otherwise. The encoders are the reference.
func TestForgetFindsWhatIsEscaped(t *testing.T) {
	s := open(t)
	for i, who := range []string{"R&D", `say "hi"`, "anna+news@example.org", "O'Brien", "a<b", `back\slash`} {
		inner, err := json.Marshal(map[string]string{"who": who})
		if err != nil {
			t.Fatal(err)
		}
		outer, err := json.Marshal(map[string]string{"part": string(inner)})
		if err != nil {
			t.Fatal(err)
		}
		var page bytes.Buffer
		if err := template.Must(template.New("").Parse("<p>moved, most at {{.}}: 3 %</p>")).Execute(&page, who); err != nil {
			t.Fatal(err)
		}
		forms := map[string]string{"JSON": string(inner), "JSON in JSON": string(outer), "a page": page.String(),
			"a drawing": "<title>" + template.HTMLEscapeString("most at "+who) + "</title>", "nothing": `{"who":"somebody-else"}`}
		for form, text := range forms {
			if err := s.SaveMonitorState(t.Context(), "test", fmt.Sprint(form, i), map[string]string{"state": text}, 1); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Forget(t.Context(), "test", map[string]string{"person": who}, nil); err != nil {
			t.Fatal(err)
		}
		for form := range forms {
			parts, err := s.MonitorState(t.Context(), "test", fmt.Sprint(form, i))
			if err != nil {
				t.Fatal(err)
			}
			if there := len(parts) > 0; there != (form == "nothing") {
				t.Errorf("%s that has %q: there after its erasure: %v", form, who, there)
			}
		}
	}
}
