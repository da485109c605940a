package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kedge-ml/kedge/registry"
)

// Keys are the API keys of an installation: a fold of the registry's entries,
// so that every process knows them and a revocation reaches all.
type Keys struct {
	reg *registry.Registry
	now func() time.Time

	held atomic.Pointer[heldKeys]
}

// heldKeys are the keys as of one registry offset.
type heldKeys struct {
	changed int64
	byID    map[string]*heldKey
}

type heldKey struct {
	Key
	hash    [sha256.Size]byte
	id      *Identity
	used    atomic.Int64 // unix seconds, of this process
	version uint64
}

// NewKeys folds the registry's keys. now may be nil for time.Now.
func NewKeys(reg *registry.Registry, now func() time.Time) *Keys {
	if now == nil {
		now = time.Now
	}
	k := &Keys{reg: reg, now: now}
	k.held.Store(&heldKeys{changed: -2, byID: map[string]*heldKey{}})
	k.fold()
	return k
}

// fold brings the table up to the registry. Entries that cannot be read are
// keys that open nothing.
func (k *Keys) fold() *heldKeys {
	held := k.held.Load()
	state := k.reg.State()
	changed := state.Changed(KeyKind)
	if changed == held.changed {
		return held
	}
	next := &heldKeys{changed: changed, byID: map[string]*heldKey{}}
	for _, d := range state.List(KeyKind, "") {
		key, hash, err := parseKey(d.Spec)
		if err != nil || key.ID != d.Name || d.Namespace != "" {
			continue
		}
		h := &heldKey{Key: key, hash: hash, version: d.Version, id: &Identity{Subject: "key:" + key.Subject, Method: "key", Grants: key.Grants}}
		if old := held.byID[key.ID]; old != nil {
			h.used.Store(old.used.Load())
		}
		next.byID[key.ID] = h
	}
	k.held.Store(next)
	return next
}

// Run keeps the table up to the registry until ctx ends.
func (k *Keys) Run(ctx context.Context) error {
	for after := int64(-2); ; {
		state, err := k.reg.Next(ctx, after)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		after = state.Offset()
		k.fold()
	}
}

// Identify returns who a key belongs to, with [ErrCredential] when it is
// unknown, revoked or has expired. It does not allocate for a key that is good.
func (k *Keys) Identify(secret string) (*Identity, error) {
	name, ok := keyName(secret)
	if !ok {
		return nil, ErrCredential
	}
	h := k.held.Load().byID[name]
	sum := hashKey(secret)
	if h == nil || !matches(&sum, &h.hash) {
		return nil, ErrCredential
	}
	now := k.now()
	if !h.Expires.IsZero() && !now.Before(h.Expires) {
		return nil, ErrCredential
	}
	h.used.Store(now.Unix())
	return h.id, nil
}

// KeyInfo is what may be shown of a key.
type KeyInfo struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject"`
	Grants    []string  `json:"grants"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by,omitempty"`
	Expires   time.Time `json:"expires,omitzero"`
	LastUsed  time.Time `json:"last_used,omitzero" doc:"By this process, to the second; by others since they last wrote it, to the day"`
	Rotates   string    `json:"rotates,omitempty"`
}

// List returns the keys that a caller may see: those whose grants are all
// within its own.
func (k *Keys) List(c Caller) []KeyInfo {
	out := []KeyInfo{}
	for _, h := range k.fold().byID {
		if !c.covers(h.Grants) {
			continue
		}
		info := KeyInfo{ID: h.ID, Subject: h.Subject, Created: h.Created, CreatedBy: h.CreatedBy, Expires: h.Expires, Rotates: h.Rotates, LastUsed: k.lastUsed(h)}
		for _, g := range h.Grants {
			info.Grants = append(info.Grants, g.String())
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b KeyInfo) int { return a.Created.Compare(b.Created) })
	return out
}

func (c *Caller) covers(grants []Grant) bool {
	if c.id == nil {
		return false
	}
	for _, g := range grants {
		if !c.id.Covers(g) {
			return false
		}
	}
	return true
}

// Create makes a key. The secret is returned once and kept nowhere. It fails
// with [ErrGrant] for more than the caller has itself.
func (k *Keys) Create(ctx context.Context, c Caller, subject string, grants []Grant, expires time.Time) (secret string, key Key, err error) {
	return k.create(ctx, c, Key{Subject: subject, Grants: grants, Expires: expires})
}

