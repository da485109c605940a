package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// TokenConfig says which JSON web tokens are believed.
type TokenConfig struct {
	Method     string   // oidc or grafana, as audit entries name it
	Issuer     string   // of the iss claim, exactly
	Audience   string   // of the aud claim
	Type       string   // of the typ header where a token has one: other types mean other things; empty: any
	Algorithms []string // allowed signatures; never a symmetric one, never none
	KeySet     string   // address of the JSON web key set; empty: the issuer's discovery document names it
	RolesClaim string   // its values are looked up in Roles; with dots into nested claims
	Roles      map[string][]Grant
	Default    []Grant // of everybody whose claim says nothing
	HTTP       *http.Client
	Now        func() time.Time
}

// Algorithms are the signatures that can be allowed.
func Algorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}
}

// Tokens verifies JSON web tokens of one issuer.
type Tokens struct {
	cfg TokenConfig

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer was reached
	made     time.Time             // when; its keys are asked for anew after rememberToken
	seen     map[[sha256.Size]byte]seenToken
}

// seenToken is a token that was verified, until it ends or has to be verified
// anew.
type seenToken struct {
	id   *Identity
	ends time.Time
}

// How many verified tokens are remembered, and how long: within that time a
// key that the issuer withdraws goes on being believed.
const (
	keptTokens    = 10_000
	rememberToken = 5 * time.Minute
)

// NewTokens returns a verifier. It reaches for the issuer at the first token,
// so that Kedge starts while the issuer is away.
func NewTokens(cfg TokenConfig) *Tokens {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Tokens{cfg: cfg, seen: map[[sha256.Size]byte]seenToken{}}
}

// Identify says who a token is about, or [ErrCredential]. before is asked
// before a signature is computed, and may refuse.
func (t *Tokens) Identify(ctx context.Context, token string, before func() error) (*Identity, error) {
	now, sum := t.cfg.Now(), sha256.Sum256([]byte(token))
	t.mu.Lock()
	known, ok := t.seen[sum]
	t.mu.Unlock()
	if ok && now.Before(known.ends) {
		return known.id, nil
	}
	if strings.Count(token, ".") != 2 || !t.typed(token) {
		return nil, ErrCredential
	}
	if err := before(); err != nil {
		return nil, err
	}
	v, err := t.verify(ctx)
	if err != nil {
		return nil, err
	}
	got, err := v.Verify(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	id, err := t.identity(got)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	ends := got.Expiry
	if soon := now.Add(rememberToken); soon.Before(ends) {
		ends = soon
	}
	t.keep(sum, seenToken{id, ends}, now)
	return id, nil
}

// typed reports whether a token is of the wanted type, or says none. An issuer
// signs tokens of other types (at+jwt) with the same keys.
func (t *Tokens) typed(token string) bool {
	if t.cfg.Type == "" {
		return true
	}
	text, _, _ := strings.Cut(token, ".")
	var header struct {
		Type *string `json:"typ"`
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && json.Unmarshal(b, &header) == nil && (header.Type == nil || strings.EqualFold(*header.Type, t.cfg.Type))
}

func (t *Tokens) keep(sum [sha256.Size]byte, s seenToken, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seen) >= keptTokens {
		for k, v := range t.seen {
			if !now.Before(v.ends) {
				delete(t.seen, k)
			}
		}
		if len(t.seen) >= keptTokens {
			clear(t.seen)
		}
	}
	t.seen[sum] = s
}

// verify is the issuer's verifier, made at first use and from time to time, so
// that a key which the issuer withdrew does not stay believed.
func (t *Tokens) verify(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	if t.verifier != nil && now.Sub(t.made) < rememberToken {
		return t.verifier, nil
	}
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), t.cfg.HTTP) // the key set outlives the request
	c := &oidc.Config{ClientID: t.cfg.Audience, SupportedSigningAlgs: t.cfg.Algorithms, Now: t.cfg.Now}
	if t.cfg.KeySet != "" {
		t.verifier, t.made = oidc.NewVerifier(t.cfg.Issuer, oidc.NewRemoteKeySet(ctx, t.cfg.KeySet), c), now
		return t.verifier, nil
	}
	p, err := oidc.NewProvider(ctx, t.cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("%w: its issuer %s cannot be asked: %w", ErrCredential, t.cfg.Issuer, err)
	}
	t.verifier, t.made = p.Verifier(c), now
	return t.verifier, nil
}

func (t *Tokens) identity(token *oidc.IDToken) (*Identity, error) {
	if token.Subject == "" {
		return nil, errors.New("the token has no subject")
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, err
	}
	id := &Identity{Subject: t.cfg.Method + ":" + token.Subject, Method: t.cfg.Method}
	for _, value := range claimed(claims, t.cfg.RolesClaim) {
		id.Grants = append(id.Grants, t.cfg.Roles[value]...)
	}
	if len(id.Grants) == 0 {
		id.Grants = t.cfg.Default
	}
	return id, nil
}

// claimed are the values of a claim: a text or a list of them, within nested
// objects where the path has dots.
func claimed(claims map[string]any, path string) []string {
	if path == "" {
		return nil
	}
	if v, ok := claims[path]; ok {
		return texts(v)
	}
	head, rest, ok := strings.Cut(path, ".")
	inner, isObject := claims[head].(map[string]any)
	if !ok || !isObject {
		return nil
	}
	return claimed(inner, rest)
}

func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, one := range v {
			if s, ok := one.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}
