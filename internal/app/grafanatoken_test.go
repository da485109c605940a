package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/kedge-ml/kedge/internal/auth"
)

// grafana signs identities by Grafana's convention (11.1 to 12): ES256 by the
// library that it uses, a key for each month named id-YYYY-MM-es256, all of them
// at api/signing-keys/keys below its root address, which ends in a slash.
type grafana struct {
	*httptest.Server
	root string

	mu   sync.Mutex
	keys []jose.JSONWebKey // private
	asks int
}

func newGrafana(t *testing.T) *grafana {
	g := &grafana{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /grafana/api/signing-keys/keys", func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asks++
		var set jose.JSONWebKeySet
		for _, k := range g.keys {
			set.Keys = append(set.Keys, k.Public())
		}
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(set); err != nil {
			t.Error(err)
		}
	})
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	g.root = g.URL + "/grafana/"
	g.month("2026-10")
	g.month("2026-11")
	return g
}

// month begins a new key, as Grafana does at the first identity of a month.
func (g *grafana) month(name string) jose.JSONWebKey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	k := jose.JSONWebKey{Key: private, KeyID: "id-" + name + "-es256", Algorithm: "ES256", Use: "sig"}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys = append(g.keys, k)
	return k
}

// grafanaClaims are what stands beside the registered claims.
type grafanaClaims struct {
	Identifier      string `json:"identifier"`
	Type            string `json:"type"`
	Namespace       string `json:"namespace"`
	AuthenticatedBy string `json:"authenticatedBy,omitempty"`
	Email           string `json:"email,omitempty"`
	Username        string `json:"username,omitempty"`
	DisplayName     string `json:"name,omitempty"`
	Role            string `json:"role,omitempty"`
}