func (k *Keys) create(ctx context.Context, c Caller, want Key) (secret string, key Key, err error) {
	if err := k.check(c, want); err != nil {
		return "", Key{}, err
	}
	secret, key = newKey()
	key.Subject, key.Grants, key.Expires, key.Rotates = want.Subject, want.Grants, want.Expires, want.Rotates
	key.Created, key.CreatedBy = k.now().UTC().Truncate(time.Second), c.Subject
	spec, err := json.Marshal(key)
	if err != nil {
		return "", Key{}, err
	}
	if _, err = k.reg.Apply(ctx, registry.Entry{Kind: KeyKind, Name: key.ID, Op: registry.Put, Spec: spec, Who: c.Subject}); err != nil {
		return "", Key{}, fmt.Errorf("create key for %s: %w", want.Subject, err)
	}
	k.fold()
	return secret, key, nil
}

func (k *Keys) check(c Caller, want Key) error {
	if want.Subject == "" || len(want.Subject) > 200 {
		return fmt.Errorf("create key: %w: a key needs a subject of at most 200 bytes: who uses it", registry.ErrInvalid)
	}
	if !utf8.ValidString(want.Subject) || strings.ContainsFunc(want.Subject, unicode.IsControl) {
		return fmt.Errorf("create key: %w: the subject %q has control characters or is not UTF-8: name who uses the key in plain text", registry.ErrInvalid, want.Subject)
	}
	if len(want.Grants) == 0 || len(want.Grants) > 100 {
		return fmt.Errorf("create key for %s: %w: a key needs 1 to 100 grants such as team:viewer", want.Subject, registry.ErrInvalid)
	}
	if !want.Expires.IsZero() && !want.Expires.After(k.now()) {
		return fmt.Errorf("create key for %s: %w: it would have expired at %s", want.Subject, registry.ErrInvalid, want.Expires.Format(time.RFC3339))
	}
	for _, g := range want.Grants {
		if err := g.validate(); err != nil {
			return fmt.Errorf("create key for %s: %w: %w", want.Subject, registry.ErrInvalid, err)
		}
	}
	if !c.covers(want.Grants) {
		return fmt.Errorf("create key for %s: %w: ask somebody who has these roles there", want.Subject, ErrGrant)
	}
	return nil
}

// Revoke ends a key at once. It fails with [ErrUnknownKey] for a key that the
// caller may not see.
func (k *Keys) Revoke(ctx context.Context, c Caller, id string) error {
	h := k.fold().byID[id]
	if h == nil || !c.covers(h.Grants) {
		return fmt.Errorf("revoke key %q: %w", id, ErrUnknownKey)
	}
	_, err := k.reg.Apply(ctx, registry.Entry{Kind: KeyKind, Name: id, Op: registry.Delete, Expect: h.version, Who: c.Subject})
	if err != nil {
		return fmt.Errorf("revoke key %s: %w", id, err)
	}
	k.fold()
	return nil
}

// Rotate makes a key that takes another's place, which goes on working for
// overlap, so that its users can change over.
func (k *Keys) Rotate(ctx context.Context, c Caller, id string, overlap time.Duration) (secret string, key Key, err error) {
	h := k.fold().byID[id]
	if h == nil || !c.covers(h.Grants) {
		return "", Key{}, fmt.Errorf("rotate key %q: %w", id, ErrUnknownKey)
	}
	want := Key{Subject: h.Subject, Grants: h.Grants, Rotates: id}
	if !h.Expires.IsZero() { // the same life as the old one was given
		want.Expires = k.now().Add(h.Expires.Sub(h.Created)).UTC().Truncate(time.Second)
	}
	if secret, key, err = k.create(ctx, c, want); err != nil {
		return "", Key{}, err
	}
	old := h.Key
	if end := k.now().Add(overlap).UTC(); old.Expires.IsZero() || end.Before(old.Expires) {
		old.Expires = end
	}
	spec, err := json.Marshal(old)
	if err != nil {
		return "", Key{}, err
	}
	if _, err = k.reg.Apply(ctx, registry.Entry{Kind: KeyKind, Name: id, Op: registry.Put, Expect: h.version, Spec: spec, Who: c.Subject, Why: "rotated to " + key.ID}); err != nil {
		return "", Key{}, fmt.Errorf("rotate key %s: the new key %s stands, the old one has not been ended: revoke it: %w", id, key.ID, err)
	}
	k.fold()
	return secret, key, nil
}

// Len is how many keys there are.
func (k *Keys) Len() int { return len(k.fold().byID) }
