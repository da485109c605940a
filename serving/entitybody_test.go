package serving

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
)

// TestEntityBodies reads bodies in one reader's memory, one after the other: what
// each holds, and what is wrong with it.
func TestEntityBodies(t *testing.T) {
	r := newEntityReader(1 << 20)
	many := strings.Repeat(`{"key":{"a":1}},`, maxEntityRows)
	for _, c := range []struct{ body, want string }{
		{`{"key":{"b":"x","a":1},"data":{"hour":2},"id":"p","version":"2","entity":"e\"","explain":3,"features":true,"timeout":5}`,
			`p/2/e"/3/true/5 {"a":1,"b":"x"} [b="x" a=1] [hour=2]`},
		{` { "rows" : [ {"key":{"a":1}} , {"data":{"x":null},"key":{"a":2}}, {} ] } `, `///0/false/0 {"a":1} [a=1] [] {"a":2} [a=2] [x=null]  [] []`},
		{`{"key":null,"id":null,"rows":null}`, `///0/false/0  [] []`},
		{`{"data":{"hour":2.5}}`, `///0/false/0  [] [hour=2.5]`},
		{`{"rows":[` + strings.TrimSuffix(many, ",") + `]}`, ""},
		{`{"rows":[` + many + `{}]}`, "1025 rows: want 1 to 1024"},
		{`{"rows":[]}`, "0 rows: want 1"},
		{`{"rows":{}}`, "rows is no array"},
		{`{"rows":[1]}`, "must be an object, found a number"},
		{`{"rows":[{"id":1}]}`, `unknown field "id" in rows`},
		{`{"rows":[{"key":[1]}]}`, "key of row 0: "},
		{`{"rows":[{}],"key":{"a":1}}`, "send either rows, or one key and data"},
		{`{}`, "neither key nor data nor rows"},
		{`{"kez":{}}`, `unknown field "kez"`},
		{`{"key":{"a":1},"key":{"a":2}}`, "stands twice"},
		{`{"key":{"a":1},"id":7}`, "id is a JSON number and not a string"},
		{`{"key":{"a":1},"explain":"7"}`, "explain is a JSON string and not an integer"},
		{`{"key":{"a":1},"explain":-1}`, "not negative"},
		{`{"key":{"a":1},"timeout":-1}`, "not negative"},
		{`{"key":{"a":1}`, "ends too early"},
		{`{"key":{"a":1}} x`, "bytes follow"},
		{``, "it is empty"},
		{`{"key":{"a":1},"data":{"a":1e999}}`, "data of row 0"},
	} {
		b, err := r.read([]byte(c.body))
		got := fmt.Sprintf("%s/%s/%s/%d/%v/%d", b.ID, b.Version, b.Entity, b.Explain, b.Features, b.Timeout)
		for _, row := range b.Rows {
			got += " " + row.KeyText
			for _, values := range [][]event.NamedValue{row.Key, row.Data} {
				got += " ["
				for i, v := range values {
					got += strings.Repeat(" ", min(i, 1)) + v.Name + "=" + string(event.AppendValue(nil, v.Value))
				}
				got += "]"
			}
		}
		if err != nil {
			got = err.Error()
		}
		if c.want == "" && (err != nil || len(b.Rows) != maxEntityRows) || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%.200s: got %s, want %s", c.body, got, c.want)
		}
	}
}
