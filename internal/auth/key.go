package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// An API key reads kedge_<id>_<secret>: 10 hexadecimal digits that name it and
// may be shown, and 64 that are its 256 random bits. A secret of that size
// needs no slow hash: nobody can try its values.
const (
	keyPrefix = "kedge_"
	keyID     = 10
	keySecret = 64
	keyLength = len(keyPrefix) + keyID + 1 + keySecret
)

// KeyKind is the kind of the registry's entries about API keys. They belong to
// no namespace, and nobody applies them as a definition.
const KeyKind = "APIKey"

// Key is an API key as the registry holds it. Hash is the SHA-256 of the whole
// key, in hexadecimal.
type Key struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject"`
	Grants    []Grant   `json:"grants"`
	Hash      string    `json:"hash"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"`
	CreatedBy string    `json:"created_by,omitempty"`
	Rotates   string    `json:"rotates,omitempty"` // the id of the key whose place it takes
}

// Errors that callers branch on.
var (
	ErrNoCredential = errors.New("no credential")
	ErrCredential   = errors.New("credential is not accepted")
	ErrUnknownKey   = errors.New("no such key")
	ErrGrant        = errors.New("grant is not yours to give")
)

// newKey returns a fresh key and its record without a subject.
func newKey() (secret string, k Key) {
	var b [keySecret / 2]byte
	var id [keyID / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	_, _ = rand.Read(id[:])
	k.ID = hex.EncodeToString(id[:])
	secret = keyPrefix + k.ID + "_" + hex.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	k.Hash = hex.EncodeToString(sum[:])
	return secret, k
}

// keyName returns the id within what looks like a key.
func keyName(secret string) (id string, ok bool) {
	if len(secret) != keyLength || secret[:len(keyPrefix)] != keyPrefix || secret[len(keyPrefix)+keyID] != '_' {
		return "", false
	}
	return secret[len(keyPrefix) : len(keyPrefix)+keyID], true
}

// hashKey is a key's hash, without allocating.
func hashKey(secret string) [sha256.Size]byte {
	var b [keyLength]byte
	copy(b[:], secret)
	return sha256.Sum256(b[:])
}

func parseKey(spec json.RawMessage) (k Key, hash [sha256.Size]byte, err error) {
	if err = json.Unmarshal(spec, &k); err != nil {
		return k, hash, fmt.Errorf("read key: %w", err)
	}
	b, err := hex.DecodeString(k.Hash)
	if err != nil || len(b) != sha256.Size {
		return k, hash, fmt.Errorf("read key %s: its hash is no SHA-256", k.ID)
	}
	return k, [sha256.Size]byte(b), nil
}

// matches compares in constant time.
func matches(a, b *[sha256.Size]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
