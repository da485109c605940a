package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start opens a registry on a log and runs it until the test ends.
func start(t testing.TB, log registry.Log) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

func put(name string, expect uint64, spec string) registry.Entry {
	return registry.Entry{Kind: "FeatureView", Namespace: "default", Name: name, Op: registry.Put, Expect: expect, Spec: json.RawMessage(spec), Who: "ann", Why: "because"}
}

func TestLifeOfADefinition(t *testing.T) {
	log := memlog.New(nil)
	r := start(t, log)
	ctx := t.Context()

	if _, err := log.Append(ctx, []byte("not an entry")); err != nil { // shifts UIDs from 1 to 2
		t.Fatal(err)
	}
	first, err := r.Apply(ctx, put("user", 0, `{ "a" : "<b>" }`))
	if err != nil {
		t.Fatal(err)
	}
	want := registry.Definition{Kind: "FeatureView", Namespace: "default", Name: "user", UID: 2, Version: 1,
		Spec: json.RawMessage(`{"a":"<b>"}`), Offset: 1, Time: first.Time, Who: "ann", Why: "because"}
	if !reflect.DeepEqual(first, want) {
		t.Fatalf("created %+v, want %+v", first, want)
	}
	before := r.State()

	_, err = r.Apply(ctx, put("user", 0, `{}`))
	var stale *registry.StaleError
	if !errors.Is(err, registry.ErrStale) || !errors.As(err, &stale) || stale.Current != 1 {
		t.Fatalf("second create: %v, want stale with current version 1", err)
	}
	second, err := r.Apply(ctx, put("user", 1, `{"a":2}`))
	if err != nil || second.Version != 2 || second.UID != 2 {
		t.Fatalf("replace: %+v, %v", second, err)
	}
	gone, err := r.Apply(ctx, registry.Entry{Kind: "FeatureView", Namespace: "default", Name: "user", Op: registry.Delete, Expect: 2})
	if err != nil || !gone.Deleted || gone.Spec != nil || gone.Version != 3 {
		t.Fatalf("delete: %+v, %v", gone, err)
	}
	if _, ok := r.State().ByUID(2); ok {
		t.Error("the deleted definition is found by its UID")
	}
	again, err := r.Apply(ctx, put("user", 0, `{"a":3}`))
	if err != nil || again.UID != uint64(again.Offset)+1 || again.UID == 2 || again.Version != 4 {
		t.Fatalf("create anew: %+v, %v: want a new UID and version 4", again, err)
	}

	if d, ok := before.Get("FeatureView", "default", "user"); !ok || string(d.Spec) != `{"a":"<b>"}` {
		t.Errorf("an old state now says %+v", d)
	}
	if h := r.History("FeatureView", "default", "user"); len(h) != 4 || !h[2].Deleted || string(h[1].Spec) != `{"a":2}` {
		t.Errorf("history: %+v", h)
	}
	if got := r.Stats(); got.Malformed != 1 || got.Stale != 1 || got.Accepted != 4 {
		t.Errorf("stats: %+v", got)
	}
	if d, ok := r.State().ByUID(again.UID); !ok || d.Version != 4 {
		t.Errorf("by UID: %+v %v", d, ok)
	}
}

// lossyLog stores records but loses some answers, as a broker does whose
// connection breaks after the write.
type lossyLog struct {
	*memlog.Log
	mu     sync.Mutex
	random *rand.Rand
}

var errLost = errors.New("connection lost")

func (l *lossyLog) Append(ctx context.Context, v []byte) (int64, error) {
	l.mu.Lock()
	fate := l.random.IntN(10)
	l.mu.Unlock()
	if fate == 0 {
		return 0, errLost
	}
	o, err := l.Log.Append(ctx, v)
	if fate == 1 && err == nil {
		return 0, errLost
	}
	return o, err
}

type record struct {
	offset, time int64
	entry        registry.Entry
	valid        bool
}

