package event

import (
	"strings"
	"testing"
)

func TestParseColumnPolicy(t *testing.T) {
	s, err := ParseColumnPolicy([]byte("owner: privacy\ncolumns: [phone, email]\naction: mask\nshown_to: [producer]\n"))
	if err != nil || s.Owner != "privacy" || len(s.Columns) != 2 || s.Action != MaskColumn || s.ShownTo[0] != "producer" {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"action: mask": "columns", "columns: ['']\naction: mask": "columns", "columns: [a]": "action", "columns: [a]\naction: hide": "action",
		"columns: [a]\naction: deny\nrole: x": "role",
	} {
		if _, err := ParseColumnPolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
