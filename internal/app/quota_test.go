package app

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// TestRequestQuotas: a second's worth at once, then as many as time brings;
// an edit holds at once; namespaces without a quota are not held.
func TestRequestQuotas(t *testing.T) {
	reg, err := registry.Open(t.Context(), memlog.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = reg.Run(t.Context()) }() // ends with the test
	define := func(name string, perSecond int) {
		d, _ := reg.State().Get(event.NamespaceKind, name, name)
		spec := json.RawMessage(fmt.Sprintf(`{"quotas":{"requests_per_second":%d}}`, perSecond))
		if _, err := reg.Apply(t.Context(), registry.Entry{Kind: event.NamespaceKind, Namespace: name, Name: name, Op: registry.Put, Expect: d.Version, Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	define("growth", 3)
	define("free", 0)
	now, refused := time.Unix(1_800_000_000, 0), map[string]int{}
	q := &requestQuotas{registry: reg, now: func() time.Time { return now }, of: map[string]*requestQuota{}, over: func(ns string) { refused[ns]++ }}
	allowed := func(namespace string, calls int) (n int) {
		for range calls {
			if q.allow(auth.Caller{Namespace: namespace}) {
				n++
			}
		}
		return n
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d calls were let through, want %d", what, got, want)
		}
	}
	want("at once", allowed("growth", 10), 3)
	want("no quota", allowed("free", 100), 100)
	want("no definition", allowed("other", 100), 100)
	now = now.Add(time.Second / 3)
	want("a third of a second later", allowed("growth", 10), 1)
	now = now.Add(time.Hour)
	want("an hour later", allowed("growth", 10), 3)
	define("growth", 5)
	want("edited", allowed("growth", 10), 5)
	define("growth", 0)
	want("without a bound again", allowed("growth", 10), 10)
	if len(refused) != 1 || refused["growth"] != 7+9+7+5 {
		t.Errorf("counted as refused: %v", refused)
	}
}