// readAll returns the log's records, decoded by a second decoder.
func readAll(t testing.TB, log *memlog.Log) []record {
	t.Helper()
	end, _ := log.End(t.Context())
	var out []record
	done := errors.New("done")
	if end == 0 {
		return nil
	}
	err := log.Tail(t.Context(), 0, func(o, time int64, v []byte) error {
		var w struct {
			V                                       int
			ID, Kind, Namespace, Name, Op, Who, Why string
			Expect                                  uint64
			Spec                                    json.RawMessage
		}
		valid := json.Unmarshal(v, &w) == nil && w.V == 1
		out = append(out, record{o, time, registry.Entry{ID: w.ID, Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, Op: registry.Op(w.Op), Expect: w.Expect, Spec: w.Spec, Who: w.Who, Why: w.Why}, valid})
		if o == end-1 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	return out
}

type subject struct{ kind, ns, name string }

// bruteFold is the fold written for obviousness: whole specs, whole histories,
// one pass over the log.
func bruteFold(records []record, upTo int64) (histories map[subject][]registry.Definition, accepted map[string]registry.Definition, seen map[string]bool) {
	histories, accepted, seen = map[subject][]registry.Definition{}, map[string]registry.Definition{}, map[string]bool{}
	for _, r := range records {
		if r.offset > upTo || !r.valid || seen[r.entry.ID] {
			continue
		}
		e := r.entry
		seen[e.ID] = true
		k := subject{e.Kind, e.Namespace, e.Name}
		h := histories[k]
		current, uid := uint64(0), uint64(r.offset)+1
		if len(h) > 0 && !h[len(h)-1].Deleted {
			current, uid = h[len(h)-1].Version, h[len(h)-1].UID
		}
		if e.Expect != current {
			continue
		}
		d := registry.Definition{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, UID: uid, Version: uint64(len(h) + 1), Spec: e.Spec,
			Offset: r.offset, Time: r.time, Who: e.Who, Why: e.Why, Deleted: e.Op == registry.Delete}
		histories[k] = append(h, d)
		accepted[e.ID] = d
	}
	return histories, accepted, seen
}

func bruteList(histories map[subject][]registry.Definition) []registry.Definition {
	var out []registry.Definition
	for _, h := range histories {
		if d := h[len(h)-1]; !d.Deleted {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b registry.Definition) int {
		return strings.Compare(a.Kind+"\x00"+a.Namespace+"\x00"+a.Name, b.Kind+"\x00"+b.Namespace+"\x00"+b.Name)
	})
	return out
}

// randomEntry makes a wish that is sometimes right about the current version.
func randomEntry(random *rand.Rand, r *registry.Registry, id string) registry.Entry {
	e := registry.Entry{ID: id, Kind: []string{"FeatureView", "Model"}[random.IntN(2)], Namespace: []string{"a", "b"}[random.IntN(2)],
		Name: fmt.Sprint("n", random.IntN(2)*random.IntN(2)), Op: registry.Put, Who: fmt.Sprint("w", random.IntN(3)), Why: fmt.Sprint("y", random.IntN(3))}
	if d, ok := r.State().Get(e.Kind, e.Namespace, e.Name); ok && random.IntN(8) > 0 {
		e.Expect = d.Version
	}
	if random.IntN(12) == 0 && e.Expect > 0 {
		e.Op = registry.Delete
		return e
	}
	spec := fmt.Sprintf(`{"columns":[%s"z"],"n":%d}`, strings.Repeat(`"column",`, random.IntN(30)), random.IntN(1000))
	e.Spec = json.RawMessage(spec)
	return e
}

// TestAgainstBruteFold lets appliers race over a log that loses answers, on two
// registries, and compares everything with the brute-force fold.
func TestAgainstBruteFold(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { raceAppliers(t, seed) })
	}
}

type answer struct {
	d   registry.Definition
	err error
}

