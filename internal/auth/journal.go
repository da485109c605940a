package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/registry"
)

// Entry is one line of the audit: who did what, and what was decided. Each
// writer (a process, from its start to its end) numbers its entries from 0 and
// carries the hash of the one before; Seen and SeenHash name the newest entry
// of anybody that it knew, so that the writers' chains hold each other.
type Entry struct {
	Time       time.Time       `json:"time"`
	Subject    string          `json:"subject,omitempty"`
	Method     string          `json:"method,omitempty"` // how the subject proved who it is
	Namespace  string          `json:"namespace,omitempty"`
	Permission string          `json:"permission"`
	What       string          `json:"what"` // the route or RPC
	Target     string          `json:"target,omitempty"`
	Allowed    bool            `json:"allowed"`
	Status     int             `json:"status"` // of the answer, as HTTP has it
	Reason     string          `json:"reason,omitempty"`
	Remote     string          `json:"remote,omitempty"`
	TraceID    string          `json:"trace_id,omitempty"`
	Before     json.RawMessage `json:"before,omitempty"`
	After      json.RawMessage `json:"after,omitempty"`

	Writer   string `json:"writer"`
	Seq      uint64 `json:"seq"`
	Prev     string `json:"prev"`      // hash of the writer's entry before, empty for its first
	Seen     int64  `json:"seen"`      // offset of the newest entry that the writer knew, -1 for none
	SeenHash string `json:"seen_hash"` // and its hash
	Hash     string `json:"hash"`      // SHA-256 of the entry as JSON with this member empty
}

// sealed is the entry with its hash, and as it is stored. JSON has no sign that is
// not UTF-8: it would come back as another one, under another hash.
func (e Entry) sealed() (Entry, []byte, error) {
	for _, text := range []*string{&e.Subject, &e.Method, &e.Namespace, &e.What, &e.Target, &e.Reason, &e.Remote, &e.TraceID} {
		*text = strings.ToValidUTF8(*text, "\ufffd")
	}
	e.Hash = ""
	b, err := json.Marshal(e)
	if err != nil {
		return e, nil, err
	}
	sum := sha256.Sum256(b)
	e.Hash = hex.EncodeToString(sum[:])
	b, err = json.Marshal(e)
	return e, b, err
}

// keptEntries are how many of the newest entries a process holds to show.
const keptEntries = 20_000

// Journal is the audit: a log that only grows, each entry bound to those
// before it.
type Journal struct {
	log    registry.Log
	writer string

	mu       sync.Mutex // one append at a time
	seq      uint64
	prev     string
	seen     int64
	seenHash string

	held   sync.RWMutex
	newest []Entry
	queue  chan Entry // of refusals
	lost   func(Entry, error)
}

// NewJournal returns a journal on a log. lost is told of entries that could not
// be written. Run must run for refusals to be written and entries to be shown.
func NewJournal(log registry.Log, lost func(Entry, error)) *Journal {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return &Journal{log: log, writer: hex.EncodeToString(id[:]), seen: -1, queue: make(chan Entry, 1024), lost: lost}
}

// Append writes an entry and returns once it is in the log.
func (j *Journal) Append(ctx context.Context, e Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Writer, e.Seq, e.Prev, e.Seen, e.SeenHash = j.writer, j.seq, j.prev, j.seen, j.seenHash
	e, b, err := e.sealed()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	offset, err := j.log.Append(ctx, b)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	j.seq, j.prev = j.seq+1, e.Hash
	if offset > j.seen {
		j.seen, j.seenHash = offset, e.Hash
	}
	return nil
}

// errFull is why an entry was lost before it was tried.
var errFull = errors.New("audit: more refusals than can be written")

// Refused queues an entry about a refusal: whoever is refused does not make
// others wait.
func (j *Journal) Refused(e Entry) {
	select {
	case j.queue <- e:
	default:
		j.lost(e, errFull)
	}
}

