package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
)

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// office is a gate over keys in a registry of their own.
type office struct {
	*Gate
	keys  *Keys
	log   *memlog.Log
	clock *clock
	told  []Decision
	ran   []string // what reached the route
}

func newOffice(t testing.TB, change func(*GateConfig)) *office {
	t.Helper()
	o := &office{log: memlog.New(nil), clock: &clock{time.Now().UTC().Truncate(time.Second)}}
	o.keys = NewKeys(openRegistry(t, o.log), o.clock.now)
	cfg := GateConfig{Namespace: "default", Keys: o.keys, Now: o.clock.now, Decided: func(d Decision) { o.told = append(o.told, d) }}
	if change != nil {
		change(&cfg)
	}
	o.Gate = NewGate(cfg)
	return o
}

func openRegistry(t testing.TB, log registry.Log) *registry.Registry {
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
			t.Error(err)
		}
	})
	return r
}

func (o *office) key(t testing.TB, grants ...string) (secret string, k Key) {
	t.Helper()
	var gs []Grant
	for _, s := range grants {
		g, err := ParseGrant(s)
		if err != nil {
			t.Fatal(err)
		}
		gs = append(gs, g)
	}
	secret, k, err := o.keys.Create(t.Context(), Local("default"), strings.Join(grants, " "), gs, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return secret, k
}

// ask sends a request for a route that takes need.
func (o *office) ask(need Permission, path string, headers ...string) *httptest.ResponseRecorder {
	h := o.Middleware(o.Guard(need, "GET /x", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := From(r.Context())
		o.ran = append(o.ran, c.Subject+"@"+c.Namespace+r.URL.Path)
	})))
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestCredentials: the forms of a key, and the three ways to name a namespace.
func TestCredentials(t *testing.T) {
	o := newOffice(t, nil)
	secret, _ := o.key(t, "team:viewer", "side:viewer")
	bearer := "Bearer " + secret
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		ran        string
	}{
		{"none", "/x", nil, 401, ""},
		{"bearer", "/x", []string{"Authorization", bearer}, 200, "@team/x"},
		{"bearer, in small letters", "/x", []string{"Authorization", "bearer  " + secret}, 200, "@team/x"},
		{"password", "/x", []string{"Authorization", basic("anybody", secret)}, 200, "@team/x"},
		{"user without password", "/x", []string{"Authorization", basic(secret, "")}, 200, "@team/x"},
		{"namespace by header", "/x", []string{"Authorization", bearer, NamespaceHeader, "side"}, 200, "@side/x"},
		{"by MLflow's header", "/x", []string{"Authorization", bearer, WorkspaceHeader, "side"}, 200, "@side/x"},
		{"by path", "/ns/side/x", []string{"Authorization", bearer}, 200, "@side/x"},
		{"twice the same", "/ns/side/x", []string{"Authorization", bearer, NamespaceHeader, "side"}, 200, "@side/x"},
		{"two that differ", "/ns/side/x", []string{"Authorization", bearer, NamespaceHeader, "team"}, 400, ""},
		{"a strange one", "/x", []string{"Authorization", bearer, NamespaceHeader, "../team"}, 400, ""},
		{"one of others", "/x", []string{"Authorization", bearer, NamespaceHeader, "other"}, 403, ""},
		{"one of others by path", "/ns/other/x", []string{"Authorization", bearer}, 403, ""},
		{"all", "/x", []string{"Authorization", bearer, NamespaceHeader, "*"}, 400, ""},
		{"a secret that is wrong in its last digit", "/x", []string{"Authorization", bearer[:len(bearer)-1] + "g"}, 401, ""},
		{"an id without its secret", "/x", []string{"Authorization", "Bearer " + secret[:len(keyPrefix)+keyID]}, 401, ""},
		{"no scheme", "/x", []string{"Authorization", secret}, 401, ""},
		{"another scheme", "/x", []string{"Authorization", "Digest " + secret}, 401, ""},
		{"broken base64", "/x", []string{"Authorization", "Basic ***"}, 401, ""},
	} {
		o.ran = nil
		w := o.ask(QueryRead, c.path, c.headers...)
		if w.Code != c.status || c.ran != "" && (len(o.ran) != 1 || !strings.HasSuffix(o.ran[0], c.ran)) || c.ran == "" && len(o.ran) > 0 {
			t.Errorf("%s: %d %s; reached %q, want %d %q", c.name, w.Code, w.Body, o.ran, c.status, c.ran)
		}
		if strings.Contains(w.Body.String(), secret[len(keyPrefix)+keyID:]) {
			t.Errorf("%s: the answer has the secret: %s", c.name, w.Body)
		}
		if w.Code == 401 && w.Header().Get("Www-Authenticate") == "" {
			t.Errorf("%s: a 401 without a challenge", c.name)
		}
	}
}

