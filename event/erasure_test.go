package event

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestErasedEntitiesAreRefused: whatever is said of an erased entity becomes
// neither row nor dead letter; others, and a delete of it, go on.
func TestErasedEntitiesAreRefused(t *testing.T) {
	key := []byte("a key of the installation")
	spec := func(v any) json.RawMessage {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	entries := []CatalogEntry{
		{Kind: FeatureViewKind, Namespace: "n", Name: "driver", UID: 1, Spec: json.RawMessage(`{"origin":"declared","keys":[{"name":"driver_id","type":"Int64"}],"columns":[{"name":"rating","type":"Float64"}]}`)},
		{Kind: FeatureViewKind, Namespace: "n", Name: "pair", UID: 2, Spec: json.RawMessage(`{"origin":"declared","keys":[{"name":"driver_id","type":"Int64"},{"name":"zone","type":"String"}],"columns":[{"name":"x","type":"Float64"}]}`)},
		{Kind: ModelKind, Namespace: "n", Name: "m", UID: 3, Spec: json.RawMessage(`{"origin":"inferred","signatures":[{"id":1,"versions":["1"],"columns":[{"name":"x","type":"Float64"}]}]}`)},
	}
	erased := append(entries[:len(entries):len(entries)],
		CatalogEntry{Kind: ErasureKind, Namespace: "n", Name: "e", UID: 4, Spec: spec(ErasureSpec{Keys: []string{"driver_id"}, Hash: ErasureHash(key, "n", map[string]string{"driver_id": "1001"})})},
		CatalogEntry{Kind: ErasureKind, Namespace: "n", Name: "f", UID: 5, Spec: spec(ErasureSpec{Keys: []string{"driver_id", "zone"}, Hash: ErasureHash(key, "n", map[string]string{"zone": "north", "driver_id": "7"})})},
		CatalogEntry{Kind: ErasureKind, Namespace: "n", Name: "g", UID: 6, Spec: spec(ErasureSpec{Keys: []string{"person"}, Hash: ErasureHash(key, "n", map[string]string{"person": ` J "x" `})})})
	const at = `"event_time":"2026-01-01T00:00:00Z"`
	for _, c := range []struct {
		kind               Kind
		event              string
		rows, dead, refuse int64 // with the erasures; without, it is one row or one dead letter
	}{
		{Features, `{"view":"driver","key":{"driver_id":1001},` + at + `,"values":{"rating":1}}`, 0, 0, 1},
		{Features, `{"view":"driver","key":{"driver_id":1002},` + at + `,"values":{"rating":1}}`, 1, 0, 0},
		{Features, `{"view":"driver","key":{"driver_id":1001},` + at + `,"delete":true}`, 1, 0, 0},
		{Features, `{"view":"pair","key":{"driver_id":1001,"zone":"south"},` + at + `,"values":{"x":1}}`, 0, 0, 1},
		{Features, `{"view":"pair","key":{"driver_id":7,"zone":"north"},` + at + `,"values":{"x":1}}`, 0, 0, 1},
		{Features, `{"view":"pair","key":{"driver_id":7,"zone":"south"},` + at + `,"values":{"x":1}}`, 1, 0, 0},
		{Features, `{"view":"driver","key":{"driver_id":1001},` + at + `,"values":{"rating":"bad"}}`, 0, 0, 1},
		{Features, `{"view":"driver","key":{"driver_id":1002},` + at + `,"values":{"rating":"bad"}}`, 0, 1, 0},
		{Predictions, `{"model":"m","version":"1","id":"p","key":{"driver_id":1001},` + at + `,"inputs":{"x":1},"output":{"score":0.5}}`, 0, 0, 1},
		{Predictions, `{"model":"m","version":"1","id":"p","key":{"driver_id":"1001"},` + at + `,"inputs":{"x":1},"output":{"score":0.5}}`, 0, 0, 1},
		{Predictions, `{"model":"m","version":"1","id":"p",` + at + `,"inputs":{"x":1},"output":{"score":0.5}}`, 1, 0, 0},
		{Labels, `{"model":"m","key":{"driver_id":1001},` + at + `,"label":1}`, 0, 0, 1},
		{Labels, `{"model":"m","key":{"driver_id":1003},` + at + `,"label":1}`, 1, 0, 0},
		{Features, `{"view":"driver","key":1001,` + at + `,"values":{"rating":"bad"}}`, 0, 0, 1},
		{Features, `{"view":"driver","key":1002,` + at + `,"values":{"rating":"bad"}}`, 0, 1, 0},
		{Features, `{"view":"pair","key":1001,` + at + `,"values":{"x":1}}`, 0, 1, 0}, // of which part?
		{Predictions, `{"model":"m","version":"1","id":"p","key":{"person":" J \u0022x\u0022 "},` + at + `,"inputs":{"x":1},"output":{"score":0.5}}`, 0, 0, 1},
		{Features, ErasedRecord, 0, 0, 1},
	} {
		decode := func(defs []CatalogEntry, key []byte) Counts {
			cat, err := NewCatalog(defs)
			if err != nil {
				t.Fatal(err)
			}
			cfg := DefaultDecoderConfig()
			cfg.ErasureKey = string(key)
			u := &Unit{Topic: "t", Namespace: "n", Kind: c.kind}
			u.Reset(cat)
			NewDecoder(cfg).Decode(u, Record{Offset: 1, Time: 1_767_225_600_000_000, Value: []byte(c.event)})
			u.Counts.Rows = 0
			for _, b := range u.Batches {
				u.Counts.Rows += int64(b.Rows)
			}
			return u.Counts
		}
		if got := decode(erased, key); got.Rows != c.rows || got.DeadLetters != c.dead || got.Tombstoned != c.refuse {
			t.Errorf("%s: %+v", c.event, got)
		}
		if c.event == ErasedRecord {
			continue
		}
		for name, got := range map[string]Counts{"without erasures": decode(entries, key), "with another key": decode(erased, []byte("another"))} {
			if got.Tombstoned != 0 || got.Rows+got.DeadLetters != 1 {
				t.Errorf("%s, %s: %+v", c.event, name, got)
			}
		}
	}
	if a, b := ErasureHash(key, "n", map[string]string{"a": "1", "b": "2"}), ErasureHash(key, "n", map[string]string{"a": "11:b", "": "2"}); a == b {
		t.Error("two entities have one hash")
	}
	if a, b := ErasureHash(key, "n", map[string]string{"a": "1"}), ErasureHash(key, "m", map[string]string{"a": "1"}); a == b || fmt.Sprint(a) == "" {
		t.Error("two namespaces' entities have one hash")
	}
}
