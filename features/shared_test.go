package features

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/stream"
)

// TestSharedComparisonDecides switches the comparison off on the server and
// wants the race of two writers to end wrong: the suite would see it.
func TestSharedComparisonDecides(t *testing.T) {
	v := testenv.StartValkey(t)
	stores := []*SharedStore{openShared(t, v), openShared(t, v)}
	for _, s := range stores {
		s.put = rueidis.NewLuaScript(strings.Replace(putScript, "ARGV[1] > old", "true", 1))
	}
	blind := subject{"blind", func(s *event.Schema, handles int) (out []rowTable) {
		for i := range handles {
			out = append(out, stores[i].table(1, s))
		}
		return out
	}}
	if at, _, _ := blind.race(t); at == nil {
		t.Fatal("without a comparison every key ended right: the race proves nothing")
	}
}

func (h *house) sharedRow(key, value int, at string) string {
	return fmt.Sprintf(`{"view":"v","key":{"k":%d},"event_time":%q,"values":{"x":%d}}`, key, at, value)
}

func sharedHouse(t testing.TB, v *testenv.Valkey) *house {
	t.Helper()
	s := NewSharedStore(SharedConfig{Addresses: []string{v.Addr}, Prefix: "test", Timeout: 5 * time.Second, Linger: time.Nanosecond, Scope: telemetry.Discard()})
	t.Cleanup(s.Close)
	h := openHouseOver(t, time.Time{}, NewOnlineIn(s))
	h.view("v", "0s", fieldsOf("k Int64"), fieldsOf("x Int64"))
	return h
}

// another starts a second process over the same log and store.
func (h *house) another(t testing.TB, v *testenv.Valkey) (other *house, stop func()) {
	t.Helper()
	s := NewSharedStore(SharedConfig{Addresses: []string{v.Addr}, Prefix: "test", Timeout: 5 * time.Second, Linger: time.Nanosecond, Scope: telemetry.Discard()})
	t.Cleanup(s.Close)
	copied := *h
	copied.online = NewOnlineIn(s)
	copied.tail = NewTail(h.tail.cfg, h.client, h.registry, copied.online)
	stop = copied.follow(t.Context())
	testenv.Eventually(t, 20*time.Second, copied.tail.Ready)
	return &copied, stop
}

// TestSharedStoreIsNotTrustedAfterARestart: a server that came back empty is not
// asked, at once and for ever, until it is opened anew. What it would have
// answered is seen by asking it directly.
func TestSharedStoreIsNotTrustedAfterARestart(t *testing.T) {
	v := testenv.StartValkey(t)
	s := NewSharedStore(SharedConfig{Addresses: []string{v.Addr}, Prefix: "test", Timeout: 5 * time.Second, Linger: time.Nanosecond, Scope: telemetry.Discard()})
	defer s.Close()
	_, err := s.open(t.Context())
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.watch(t.Context()) }()
	testenv.Eventually(t, 20*time.Second, s.ready)
	schema := viewSchema(fieldsOf("a Int64"), fieldsOf("x Int64"))
	table := s.table(1, schema)
	row := factRow{keys: []any{int64(1)}, v: Version{EventTime: 1}, values: map[string]any{"x": int64(1)}}
	b := event.NewBatch(schema, "")
	addRow(b, row)
	must(t, table.apply(t.Context(), b, 10))
	rows, err := readAll(t, table, schema, []factRow{row}, 10)
	if err != nil || !rows.Row(0).Found() {
		t.Fatalf("before: %v", err)
	}
	v.Kill()
	v.Start()
	for range 500 {
		if rows, err := readAll(t, table, schema, []factRow{row}, 10); !errors.Is(err, ErrStoreAway) {
			t.Fatalf("a server that lost its rows was asked: found %v, error %v", rows.Row(0).Found(), err)
		}
	}
	if err := <-done; !errors.Is(err, errLost) {
		t.Fatalf("the watch ended with %v", err)
	}
	testenv.Eventually(t, 20*time.Second, func() error { // a connection of before ends with the first question
		c, err := s.connect()
		if err != nil {
			return err
		}
		got, err := rueidis.MGet(c, t.Context(), []string{table.redisKey(appendIntKey(nil, 1))})
		if err == nil && !errIsNil(got) {
			t.Fatalf("asked directly the empty server answers %v: the test proves nothing", got)
		}
		return err
	})
}

func errIsNil(values map[string]rueidis.RedisMessage) bool {
	for _, m := range values {
		return m.IsNil()
	}
	return true
}