// TestLifeOfAKey: made, listed, used, rotated, expired, revoked; and what is
// kept of it.
func TestLifeOfAKey(t *testing.T) {
	o := newOffice(t, nil)
	ctx, boss := t.Context(), Local("default")
	secret, k, err := o.keys.Create(ctx, boss, "rides", []Grant{{"team", []Role{Producer}}}, o.clock.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	good := func(s string) bool { _, err := o.keys.Identify(s); return err == nil }
	if !good(secret) || len(secret) != keyLength {
		t.Fatalf("a fresh key of %d bytes is not accepted", len(secret))
	}
	enough, read := errors.New("one is enough"), 0
	err = o.log.Tail(ctx, 0, func(_, _ int64, v []byte) error {
		read++
		if strings.Contains(string(v), secret[len(keyPrefix)+keyID+1:]) {
			t.Errorf("the log has the secret: %s", v)
		}
		return enough
	})
	if !errors.Is(err, enough) || read != 1 {
		t.Errorf("%d entries of the log were read: %v", read, err)
	}
	if list := o.keys.List(boss); len(list) != 1 || list[0].LastUsed != o.clock.Time || list[0].Expires != o.clock.Add(time.Hour) || list[0].CreatedBy != "local" {
		t.Errorf("list: %+v", list)
	}
	team := (&Identity{Subject: "t", Grants: []Grant{{"other", []Role{Admin}}}}).In("other")
	if list := o.keys.List(*team); len(list) != 0 {
		t.Errorf("somebody else's keys are listed: %+v", list)
	}
	if err := o.keys.Revoke(ctx, *team, k.ID); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("somebody else's key: %v", err)
	}
	for _, subject := range []string{"rides\nkey:boss", "a\x00", "\x1b[2J", "a\x7f", "a\u0085", "a\xff"} {
		if _, _, err := o.keys.Create(ctx, boss, subject, []Grant{{"team", []Role{Producer}}}, time.Time{}); !errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "control characters or is not UTF-8") {
			t.Errorf("a key for %q: %v", subject, err)
		}
	}
	if _, _, err := o.keys.Create(ctx, *team, "x", []Grant{{AllNamespaces, []Role{Viewer}}}, time.Time{}); !errors.Is(err, ErrGrant) {
		t.Errorf("more than one's own: %v", err)
	}
	next, fresh, err := o.keys.Rotate(ctx, boss, k.ID, 10*time.Minute)
	if err != nil || !good(secret) || !good(next) || fresh.Rotates != k.ID || fresh.Expires != o.clock.Add(time.Hour) {
		t.Errorf("rotated: %+v, %v", fresh, err)
	}
	o.clock.Time = o.clock.Add(11 * time.Minute)
	if good(secret) || !good(next) {
		t.Error("after the overlap the old key ends and the new one works")
	}
	o.clock.Time = o.clock.Add(time.Hour)
	if good(next) {
		t.Error("an expired key works")
	}
	last, lastKey := o.key(t, "team:viewer")
	if err := o.keys.Revoke(ctx, boss, lastKey.ID); err != nil || good(last) {
		t.Errorf("a revoked key works (%v)", err)
	}
	if err := o.keys.Revoke(ctx, boss, lastKey.ID); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("revoked twice: %v", err)
	}
}

