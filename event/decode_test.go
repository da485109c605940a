package event

import (
	"fmt"
	"strings"
	"testing"
)

// testClock is the broker's time in tests: 2026-03-01T12:00:00Z.
const testClock int64 = 1772366400_000000

// world is a decoder with definitions that follow its proposals, as ingest
// keeps them.
type world struct {
	t    testing.TB
	d    *Decoder
	defs []CatalogEntry
	cat  *Catalog
	unit *Unit
}

func newWorld(t testing.TB, kind Kind, defs ...CatalogEntry) *world {
	t.Helper()
	w := &world{t: t, d: NewDecoder(DefaultDecoderConfig()), defs: defs}
	w.unit = &Unit{Topic: "kedge.default." + kind.String(), Namespace: "default", Kind: kind, Epoch: 1}
	w.reload()
	return w
}

func (w *world) reload() {
	w.t.Helper()
	c, err := NewCatalog(w.defs)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cat = c
}

// decode runs texts through the unit until no proposal is left.
func (w *world) decode(texts ...string) *Unit {
	w.t.Helper()
	for range 4 {
		w.unit.Reset(w.cat)
		for i, s := range texts {
			w.d.Decode(w.unit, Record{Partition: 3, Offset: int64(i), Time: testClock, Value: []byte(s)})
		}
		if len(w.unit.Proposals) == 0 {
			return w.unit
		}
		w.merge()
	}
	w.t.Fatalf("proposals do not end: %+v", w.unit.Proposals)
	return nil
}

func (w *world) merge() {
	w.t.Helper()
	for _, p := range w.unit.Proposals {
		at := -1
		for i, d := range w.defs {
			if d.Kind == p.Kind && d.Name == p.Name {
				at = i
			}
		}
		if at < 0 {
			at = len(w.defs)
			w.defs = append(w.defs, CatalogEntry{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, UID: uint64(at + 1)})
		}
		_, _, _, spec, err := Merge(w.defs[at].Spec, []Proposal{p})
		if err != nil {
			w.t.Fatal(err)
		}
		w.defs[at].Spec = spec
	}
	w.reload()
}

// feature wraps values into an otherwise good event.
func feature(values string) string {
	return `{"view":"user","key":{"id":7},"event_time":"2026-03-01T11:00:00Z","values":` + values + `}`
}

func dump(b *Batch) string {
	var sb strings.Builder
	for row := range b.Rows {
		for i, f := range b.Schema.Fields {
			if b.Columns[i].Names != nil {
				continue
			}
			if v := b.Columns[i].Value(row); !v.IsNull() && !(v.Type.Elem == String && v.Text == "") {
				fmt.Fprintf(&sb, "%s=%s ", f.ColumnName(), AppendValue(nil, v))
			}
		}
		sb.WriteByte('\n')
	}
	return sb.String()
}

func TestDecodeInfersAndFills(t *testing.T) {
	w := newWorld(t, Features)
	u := w.decode(
		feature(`{"a":null,"b":1,"c":"x","d":[1,2.5,null],"e":{"z":[1]},"f":true}`),
		feature(`{"a":0.5,"b":1.5,"c":null,"d":[],"e":[[1]],"f":false,"g":9007199254740993}`),
		feature(`{"f":"oops"}`),
	)
	if len(u.Batches) != 1 || u.Batches[0].Rows != 2 {
		t.Fatalf("batches: %+v dead %+v", u.Batches, u.Dead)
	}
	t.Log(dump(u.Batches[0]))
	for _, d := range u.Dead {
		t.Log(d.Reason, d.Detail)
	}
	t.Log(string(w.defs[0].Spec))
}

func TestDecodeOtherKinds(t *testing.T) {
	w := newWorld(t, Predictions)
	u := w.decode(`{"inputs":{"a":1,"b":"x"},"model":"m","version":3,"id":"p1","event_time":"2026-03-01T11:00:00+02:00","key":{"u":1,"a":"q"},"output":{"score":0.25,"class":"yes","scores":{"yes":0.25,"no":0.75}},"segments":{"c":"DE"},"latency":{"queue":1.5}}`)
	if len(u.Batches) != 1 {
		t.Fatalf("dead %+v", u.Dead)
	}
	t.Log(dump(u.Batches[0]))
	w = newWorld(t, Labels)
	u = w.decode(`{"model":"m","prediction_id":"p1","event_time":"2026-03-01T11:00:00Z","label":1}`, `{"model":"m","prediction_id":"p1","event_time":"2026-03-01T11:00:00Z","label":null}`)
	if len(u.Batches) != 1 {
		t.Fatalf("dead %+v", u.Dead)
	}
	t.Log(dump(u.Batches[0]))
}
