package auth

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

const audience = "kedge"

func (i *issuer) tokens(now func() time.Time) *Tokens {
	return NewTokens(TokenConfig{
		Method: "oidc", Issuer: i.URL, Audience: audience, Algorithms: []string{"RS256", "ES256"}, RolesClaim: "realm.roles", Now: now, HTTP: i.Client(),
		Roles:   map[string][]Grant{"fraud-team": {{"fraud", []Role{Scientist}}}, "root": {{AllNamespaces, []Role{Admin}}}},
		Default: []Grant{{"default", []Role{Viewer}}},
	})
}

func (i *issuer) claims(now time.Time) claims {
	return claims{"iss": i.URL, "aud": audience, "sub": "ann", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "realm": map[string]any{"roles": []string{"fraud-team", "unknown"}}}
}

func (c claims) with(name string, v any) claims {
	out := maps.Clone(c)
	out[name] = v
	if v == nil {
		delete(out, name)
	}
	return out
}

func free() error { return nil }

// TestTokens: what is let in, with which rights.
func TestTokens(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	v := i.tokens(func() time.Time { return now })
	for _, header := range []map[string]any{{"alg": "RS256", "kid": "r"}, {"alg": "ES256", "kid": "e"}} {
		id, err := v.Identify(t.Context(), i.signed(t, header, i.claims(now)), free)
		if err != nil {
			t.Fatalf("%v: %v", header, err)
		}
		if id.Subject != "oidc:ann" || !id.In("fraud").May(DefinitionWrite) || id.In("fraud").May(KeyWrite) || id.In("default").May(QueryRead) {
			t.Errorf("%v: %+v", header, id)
		}
	}
	id, err := v.Identify(t.Context(), i.signed(t, map[string]any{"alg": "RS256", "kid": "r"}, i.claims(now).with("realm", "fraud-team")), free)
	if err != nil || id.In("fraud").May(QueryRead) || !id.In("default").May(QueryRead) {
		t.Errorf("a claim of another form gives the default alone: %+v, %v", id, err)
	}
}

// TestTokensThatAreRefused: each differs from a good one in one thing.
func TestTokensThatAreRefused(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	now := time.Now()
	v := i.tokens(func() time.Time { return now })
	good, rs := i.claims(now), map[string]any{"alg": "RS256", "kid": "r"}
	whole := i.signed(t, rs, good)
	piece := strings.Split(whole, ".")
	if _, err := v.Identify(t.Context(), whole, free); err != nil {
		t.Fatalf("the good one: %v", err) // the test can see
	}
	bad := map[string]string{
		"alg none, no signature":       part(t, map[string]any{"alg": "none"}) + "." + piece[1] + ".",
		"alg None":                     part(t, map[string]any{"alg": "None", "kid": "r"}) + "." + piece[1] + "." + piece[2],
		"alg empty":                    part(t, map[string]any{"alg": ""}) + "." + piece[1] + "." + piece[2],
		"no alg":                       part(t, map[string]any{"kid": "r"}) + "." + piece[1] + "." + piece[2],
		"RS to HS with the public key": i.signed(t, map[string]any{"alg": "HS256", "kid": "r"}, good),
		"an algorithm not allowed":     i.signed(t, map[string]any{"alg": "PS256", "kid": "r"}, good),
		"the other key's algorithm":    i.signed(t, map[string]any{"alg": "ES256", "kid": "r"}, good),
		"unknown kid":                  i.signed(t, map[string]any{"alg": "RS256", "kid": "../../dev/null"}, good),
		"kid as an injection":          i.signed(t, map[string]any{"alg": "RS256", "kid": "x' UNION SELECT 'k"}, good),
		"a key within the header":      stranger.signed(t, map[string]any{"alg": "RS256", "jwk": map[string]string{"kty": "RSA", "n": b64(stranger.rsa.N.Bytes()), "e": "AQAB"}}, good),
		"a key set within the header":  stranger.signed(t, map[string]any{"alg": "RS256", "kid": "r", "jku": stranger.URL + "/keys"}, good),
		"signed by a stranger":         stranger.signed(t, rs, good),
		"another issuer":               stranger.signed(t, rs, stranger.claims(now)),
		"an issuer that looks alike":   i.signed(t, rs, good.with("iss", i.URL+"/")),
		"another audience":             i.signed(t, rs, good.with("aud", "grafana")),
		"no audience":                  i.signed(t, rs, good.with("aud", nil)),
		"an audience that starts so":   i.signed(t, rs, good.with("aud", audience+".example")),
		"expired":                      i.signed(t, rs, good.with("exp", now.Add(-time.Second).Unix())),
		"no expiry":                    i.signed(t, rs, good.with("exp", nil)),
		"expiry as text":               i.signed(t, rs, good.with("exp", "never")),
		"not yet":                      i.signed(t, rs, good.with("nbf", now.Add(time.Hour).Unix())),
		"no subject":                   i.signed(t, rs, good.with("sub", "")),
		"other claims, old signature":  piece[0] + "." + part(t, good.with("realm", map[string]any{"roles": []string{"root"}})) + "." + piece[2],
		"signature cut":                whole[:len(whole)-10],
		"no signature":                 piece[0] + "." + piece[1] + ".",
		"two parts":                    piece[0] + "." + piece[1],
		"four parts":                   whole + "." + piece[2],
		"unsigned internal token":      part(t, map[string]any{"alg": "none"}) + "." + part(t, claims{"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:kedge:internal"}) + ".",
		"empty parts":                  "..",
		"no base64":                    "%.%.%",
	}
	for name, token := range bad {
		if id, err := v.Identify(t.Context(), token, free); err == nil || !errors.Is(err, ErrCredential) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	if stranger.asks > 0 {
		t.Error("a key set that a token named was asked for")
	}
}

// TestTokenIsNotReplayed: a token that was verified is remembered, and not
// beyond its end.
func TestTokenIsNotReplayed(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	v := i.tokens(func() time.Time { return now })
	token := i.signed(t, map[string]any{"alg": "ES256", "kid": "e"}, i.claims(now).with("exp", now.Add(10*time.Minute).Unix()))
	for range 2 {
		if _, err := v.Identify(t.Context(), token, free); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(10*time.Minute + time.Second)
	if _, err := v.Identify(t.Context(), token, free); !errors.Is(err, ErrCredential) {
		t.Errorf("after its end: %v", err)
	}
}

// TestKeyOfIssuerIsWithdrawn: a key that the issuer took back opens nothing
// once what was remembered has aged, however long its tokens say they live.
func TestKeyOfIssuerIsWithdrawn(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	token := i.signed(t, map[string]any{"alg": "ES256", "kid": "e"}, i.claims(now).with("exp", now.Add(1000*time.Hour).Unix()))
	v := i.tokens(func() time.Time { return now })
	if _, err := v.Identify(t.Context(), token, free); err != nil {
		t.Fatal(err)
	}
	i.ec = newIssuer(t).ec
	now = now.Add(rememberToken + time.Second)
	if _, err := v.Identify(t.Context(), token, free); !errors.Is(err, ErrCredential) {
		t.Errorf("signed with a withdrawn key: %v", err)
	}
}

func TestIssuerThatIsAway(t *testing.T) {
	i := newIssuer(t)
	v := i.tokens(time.Now)
	token := i.signed(t, map[string]any{"alg": "RS256", "kid": "r"}, i.claims(time.Now()))
	i.Close()
	if _, err := v.Identify(t.Context(), token, free); !errors.Is(err, ErrCredential) {
		t.Errorf("an issuer that cannot be asked lets nobody in: %v", err)
	}
}
