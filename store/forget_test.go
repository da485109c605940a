package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/kedge-ml/kedge/event"
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

// TestForgetFindsEscapedKeys sends records and stores rows of keys with signs
// that JSON writes in several ways, each in the ways of several writers, beside
// such of others.
func TestForgetFindsEscapedKeys(t *testing.T) {
	s := open(t)
	view := event.NewSchema(event.Features, "forget", "visit", 920_001, []event.Field{field("person", scalar(event.String))}, nil)
	pred := event.NewSchema(event.Predictions, "forget", "churn", 920_002, nil, nil)
	prepare(t, s, view, pred)
	const own = "kedge.forget.features"
	keys := []string{`say "hi"`, `"quoted"`, `back\slash`, "tab\tand\u0001", "Müller", "李雷", "emoji 🙂", "a<b>&c", "a/b", " blank ", "1001", "x\u2028y", "a.b*c[d]", "new\nline"}
	for i, who := range keys {
		ascii := func(format string) string { // as writers do that keep to ASCII
			var b strings.Builder
			for _, u := range utf16.Encode([]rune(who)) {
				if u >= 0x20 && u < 0x7f && u != '"' && u != '\\' {
					b.WriteRune(rune(u))
				} else {
					fmt.Fprintf(&b, format, u)
				}
			}
			return `"` + b.String() + `"`
		}
		plain, err := json.Marshal(who)
		if err != nil {
			t.Fatal(err)
		}
		var loose bytes.Buffer
		enc := json.NewEncoder(&loose)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(who); err != nil {
			t.Fatal(err)
		}
		ways := []string{string(plain), strings.TrimSpace(loose.String()), ascii(`\u%04x`), ascii(`\u%04X`), strings.ReplaceAll(string(plain), "/", `\/`)}
		if who == "1001" {
			ways = append(ways, "1001", "1001.0")
		}
		var dead []event.DeadLetter
		add := func(value, key string) {
			dead = append(dead, event.DeadLetter{Topic: own, Partition: int32(i), Offset: int64(len(dead)), KnownAt: minute, Reason: event.ReasonType, Key: []byte(key), Value: []byte(value)})
		}
		for _, v := range ways {
			add(`{"view":"visit","key":{"person":`+v+`},"n":[]}`, "")
			add(`{"view": "visit", "key" : `+v+` , "n":[]}`, "")
			add("", `{"person":`+v+`}`)
		}
		mine := len(dead)
		add(`{"view":"visit","key":{"person":"somebody-else"}}`, "")
		add(`{"view":"other","key":`+ways[0]+`}`, "")
		add(`{"view":"visit","key":{"shop":`+ways[0]+`}}`, "")
		if err := s.InsertDeadLetters(t.Context(), fmt.Sprint("dead", i), dead); err != nil {
			t.Fatal(err)
		}
		b := event.NewBatch(pred, topic)
		addRow(b, int64(2*i))
		addRow(b, int64(2*i+1))
		c := &b.Columns[event.PredKey]
		c.Data, c.StrEnds = nil, nil
		addText(c, `{"person":`+ways[1]+`}`)
		addText(c, `{"person":"somebody-else"}`)
		insert(t, s, fmt.Sprint("pred", i), b)

		got, err := s.Holds(t.Context(), "forget", map[string]string{"person": who}, []string{own})
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]int64{}
		for _, f := range got {
			there[f.Table+f.Subject] = f.Before
		}
		if there["dead_letters"] != int64(mine) || there["predictions_920002churn"] != 1 {
			t.Errorf("%q is found in %v, want %d dead letters and a prediction", who, there, mine)
		}
	}
	got, err := s.Forget(t.Context(), "forget", map[string]string{"person": keys[0]}, []string{own})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got {
		if f.Table == "dead_letters" && (f.Before == 0 || f.After != 0) {
			t.Errorf("%q is left in %+v", keys[0], f)
		}
	}
}