func raceAppliers(t *testing.T, seed uint64) {
	log := memlog.New(nil)
	regs := []*registry.Registry{start(t, log), start(t, log)}
	lossy := make([]*registry.Registry, 2)
	for i := range lossy {
		lossy[i] = start(t, &lossyLog{Log: log, random: rand.New(rand.NewPCG(seed, uint64(i)))})
	}
	var mu sync.Mutex
	answers := map[string]answer{}
	var g errgroup.Group
	for w := range 6 {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(seed, uint64(100+w)))
			for i := range 60 {
				r := append(regs, lossy...)[random.IntN(4)]
				e := randomEntry(random, r, fmt.Sprint(w, "-", i))
				d, err := r.Apply(t.Context(), e)
				for errors.Is(err, errLost) {
					d, err = append(regs, lossy...)[random.IntN(4)].Apply(t.Context(), e)
				}
				mu.Lock()
				answers[e.ID] = answer{d, err}
				mu.Unlock()
			}
			if _, err := log.Append(t.Context(), []byte("{}")); err != nil {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	compareWithBrute(t, log, append(regs, lossy...), answers)
}

func compareWithBrute(t *testing.T, log *memlog.Log, regs []*registry.Registry, answers map[string]answer) {
	records := readAll(t, log)
	end := int64(len(records))
	histories, accepted, seen := bruteFold(records, end)
	for id, a := range answers {
		want, ok := accepted[id]
		switch {
		case !seen[id]:
			t.Fatalf("entry %s was answered with %v but is not in the log", id, a.err)
		case ok && (a.err != nil || !reflect.DeepEqual(a.d, want)):
			t.Fatalf("entry %s: answered %+v, %v; the log says %+v", id, a.d, a.err, want)
		case !ok && !errors.Is(a.err, registry.ErrStale):
			t.Fatalf("entry %s: answered %+v, %v; the log says stale", id, a.d, a.err)
		}
	}
	t.Logf("%d records, %d accepted", end, len(accepted))
	for _, r := range regs {
		if err := r.Wait(t.Context(), end-1); err != nil {
			t.Fatal(err)
		}
		for k, want := range histories {
			if got := r.History(k.kind, k.ns, k.name); !reflect.DeepEqual(got, want) {
				t.Fatalf("history of %v:\n got %+v\nwant %+v", k, got, want)
			}
		}
		for offset := int64(-1); offset < end; offset++ {
			compareAt(t, r, records, offset)
		}
	}
}

func compareAt(t *testing.T, r *registry.Registry, records []record, offset int64) {
	t.Helper()
	s, err := r.At(t.Context(), offset)
	if err != nil {
		t.Fatal(err)
	}
	histories, accepted, _ := bruteFold(records, offset)
	want := bruteList(histories)
	if got := s.List("", ""); !reflect.DeepEqual(got, want) {
		t.Fatalf("state at %d:\n got %+v\nwant %+v", offset, got, want)
	}
	for _, d := range want {
		got, ok := s.Get(d.Kind, d.Namespace, d.Name)
		byUID, okUID := s.ByUID(d.UID)
		if !ok || !okUID || !reflect.DeepEqual(got, d) || !reflect.DeepEqual(byUID, d) {
			t.Fatalf("get at %d: %+v (%v), by UID %+v (%v), want %+v", offset, got, ok, byUID, okUID, d)
		}
	}
	changed := int64(-1)
	for _, d := range accepted {
		if d.Kind == "Model" {
			changed = max(changed, d.Offset)
		}
	}
	if got := s.Changed("Model"); got != changed {
		t.Fatalf("changed at %d: %d, want %d", offset, got, changed)
	}
}

func TestReusedIDIsRefused(t *testing.T) {
	r := start(t, memlog.New(nil))
	e := put("a", 0, `1`)
	e.ID = "same"
	if _, err := r.Apply(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	e.Name = "b"
	if _, err := r.Apply(t.Context(), e); !errors.Is(err, registry.ErrReusedID) {
		t.Fatalf("got %v", err)
	}
}

func TestOlderBuildRefuses(t *testing.T) {
	log := memlog.New(nil)
	if _, err := log.Append(t.Context(), []byte(`{"v":2,"shape":"unknown"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Open(t.Context(), log); !errors.Is(err, registry.ErrNewerFormat) || !strings.Contains(err.Error(), "upgrade") {
		t.Fatalf("got %v", err)
	}
}

func TestInvalidEntries(t *testing.T) {
	r := start(t, memlog.New(nil))
	for want, e := range map[string]registry.Entry{
		"no name":                  put("", 0, `1`),
		"spec is not JSON":         put("a", 0, `{`),
		"unknown operation":        {Kind: "k", Name: "n", Op: "patch"},
		"names the version":        {Kind: "k", Name: "n", Op: registry.Delete},
		"carries no spec":          {Kind: "k", Name: "n", Op: registry.Delete, Expect: 1, Spec: json.RawMessage("1")},
		"name has 300 bytes":       put(strings.Repeat("x", 300), 0, `1`),
		"name is not valid text":   put("a\xff", 0, `1`),
		"keep bulk data outside":   put("a", 0, `"`+strings.Repeat("x", registry.MaxEntry)+`"`),
		"reason has 3000 bytes":    {Kind: "k", Name: "n", Op: registry.Put, Spec: json.RawMessage("1"), Why: strings.Repeat("x", 3000)},
		"namespace is not valid t": {Kind: "k", Namespace: "a\x00", Name: "n", Op: registry.Put, Spec: json.RawMessage("1")},
	} {
		if _, err := r.Apply(t.Context(), e); !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if s := r.Stats(); s.Entries != 0 {
		t.Errorf("an invalid entry was stored: %+v", s)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	r := start(t, memlog.New(nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.At(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestWideHistoryStaysSmall(t *testing.T) {
	if testing.Short() {
		testenv.Skip(t, testenv.Short, "writes a long history")
	}
	r := start(t, memlog.New(nil))
	columns, whole := "", 0
	var specs []string
	for i := range 300 {
		columns += fmt.Sprintf(`,{"name":"column_%d","type":"Float64"}`, i)
		spec := `{"columns":[{"name":"first"}` + columns + `],"ttl":"1h"}`
		whole += len(spec)
		specs = append(specs, spec)
		if _, err := r.Apply(t.Context(), put("wide", uint64(i), spec)); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range r.History("FeatureView", "default", "wide") {
		if string(d.Spec) != specs[i] {
			t.Fatalf("version %d reads back as %s", i+1, d.Spec)
		}
	}
	held := registry.HeldBytes(r)
	t.Logf("300 versions: %d bytes of specs, %d held", whole, held)
	if held*8 > whole {
		t.Errorf("holds %d bytes for %d bytes of specs, want at most an eighth", held, whole)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range []registry.Entry{put("a", 0, `{"x":[1,2]}`), {ID: "i", Kind: "k", Name: "n", Op: registry.Delete, Expect: 3}} {
		e.ID = "seed"
		b, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"v":9}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := registry.DecodeEntry(b)
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) && !errors.Is(err, registry.ErrNewerFormat) {
				t.Fatalf("unclassified error %v", err)
			}
			return
		}
		out, err := e.Encode()
		if err != nil {
			t.Skip() // grew past the cap by escaping
		}
		again, err := registry.DecodeEntry(out)
		if err != nil {
			t.Fatalf("own encoding %q is refused: %v", out, err)
		}
		second, err := again.Encode()
		if err != nil || string(second) != string(out) {
			t.Fatalf("encoding is not stable: %q then %q, %v", out, second, err)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	r := start(b, memlog.New(nil))
	for i := range 1000 {
		if _, err := r.Apply(b.Context(), put(fmt.Sprint("v", i), 0, `{"columns":["a"]}`)); err != nil {
			b.Fatal(err)
		}
	}
	s := r.State()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Get("FeatureView", "default", "v500"); !ok {
			b.Fatal("missing")
		}
	}
}

// repeatingLog starts every tail a little earlier than asked.
type repeatingLog struct{ *memlog.Log }

func (l repeatingLog) Tail(ctx context.Context, from int64, fn func(int64, int64, []byte) error) error {
	return l.Log.Tail(ctx, max(0, from-3), fn)
}

func TestRepeatedRecordsFoldOnce(t *testing.T) {
	log := memlog.New(nil)
	w := start(t, log)
	for i := range 5 {
		if _, err := w.Apply(t.Context(), put("a", uint64(i), `1`)); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, repeatingLog{log})
	if _, err := w.Apply(t.Context(), put("a", 5, `2`)); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.Entries != 6 || s.Repeated != 0 {
		t.Errorf("stats %+v, want 6 entries, none repeated", s)
	}
}