// TestSharedStoreKilledUnderLoad kills the server while rows come in and
// requests are made. Meanwhile requests are refused or answered right, and never
// told that there is nothing; afterwards every row is there.
func TestSharedStoreKilledUnderLoad(t *testing.T) {
	v := testenv.StartValkey(t)
	h := sharedHouse(t, v)
	const keys, rounds = 100, 60
	var first []string
	for k := range keys {
		first = append(first, h.sharedRow(k, 0, "2026-01-01T00:00:00Z"))
	}
	h.write(first...)
	p := h.client.Producer(stream.ProducerConfig{})
	defer p.Close()
	loaded := make(chan error, 1)
	go func() {
		for round := 1; round <= rounds; round++ {
			var msgs []stream.Message
			for k := range keys {
				msgs = append(msgs, stream.Message{Key: fmt.Appendf(nil, `{"k":%d}`, k), Value: []byte(h.sharedRow(k, round, fmt.Sprintf("2026-01-01T00:%02d:30Z", round-1)))})
			}
			if err := p.Produce(t.Context(), FeatureTopic(testNamespace), msgs...); err != nil {
				loaded <- err
				return
			}
		}
		loaded <- nil
	}()
	refused := 0
	ask := func() (int, string) {
		status, _, body := h.ask("POST", "/get-online-features", []byte(`{"features":["v:x"],"entities":{"k":[0,99]}}`))
		switch {
		case status == 503 && strings.Contains(body, "FeastError"):
			refused++
		case status != 200 || !strings.Contains(body, `"statuses":["PRESENT","PRESENT"]`):
			t.Fatalf("%d %s", status, body)
		}
		return status, body
	}
	for kills := range 3 {
		for range 20 {
			ask()
		}
		v.Kill()
		testenv.Eventually(t, 20*time.Second, func() error {
			if status, _ := ask(); status != 503 {
				return errors.New("a dead server is answered for")
			}
			return nil
		})
		v.Start()
		testenv.Eventually(t, time.Minute, func() error {
			if status, body := ask(); status != 200 {
				return fmt.Errorf("after kill %d: %s", kills, body)
			}
			return nil
		})
	}
	must(t, <-loaded)
	testenv.Eventually(t, time.Minute, func() error {
		for k := range keys {
			want := fmt.Sprintf(`{"values":[%d],"statuses":["PRESENT"]`, rounds)
			if _, _, body := h.ask("POST", "/get-online-features", fmt.Appendf(nil, `{"features":["v:x"],"entities":{"k":[%d]}}`, k)); !strings.Contains(body, want) {
				return fmt.Errorf("key %d: %s", k, body)
			}
		}
		return nil
	})
	if refused == 0 {
		t.Error("no request met a dead server")
	}
}

// TestSharedStoreGoesOn: a process that starts reads on from what the store is
// recorded to hold, knows rows that others stored under an older schema, and has
// the rows that others wait with; a deleted view's rows go with it.
func TestSharedStoreGoesOn(t *testing.T) {
	v := testenv.StartValkey(t)
	h := sharedHouse(t, v)
	h.write(h.sharedRow(1, 1, "2026-01-01T00:00:00Z"), h.sharedRow(3, 3, "2026-01-01T00:00:00Z"))
	uid := h.online.View(testNamespace, "v").UID
	_, stop := h.another(t, v)
	testenv.Eventually(t, 20*time.Second, func() error {
		if got, err := v.Say(fmt.Sprintf("HEXISTS test:{state} view:%d", uid)); err != nil || got != ":1" {
			return fmt.Errorf("not recorded: %s %w", got, err)
		}
		return nil
	})
	stop()
	key := h.online.View(testNamespace, "v").table.(*sharedTable).redisKey(appendIntKey(nil, 1))
	if got, err := v.Say("DEL " + key); err != nil || got != ":1" { // what a process that fills anew would bring back
		t.Fatal(got, err)
	}
	h.write(h.sharedRow(2, 2, "2100-01-01T00:00:00Z"))
	h.view("v", "0s", fieldsOf("k Int64"), fieldsOf("x Int64", "y String"))
	other, stop := h.another(t, v)
	defer stop()
	var rows Rows
	view := other.online.View(testNamespace, "v")
	must(t, lookUp(t.Context(), view, h.clock(), &rows, appendIntKey(nil, 1), appendIntKey(nil, 2), appendIntKey(nil, 3)))
	if rows.Row(0).Found() {
		t.Error("the second process filled the store anew instead of reading on")
	}
	if n := view.table.(*sharedTable).future.len(); n != 1 || rows.Row(1).Found() {
		t.Errorf("%d rows wait for their time, want 1", n)
	}
	if got := fmt.Sprint(valuesOf(rows.Row(2), view.Schema)); got != "map[x:3 y:<nil>]" {
		t.Errorf("a row of an older schema: %s", got)
	}
	d, _ := h.registry.State().Get(event.FeatureViewKind, testNamespace, "v")
	_, err := h.registry.Apply(t.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: testNamespace, Name: "v", Op: registry.Delete, Expect: d.Version, Who: "test"})
	must(t, err)
	key = view.table.(*sharedTable).redisKey(appendIntKey(nil, 3))
	testenv.Eventually(t, 20*time.Second, func() error {
		if got, err := v.Say("EXISTS " + key); err != nil || got != ":0" {
			return fmt.Errorf("the deleted view's row is still there: %s %w", got, err)
		}
		return nil
	})
}