// Run writes refusals and follows the log until ctx ends.
func (j *Journal) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case e := <-j.queue:
				if err := j.Append(ctx, e); err != nil {
					j.lost(e, err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	err := j.log.Tail(ctx, 0, func(offset, _ int64, value []byte) error {
		e, err := parseEntry(value)
		if err != nil {
			return nil // Verify names it
		}
		j.mu.Lock()
		if offset > j.seen {
			j.seen, j.seenHash = offset, e.Hash
		}
		j.mu.Unlock()
		j.held.Lock()
		if j.newest = append(j.newest, e); len(j.newest) > 2*keptEntries {
			j.newest = slices.Clone(j.newest[len(j.newest)-keptEntries:])
		}
		j.held.Unlock()
		return nil
	})
	<-done
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Newest are the newest entries of a namespace (of all: empty), the newest
// first, as far as they match.
func (j *Journal) Newest(namespace string, limit int, match func(*Entry) bool) (out []Entry) {
	j.held.RLock()
	defer j.held.RUnlock()
	for i := len(j.newest) - 1; i >= 0 && len(out) < limit; i-- {
		e := &j.newest[i]
		if (namespace == "" || e.Namespace == namespace) && match(e) {
			out = append(out, *e)
		}
	}
	return out
}

// parseEntry reads a line as it must have been written: nothing unknown, no
// other spelling.
func parseEntry(value []byte) (e Entry, err error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err = d.Decode(&e); err != nil {
		return e, fmt.Errorf("not an audit entry: %w", err)
	}
	if _, err = d.Token(); !errors.Is(err, io.EOF) {
		return e, errors.New("more than an audit entry")
	}
	return e, nil
}

// BrokenEntry is an entry that is not as it was written.
type BrokenEntry struct {
	Offset int64  `json:"offset"`
	Why    string `json:"why"`
}

// AuditReport is what [Verify] found. Head is the hash of the last entry: kept
// elsewhere, it shows later that the end was not cut or rewritten.
type AuditReport struct {
	Entries int64         `json:"entries"`
	Writers int           `json:"writers"`
	Head    string        `json:"head"`
	Faults  []BrokenEntry `json:"faults"`
}

// maxFaults bounds what a verification lists.
const maxFaults = 1000

var errRead = errors.New("read to the end")

// Verify reads the whole log and checks each entry's hash and its links.
func Verify(ctx context.Context, log registry.Log) (v AuditReport, err error) {
	v.Faults = []BrokenEntry{}
	end, err := log.End(ctx)
	if err != nil || end == 0 {
		return v, err
	}
	type tail struct {
		next uint64
		hash string
	}
	writers, hashes := map[string]tail{}, map[int64]string{}
	err = log.Tail(ctx, 0, func(offset, _ int64, value []byte) error {
		v.Entries++
		fault := func(format string, args ...any) {
			if len(v.Faults) < maxFaults {
				v.Faults = append(v.Faults, BrokenEntry{offset, fmt.Sprintf(format, args...)})
			}
		}
		e, err := parseEntry(value)
		if err != nil {
			fault("%v", err)
		} else {
			same, text, err := e.sealed()
			w, known := writers[e.Writer]
			switch {
			case err != nil || same.Hash != e.Hash || !bytes.Equal(text, value):
				fault("it is not what was hashed when it was written")
			case !known && (e.Seq != 0 || e.Prev != ""):
				fault("the entries of its writer before number %d are missing", e.Seq)
			case known && (e.Seq != w.next || e.Prev != w.hash):
				fault("it does not follow its writer's entry before (number %d after %d)", e.Seq, int64(w.next)-1)
			case e.Seen >= offset || e.Seen >= 0 && hashes[e.Seen] != e.SeenHash:
				fault("the entry at offset %d is not the one that it follows", e.Seen)
			}
			writers[e.Writer], hashes[offset], v.Head = tail{e.Seq + 1, e.Hash}, e.Hash, e.Hash
		}
		if offset >= end-1 {
			return errRead
		}
		return nil
	})
	v.Writers = len(writers)
	if errors.Is(err, errRead) {
		err = nil
	}
	return v, err
}

// Change is what a call changed, as far as its handler says.
type Change struct {
	Target        string
	Before, After json.RawMessage
}

type changeKey struct{}

// Changed tells the audit what a call changed. A call outside a [Gate] tells
// nobody.
func Changed(ctx context.Context, target string, before, after any) {
	c, ok := ctx.Value(changeKey{}).(*Change)
	if !ok {
		return
	}
	c.Target = target
	c.Before, c.After = asJSON(before), asJSON(after)
}

func asJSON(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return nil
	}
	return b
}
