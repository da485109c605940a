package event

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// cardVersions is a view whose third version is two conversions from its first.
const cardVersions = `{"origin":"declared","version":3,"keys":[{"name":"card","type":"Int64"}],
"columns":[{"name":"cents","type":"Int64"},{"name":"where","type":"String"},{"name":"big","type":"Bool"},{"name":"n","type":"Float64"},{"name":"fresh","type":"String"}],
"former":[
 {"version":1,"columns":[{"name":"amount","type":"Float64"},{"name":"country","type":"String"},{"name":"n","type":"Int64"}],
  "convert":{"cents":"int(round(amount * 100))","where":"lower(country ?? 'xx')"}},
 {"version":2,"columns":[{"name":"cents","type":"Int64"},{"name":"where","type":"String"},{"name":"n","type":"Int64"}],
  "convert":{"big":"cents > 10000"}}]}`

func versionUnit(t testing.TB, spec string) (*Unit, *Catalog) {
	t.Helper()
	c, err := NewCatalog([]CatalogEntry{{Kind: FeatureViewKind, Namespace: "ns", Name: "card", UID: 7, Spec: json.RawMessage(spec)}})
	if err != nil {
		t.Fatal(err)
	}
	u := &Unit{Topic: "kedge.ns.features", Namespace: "ns", Kind: Features}
	u.Reset(c)
	return u, c
}

// TestOlderVersionsReadAsTheNewest holds converted rows against the conversion
// written by hand in Go, for events of every version, whole, in part and with the
// version first, last or unsaid.
func TestOlderVersionsReadAsTheNewest(t *testing.T) {
	u, c := versionUnit(t, cardVersions)
	r := rand.New(rand.NewPCG(4, 4))
	var want []string
	d := NewDecoder(DefaultDecoderConfig())
	for i := range 500 {
		amount, country, n := math.Round(r.Float64()*20000)/100, []string{"IT", "FR"}[r.IntN(2)], r.IntN(9)
		cents := int(math.Round(amount * 100))
		version := 1 + r.IntN(3)
		var values, fresh, number string
		fresh, number = "null", fmt.Sprintf("%d.0", n)
		where := strings.ToLower(country)
		switch version {
		case 1:
			text := fmt.Sprintf(`"country":%q,`, country)
			if r.IntN(4) == 0 {
				text, where = "", "xx"
			}
			values = fmt.Sprintf(`{%s"n":%d,"amount":%v}`, text, n, amount)
		case 2:
			values = fmt.Sprintf(`{"cents":%d,"where":%q,"n":%d}`, cents, where, n)
		case 3:
			fresh = `"f"`
			values = fmt.Sprintf(`{"cents":%d,"where":%q,"n":%d,"big":%v,"fresh":"f"}`, cents, where, n, cents > 10000)
		}
		said := []string{fmt.Sprintf(`"version":%d,`, version), fmt.Sprintf(`"version":"%d",`, version)}[r.IntN(2)]
		last := ""
		if r.IntN(2) == 0 {
			said, last = "", ","+strings.TrimSuffix(said, ",")
		}
		if version == 1 && r.IntN(2) == 0 {
			said, last = "", "" // a producer that knows of no versions
		}
		d.Decode(u, Record{Offset: int64(i), Time: 1_800_000_000_000_000, Value: fmt.Appendf(nil, `{%s"view":"card","values":%s,"key":{"card":%d},"event_time":"2026-01-01T00:00:00Z"%s}`, said, values, i, last)})
		want = append(want, fmt.Sprintf(`{"card":%d} {"cents":%d,"where":%q,"big":%v,"n":%s,"fresh":%s}`, i, cents, where, cents > 10000, number, fresh))
	}
	if len(u.Dead) > 0 {
		t.Fatalf("dead letter: %s %s: %s", u.Dead[0].Reason, u.Dead[0].Detail, u.Dead[0].Value)
	}
	if len(u.Batches) != 1 || u.Batches[0].Schema != c.View("ns", "card") || u.Batches[0].Rows != 500 || ViewUID(u.Batches[0].Schema.TableID) != 7 {
		t.Fatalf("batches: %+v", u.Batches)
	}
	i := 0
	for row := range u.Batches[0].FeatureRows() {
		got := string(appendNamed(nil, row.Key, "")) + " " + string(appendNamed(nil, row.Values, ""))
		if got != want[i] || row.Offset != int64(i) {
			t.Fatalf("row %d: got %s, want %s", i, got, want[i])
		}
		i++
	}
	if u.Counts.Unknown != 0 || u.Counts.Rows != 500 {
		t.Errorf("counts: %+v", u.Counts)
	}
}