// token is an identity of ann, changed.
func (g *grafana) token(t *testing.T, key jose.JSONWebKey, typ string, change func(*jwt.Claims, *grafanaClaims)) string {
	t.Helper()
	now := time.Now()
	c := jwt.Claims{Issuer: g.root, Subject: "user:1", Audience: jwt.Audience{"org:1"}, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(10 * time.Minute))}
	rest := grafanaClaims{Identifier: "cdk3xq7z5n", Type: "user", Namespace: "default", AuthenticatedBy: "password", Email: "ann@example.com", Username: "ann", DisplayName: "Ann", Role: "Editor"}
	if change != nil {
		change(&c, &rest)
	}
	options := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"kid": key.KeyID}}
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key.Key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(c).Claims(rest).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestGrafanasTokens: identities in the form that Grafana signs them are
// believed by a configuration that names its root address and organisation
// alone; nothing that is not quite one is; a month's new key is asked for.
func TestGrafanasTokens(t *testing.T) {
	g, stranger := newGrafana(t), newGrafana(t)
	cfg := DefaultConfig()
	cfg.Auth.Grafana.Issuer, cfg.Auth.Grafana.Audience = strings.TrimSuffix(g.root, "/"), "org:1" // as an operator writes it
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	made := cfg.Auth.Grafana.ofGrafana()
	tokens, err := made.tokens(grafanaMethod, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	identify := func(token string) (*auth.Identity, error) {
		return tokens.Identify(t.Context(), token, func() error { return nil })
	}
	type change = func(*jwt.Claims, *grafanaClaims)
	role := func(name string) change { return func(_ *jwt.Claims, r *grafanaClaims) { r.Role = name } }
	old, now := g.keys[0], g.keys[1]
	for name, c := range map[string]struct {
		token, subject string
		want           auth.Role
	}{
		"an editor":                  {g.token(t, now, "jwt", nil), "grafana:user:1", auth.Scientist},
		"a viewer":                   {g.token(t, now, "jwt", role("Viewer")), "grafana:user:1", auth.Viewer},
		"an admin":                   {g.token(t, now, "jwt", role("Admin")), "grafana:user:1", auth.Operator},
		"of no role, as before 11.5": {g.token(t, now, "jwt", role("")), "grafana:user:1", auth.Viewer},
		"of the role None":           {g.token(t, now, "jwt", role("None")), "grafana:user:1", auth.Viewer},
		"of no type, as before 11.1": {g.token(t, now, "", nil), "grafana:user:1", auth.Scientist},
		"by last month's key":        {g.token(t, old, "jwt", nil), "grafana:user:1", auth.Scientist},
		"named by its uid":           {g.token(t, now, "jwt", func(c *jwt.Claims, _ *grafanaClaims) { c.Subject = "user:cdk3xq7z5n" }), "grafana:user:cdk3xq7z5n", auth.Scientist},
		"a service account": {g.token(t, now, "jwt", func(c *jwt.Claims, r *grafanaClaims) {
			c.Subject, *r = "service-account:3", grafanaClaims{Type: "service-account", Role: "Viewer"}
		}), "grafana:service-account:3", auth.Viewer},
		"whose name says that he is an administrator": {g.token(t, now, "jwt", func(_ *jwt.Claims, r *grafanaClaims) {
			r.Username, r.DisplayName, r.Role = "admin", `Admin","role":"Admin`, "Viewer"
		}), "grafana:user:1", auth.Viewer},
	} {
		id, err := identify(c.token)
		if err != nil || id.Subject != c.subject || id.Method != grafanaMethod || len(id.Grants) != 1 || !slices.Equal(id.Grants[0].Roles, []auth.Role{c.want}) {
			t.Errorf("%s: %+v, %v; want %s, %s", name, id, err, c.subject, c.want)
		}
	}
	claim := func(f func(*jwt.Claims)) string {
		return g.token(t, now, "jwt", func(c *jwt.Claims, _ *grafanaClaims) { f(c) })
	}
	unknown, taken := now, now
	unknown.KeyID, taken.Key = "id-2026-09-es256", stranger.keys[1].Key
	for name, token := range map[string]string{
		"another Grafana":                        stranger.token(t, stranger.keys[1], "jwt", nil),
		"another Grafana that says it is this":   stranger.token(t, stranger.keys[1], "jwt", func(c *jwt.Claims, _ *grafanaClaims) { c.Issuer = g.root }),
		"another Grafana by this one's key's id": g.token(t, taken, "jwt", nil),
		"a key that it does not have":            g.token(t, unknown, "jwt", nil),
		"another month's key under this name":    g.token(t, jose.JSONWebKey{Key: old.Key, KeyID: now.KeyID}, "jwt", nil),
		"an access token":                        g.token(t, now, "at+jwt", nil),
		"another type":                           g.token(t, now, "secevent+jwt", nil),
		"another organisation":                   claim(func(c *jwt.Claims) { c.Audience = jwt.Audience{"org:2"} }),
		"no organisation":                        claim(func(c *jwt.Claims) { c.Audience = nil }),
		"an organisation that begins alike":      claim(func(c *jwt.Claims) { c.Audience = jwt.Audience{"org:12"} }),
		"a root address without its slash":       claim(func(c *jwt.Claims) { c.Issuer = strings.TrimSuffix(g.root, "/") }),
		"a root address of another path":         claim(func(c *jwt.Claims) { c.Issuer = g.URL + "/" }),
		"no issuer":                              claim(func(c *jwt.Claims) { c.Issuer = "" }),
		"ended":                                  claim(func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Second)) }),
		"without an end":                         claim(func(c *jwt.Claims) { c.Expiry = nil }),
		"of tomorrow":                            claim(func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(24 * time.Hour)) }),
		"of nobody":                              claim(func(c *jwt.Claims) { c.Subject = "" }),
	} {
		if id, err := identify(token); err == nil {
			t.Errorf("%s is believed: %+v", name, id)
		}
	}
	asked := g.asks
	next := g.token(t, g.month("2026-12"), "jwt", nil)
	if _, err := identify(next); err != nil || g.asks != asked+1 {
		t.Errorf("the first identity of a new month: %v after %d questions for keys", err, g.asks-asked)
	}
	if _, err := identify(g.token(t, old, "jwt", role("Viewer"))); err != nil {
		t.Errorf("an old key after a new one: %v", err)
	}
}