// TestSharedStoreForgets: a tombstone takes the values out of the server and
// late rows stay hidden; a row goes when its ttl is long over.
func TestSharedStoreForgets(t *testing.T) {
	v := testenv.StartValkey(t)
	s := openShared(t, v)
	schema := viewSchema(fieldsOf("a Int64"), fieldsOf("x String"))
	table := s.table(1, schema)
	secret := strings.Repeat("the canary sings ", 20)
	apply := func(r factRow) {
		t.Helper()
		b := event.NewBatch(schema, "")
		addRow(b, r)
		must(t, table.apply(t.Context(), b, time.Now().UnixMicro()))
	}
	row := factRow{keys: []any{int64(1)}, v: Version{EventTime: 10}, values: map[string]any{"x": secret}}
	apply(row)
	if !s.holds(t, secret) {
		t.Fatal("the planted text is not found before the delete: the search proves nothing")
	}
	apply(factRow{keys: row.keys, v: Version{EventTime: 20}, deleted: true})
	apply(factRow{keys: row.keys, v: Version{EventTime: 15}, values: row.values})
	rows, err := readAll(t, table, schema, []factRow{row}, time.Now().UnixMicro())
	must(t, err)
	if rows.Row(0).Found() || s.holds(t, secret) {
		t.Errorf("deleted: found %v, the text is there: %v", rows.Row(0).Found(), s.holds(t, secret))
	}
	now := time.Now()
	table.SetTTL(time.Hour)
	for k, age := range []time.Duration{0, time.Hour + keepDead} {
		apply(factRow{keys: []any{int64(10 + k)}, v: Version{EventTime: now.Add(-age).UnixMicro()}, values: row.values})
	}
	for k, want := range []time.Duration{time.Hour + keepDead, 0} {
		got, err := v.Say("PTTL " + table.redisKey(appendIntKey(nil, int64(10+k))))
		must(t, err)
		var ms int64
		if _, err := fmt.Sscanf(got, ":%d", &ms); err != nil || want == 0 && ms != -2 || want > 0 && (ms > want.Milliseconds() || ms < want.Milliseconds()-60_000) {
			t.Errorf("row %d expires in %s ms, want %d", k, got, want.Milliseconds())
		}
	}
}

// holds reports whether a text is in any value of the server.
func (s *SharedStore) holds(t *testing.T, text string) bool {
	c, err := s.connect()
	must(t, err)
	page, err := c.Do(t.Context(), c.B().Scan().Cursor(0).Count(1000).Build()).AsScanEntry()
	must(t, err)
	for _, key := range page.Elements {
		if value, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString(); err == nil && strings.Contains(value, text) {
			return true
		}
	}
	return false
}

// TestSharedStoreRefuses: a wrong password, and a server that may drop rows.
func TestSharedStoreRefuses(t *testing.T) {
	for want, c := range map[string]struct {
		args     []string
		password string
	}{
		"WRONGPASS":        {[]string{"--requirepass", "right"}, "wrong"},
		"maxmemory-policy": {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, ""},
		"":                 {[]string{"--maxmemory", "100mb"}, ""},
	} {
		v := testenv.StartValkey(t, c.args...)
		s := NewSharedStore(SharedConfig{Addresses: []string{v.Addr}, Scope: telemetry.Discard(), Password: func() (string, error) { return c.password, nil }})
		_, err := s.open(t.Context())
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !errors.Is(err, ErrStoreAway)) {
			t.Errorf("want %q: %v", want, err)
		}
		s.Close()
	}
}

// openShared opens a store in a server and keeps watching it.
func openShared(t testing.TB, v *testenv.Valkey) *SharedStore {
	t.Helper()
	s := NewSharedStore(SharedConfig{Addresses: []string{v.Addr}, Prefix: "test", Timeout: 20 * time.Second, Scope: telemetry.Discard()})
	_, err := s.open(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	testenv.Eventually(t, 20*time.Second, s.ready)
	return s
}
