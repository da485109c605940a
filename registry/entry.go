package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// FormatVersion is the newest entry format that this build writes and reads.
const FormatVersion = 1

// Limits of an entry. They hold at [Registry.Apply]; the fold skips what
// exceeds them, so that a foreign record in the log cannot fill memory.
const (
	MaxEntry = 900 << 10 // bytes, encoded: below the broker's default record cap of 1 MiB
	MaxName  = 255       // bytes of a kind, namespace, name, id or author
	MaxWhy   = 2000      // bytes of a reason
)

// Op says what an entry does to a definition.
type Op string

// The two operations.
const (
	Put    Op = "put"
	Delete Op = "delete"
)

// Entry is one record of the log: a wish to create, replace or delete one
// definition. Expect is the version it replaces; 0 says that the definition
// does not exist. The zero ID lets [Registry.Apply] choose one; a caller that
// retries sets it, and uses a fresh one for a different wish.
type Entry struct {
	ID        string
	Kind      string
	Namespace string
	Name      string
	Op        Op
	Expect    uint64
	Spec      json.RawMessage
	Who       string
	Why       string
	Revision  string // of the files it was written from: a commit; empty when it was not
}

// Definition is one version of one definition, as the fold made it. Version
// counts from 1 and goes on counting after a delete, so that it never means two
// things; a definition created anew after a delete has a new UID.
type Definition struct {
	Kind      string
	Namespace string
	Name      string
	UID       uint64 // log offset of the creating entry, plus 1
	Version   uint64
	Spec      json.RawMessage // shared: do not change; nil when Deleted
	Offset    int64           // log offset of the entry that made this version
	Time      int64           // µs, when the log stored that entry
	Who       string
	Why       string
	Revision  string
	Deleted   bool
}

// Errors that callers branch on.
var (
	ErrStale       = errors.New("definition changed since it was read")
	ErrInvalid     = errors.New("invalid registry entry")
	ErrNewerFormat = errors.New("registry entry of a newer format")
	ErrReusedID    = errors.New("entry id was used for another definition")
)

// StaleError is the [ErrStale] of one entry: what it expected and what the fold
// held when it answered. HTTP maps it to 409.
type StaleError struct {
	Kind, Namespace, Name string
	Expected, Current     uint64 // 0: does not exist
}

// Error says what to do: read again, then decide again.
func (e *StaleError) Error() string {
	return fmt.Sprintf("apply %s %s/%s: %v: expected version %d, found %d; read it again and reapply the edit",
		e.Kind, e.Namespace, e.Name, ErrStale, e.Expected, e.Current)
}

// Unwrap makes errors.Is(err, ErrStale) true.
func (e *StaleError) Unwrap() error { return ErrStale }

// wireEntry is the log's form of an Entry. Unknown members are ignored: a
// change that older builds must not ignore raises FormatVersion.
type wireEntry struct {
	V         int             `json:"v"`
	ID        string          `json:"id"`
	Kind      string          `json:"kind"`
	Namespace string          `json:"namespace,omitempty"`
	Name      string          `json:"name"`
	Op        Op              `json:"op"`
	Expect    uint64          `json:"expect,omitempty"`
	Spec      json.RawMessage `json:"spec,omitempty"`
	Who       string          `json:"who,omitempty"`
	Why       string          `json:"why,omitempty"`
	Revision  string          `json:"revision,omitempty"`
}

// Encode returns the entry as the log stores it, with the spec's insignificant
// space removed. It fails with [ErrInvalid].
func (e Entry) Encode() ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	w := wireEntry{FormatVersion, e.ID, e.Kind, e.Namespace, e.Name, e.Op, e.Expect, e.Spec, e.Who, e.Why, e.Revision}
	if err := enc.Encode(w); err != nil {
		return nil, fmt.Errorf("encode %s %s/%s: %w: %w", e.Kind, e.Namespace, e.Name, ErrInvalid, err)
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(out) > MaxEntry {
		return nil, fmt.Errorf("encode %s %s/%s: %w: %d bytes, at most %d; keep bulk data outside and refer to it", e.Kind, e.Namespace, e.Name, ErrInvalid, len(out), MaxEntry)
	}
	return out, nil
}

// DecodeEntry reads what [Entry.Encode] wrote. It fails with [ErrNewerFormat]
// for an entry that only a newer build may interpret, and with [ErrInvalid] for
// anything else it cannot read.
func DecodeEntry(b []byte) (Entry, error) {
	var w wireEntry
	if len(b) > MaxEntry {
		return Entry{}, fmt.Errorf("decode entry: %w: %d bytes", ErrInvalid, len(b))
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w: %w", ErrInvalid, err)
	}
	if w.V > FormatVersion {
		return Entry{}, fmt.Errorf("decode entry: %w: format %d, this build reads up to %d; upgrade kedge", ErrNewerFormat, w.V, FormatVersion)
	}
	e := Entry{w.ID, w.Kind, w.Namespace, w.Name, w.Op, w.Expect, w.Spec, w.Who, w.Why, w.Revision}
	if w.V < 1 {
		return Entry{}, fmt.Errorf("decode entry: %w: no format version", ErrInvalid)
	}
	return e, e.validate()
}

func (e Entry) validate() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("entry %s %s/%s: %w: %s", e.Kind, e.Namespace, e.Name, ErrInvalid, fmt.Sprintf(format, args...))
	}
	for _, f := range []struct {
		what, value string
		limit       int
		required    bool
	}{
		{"id", e.ID, MaxName, true}, {"kind", e.Kind, MaxName, true}, {"namespace", e.Namespace, MaxName, false},
		{"name", e.Name, MaxName, true}, {"author", e.Who, MaxName, false}, {"reason", e.Why, MaxWhy, false},
		{"revision", e.Revision, MaxName, false},
	} {
		switch {
		case f.required && f.value == "":
			return fault("no %s", f.what)
		case len(f.value) > f.limit:
			return fault("%s has %d bytes, at most %d", f.what, len(f.value), f.limit)
		case !utf8.ValidString(f.value) || strings.ContainsRune(f.value, 0):
			return fault("%s is not valid text", f.what)
		}
	}
	return e.validateOp(fault)
}

func (e Entry) validateOp(fault func(string, ...any) error) error {
	switch {
	case e.Op == Put && !json.Valid(e.Spec):
		return fault("its spec is not JSON")
	case e.Op == Delete && len(e.Spec) > 0:
		return fault("a delete carries no spec")
	case e.Op == Delete && e.Expect == 0:
		return fault("a delete names the version it removes")
	case e.Op != Put && e.Op != Delete:
		return fault("unknown operation %q: want put or delete", e.Op)
	}
	return nil
}