// TestVersionsRefused are events of versions that do not fit, each with its
// reason; the rows around them stay whole.
func TestVersionsRefused(t *testing.T) {
	for _, c := range []struct{ values, version, reason, says string }{
		{`{"amount":1}`, `4`, "undefined", "newest is 3"},
		{`{"amount":1}`, `"x"`, "undefined", "no version"},
		{`{"amount":1}`, `1,"version":1`, "malformed", "twice"},
		{`{"amount":"dear"}`, `1`, "type", "number"},
		{`{"country":"IT"}`, `1`, "conversion", "cents"}, // amount is null
	} {
		u, _ := versionUnit(t, cardVersions)
		d := NewDecoder(DefaultDecoderConfig())
		good := []byte(`{"view":"card","key":{"card":1},"event_time":"2026-01-01T00:00:00Z","values":{"amount":2}}`)
		d.Decode(u, Record{Time: 1_800_000_000_000_000, Value: good})
		d.Decode(u, Record{Offset: 1, Time: 1_800_000_000_000_000, Value: fmt.Appendf(nil, `{"view":"card","key":{"card":2},"event_time":"2026-01-01T00:00:00Z","values":%s,"version":%s}`, c.values, c.version)})
		d.Decode(u, Record{Offset: 2, Time: 1_800_000_000_000_000, Value: good})
		if len(u.Dead) != 1 || string(u.Dead[0].Reason) != c.reason || !strings.Contains(u.Dead[0].Detail, c.says) {
			t.Errorf("%s version %s: %+v", c.values, c.version, u.Dead)
		}
		b := u.Batches[0]
		for i := range b.Columns {
			if b.Columns[i].Len() != 2 || b.Rows != 2 {
				t.Fatalf("%s: column %d has %d rows of %d", c.version, i, b.Columns[i].Len(), b.Rows)
			}
		}
	}
}

// TestDeletedEntityOfAnOlderVersion: a tombstone has no values to convert.
func TestDeletedEntityOfAnOlderVersion(t *testing.T) {
	u, _ := versionUnit(t, cardVersions)
	NewDecoder(DefaultDecoderConfig()).Decode(u, Record{Time: 1_800_000_000_000_000, Value: []byte(`{"view":"card","key":{"card":1},"event_time":"2026-01-01T00:00:00Z","delete":true}`)})
	if len(u.Dead) > 0 || u.Counts.Rows != 1 {
		t.Fatalf("%+v", u.Dead)
	}
	for row := range u.Batches[0].FeatureRows() {
		if !row.Delete || !row.Values[0].Value.IsNull() {
			t.Errorf("%+v", row)
		}
	}
}

// TestVersionEdits says of each edit what it does, and of refused ones what to
// do instead.
func TestVersionEdits(t *testing.T) {
	one := `{"origin":"declared","keys":[{"name":"card","type":"Int64"}],"columns":[{"name":"amount","type":"Float64"}]}`
	two := `{"origin":"declared","version":2,"keys":[{"name":"card","type":"Int64"}],"columns":[{"name":"cents","type":"Int64"}],"former":[{"version":1,"columns":[{"name":"amount","type":"Float64"}],"convert":{"cents":"int(amount*100)"}}]}`
	for _, c := range []struct{ was, now, effect, says string }{
		{one, two, "version", "version"},
		{two, one, "refused", "later version"},
		{one, strings.Replace(two, `"former":[{"version":1,"columns":[{"name":"amount","type":"Float64"}],"convert":{"cents":"int(amount*100)"}}]`, `"former":[]`, 1), "refused", "list it under former"},
		{one, strings.Replace(two, `"columns":[{"name":"amount","type":"Float64"}]`, `"columns":[{"name":"amount","type":"Int64"}]`, 1), "refused", "live now"},
		{two, strings.Replace(two, "amount*100", "amount*1000", 1), "refused", "converted by it already"},
		{two, strings.Replace(two, `"former":[{"version":1,"columns":[{"name":"amount","type":"Float64"}],"convert":{"cents":"int(amount*100)"}}]`, `"former":[]`, 1), "retire", "former.1"},
	} {
		edits, err := CompareSpecs(FeatureViewKind, json.RawMessage(c.was), json.RawMessage(c.now))
		if err != nil || len(edits) == 0 || string(edits[0].Effect) != c.effect || !strings.Contains(edits[0].Path+edits[0].Remedy, c.says) {
			t.Errorf("%s: %+v (%v)", c.now, edits, err)
		}
	}
	for spec, says := range map[string]string{
		strings.Replace(two, "amount*100", "price*100", 1):                                                                                             `no column "price"`,
		strings.Replace(two, `{"cents":"int(amount*100)"}`, `{"x":"1"}`, 1):                                                                            "no such column",
		strings.Replace(two, "int(amount*100)", "int(amount*", 1):                                                                                      "expression",
		strings.Replace(strings.Replace(two, `"cents","type":"Int64"`, `"amount","type":"Int64"`, 1), `,"convert":{"cents":"int(amount*100)"}`, "", 1): "say how",
		strings.Replace(two, `"version":2`, `"version":1`, 1):                                                                                          "below the view's own",
	} {
		if _, err := ParseView([]byte(spec)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", spec, err, says)
		}
	}
}