// TestRevocationReachesOtherProcesses: another fold of the same log follows.
func TestRevocationReachesOtherProcesses(t *testing.T) {
	o := newOffice(t, nil)
	secret, k := o.key(t, "team:viewer")
	far := NewKeys(openRegistry(t, o.log), o.clock.now)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- far.Run(ctx) }()
	if _, err := far.Identify(secret); err != nil {
		t.Fatal(err)
	}
	if err := o.keys.Revoke(ctx, Local("default"), k.ID); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := far.Identify(secret); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the other process goes on accepting it")
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLastUseIsKept: once a day, in the log, for whoever comes after.
func TestLastUseIsKept(t *testing.T) {
	o := newOffice(t, nil)
	secret, _ := o.key(t, "team:viewer")
	for range 3 {
		if _, err := o.keys.Identify(secret); err != nil {
			t.Fatal(err)
		}
		if err := o.keys.SaveUse(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	later := NewKeys(openRegistry(t, o.log), o.clock.now)
	if list := later.List(Local("default")); len(list) != 1 || list[0].LastUsed != o.clock.Truncate(24*time.Hour) {
		t.Errorf("a process that starts later knows %+v", list)
	}
	if n, err := o.log.End(t.Context()); n != 2 || err != nil {
		t.Errorf("%d entries: one key and one use were to be written (%v)", n, err)
	}
}

// TestGuessingIsHeldUp: after ten failures an address waits, good keys go on.
func TestGuessingIsHeldUp(t *testing.T) {
	o := newOffice(t, nil)
	secret, _ := o.key(t, "team:viewer")
	guess := func(n int) int {
		return o.ask(QueryRead, "/x", "Authorization", fmt.Sprintf("Bearer kedge_%010x_%064x", n, n)).Code
	}
	for n := range failureBurst {
		if got := guess(n); got != 401 {
			t.Fatalf("guess %d: %d", n, got)
		}
	}
	told := len(o.told)
	for n := range 500 {
		if got := guess(1000 + n); got != 429 {
			t.Fatalf("guess %d: %d", 1000+n, got)
		}
	}
	if len(o.told) != told {
		t.Errorf("%d guesses were written down: anybody could fill the disk", len(o.told)-told)
	}
	if w := o.ask(QueryRead, "/x", "Authorization", "Bearer "+secret); w.Code != 200 {
		t.Errorf("a good key from the same address: %d", w.Code)
	}
	o.clock.Time = o.clock.Add(failureEvery + time.Second)
	if got := guess(1); got != 401 {
		t.Errorf("after the wait one is looked at again: %d", got)
	}
}

// TestQuotaOfRequests: what a caller may do counts against its namespace's
// quota; what it may not, or all may, does not, so that nobody can use up
// another's.
func TestQuotaOfRequests(t *testing.T) {
	left := map[string]int{"team": 2, "side": 2}
	o := newOffice(t, func(c *GateConfig) {
		c.Allow = func(c Caller) bool { left[c.Namespace]--; return left[c.Namespace] >= 0 }
	})
	secret, _ := o.key(t, "team:viewer")
	bearer := []string{"Authorization", "Bearer " + secret}
	other := append([]string{NamespaceHeader, "side"}, bearer...)
	for range 5 {
		o.ask(Public, "/x", bearer...)
		o.ask(QueryRead, "/x")
		if got := o.ask(QueryRead, "/x", other...).Code; got != http.StatusForbidden {
			t.Errorf("in another's namespace: %d", got)
		}
	}
	if left["team"] != 2 || left["side"] != 2 {
		t.Errorf("calls that were refused or public cost something: %v", left)
	}
	if got := o.ask(QueryRead, "/x", bearer...).Code; got != http.StatusOK {
		t.Errorf("within the quota: %d", got)
	}
	call := Call{Credential: Credential{Authorization: "Bearer " + secret}, Need: QueryRead, What: "/rpc"}
	if _, err := o.Call(t.Context(), call); err != nil {
		t.Errorf("an RPC within the quota: %v", err)
	}
	over := o.ask(QueryRead, "/x", bearer...)
	if over.Code != http.StatusTooManyRequests || over.Header().Get("Retry-After") != "1" {
		t.Errorf("beyond the quota: %d, Retry-After %q", over.Code, over.Header().Get("Retry-After"))
	}
	var refusal *web.Error
	if _, err := o.Call(t.Context(), call); !errors.As(err, &refusal) || refusal.Status != http.StatusTooManyRequests {
		t.Errorf("an RPC beyond the quota: %v", err)
	}
}

// TestWhatTheAuditIsTold: every refusal and every change, no reading.
func TestWhatTheAuditIsTold(t *testing.T) {
	o := newOffice(t, nil)
	viewer, _ := o.key(t, "team:viewer")
	op, _ := o.key(t, "team:operator")
	o.ask(QueryRead, "/x", "Authorization", "Bearer "+viewer)
	if len(o.told) != 0 {
		t.Errorf("a look was told: %+v", o.told)
	}
	o.ask(ModelLoad, "/x", "Authorization", "Bearer "+viewer)
	o.ask(ModelLoad, "/x", "Authorization", "Bearer "+op)
	o.ask(ModelLoad, "/x")
	if len(o.told) != 3 || o.told[0].Allowed || !o.told[1].Allowed || o.told[2].Allowed || o.told[0].Subject != "key:team:viewer" || o.told[1].Status != 200 || o.told[2].Status != 401 || o.told[0].Permission != ModelLoad || o.told[0].Namespace != "team" {
		t.Errorf("told: %+v", o.told)
	}
}

// TestOpenGate: without authentication everybody is an administrator, and what
// is undeclared stays closed.
func TestOpenGate(t *testing.T) {
	o := newOffice(t, func(c *GateConfig) { c.Open = true })
	if w := o.ask(SystemWrite, "/x"); w.Code != 200 {
		t.Errorf("the local user: %d %s", w.Code, w.Body)
	}
	if w := o.ask(Undeclared, "/x"); w.Code != 403 {
		t.Errorf("an undeclared route: %d", w.Code)
	}
}

// TestSpoofedHeaders: no header but the declared ones makes anybody of a
// caller, and with authentication off, they change nothing.
func TestSpoofedHeaders(t *testing.T) {
	o := newOffice(t, nil)
	viewer, _ := o.key(t, "team:viewer")
	for _, h := range []string{"X-Grafana-User", "X-Grafana-Id", "X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Auth-Request-User", "X-Webauth-User", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Kedge-Roles", "X-Kedge-Subject", "X-Forwarded-For", "Forwarded", "X-Real-Ip", "Cookie", "Proxy-Authorization"} {
		for _, v := range []string{"admin", "local", "service:keys", "127.0.0.1"} {
			if w := o.ask(QueryRead, "/x", h, v); w.Code != 401 {
				t.Errorf("%s: %s and no credential: %d", h, v, w.Code)
			}
			if w := o.ask(KeyWrite, "/x", h, v, "Authorization", "Bearer "+viewer); w.Code != 403 {
				t.Errorf("%s: %s as a viewer: %d", h, v, w.Code)
			}
		}
	}
}

// FuzzCredential: whatever a client sends, nobody is let in without a secret
// that was handed out, and nothing panics.
func FuzzCredential(f *testing.F) {
	o := newOffice(f, nil)
	secret, _ := o.key(f, "team:viewer")
	for _, s := range []string{"", "Bearer ", "Bearer " + secret, basic("", secret), basic(secret, ""), basic("a", "b"), "Basic Og==", "Bearer kedge_", "Bearer a.b.c", "\x00", "Bearer " + secret[:20]} {
		f.Add(s, "team", "/ns/team/x")
	}
	f.Fuzz(func(t *testing.T, authorization, namespace, path string) {
		r := httptest.NewRequest("GET", "/x", nil)
		r.URL.Path = path
		r.Header["Authorization"] = []string{authorization}
		r.Header[NamespaceHeader] = []string{namespace}
		w := httptest.NewRecorder()
		reached := false
		o.Middleware(o.Guard(QueryRead, "GET /x", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached = true }))).ServeHTTP(w, r)
		if reached && !strings.Contains(authorization, secret) && !strings.HasPrefix(strings.ToLower(authorization), "basic") {
			t.Errorf("%q was let in", authorization)
		}
	})
}
