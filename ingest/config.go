package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// Config says which topics are read and how units are cut.
//
// The defaults aim at 300 ms from append to queryable (median, at a moderate
// load) without drowning the store in small blocks: a unit waits MinDelay for
// company, longer when writing takes the writers more than half of their time,
// up to MaxDelay while the log holds as much again, and is cut at once when it
// is full.
type Config struct {
	Group string // consumer group
	Sink  string // first part of every token: names this installation; Group when empty

	// Route says which topics are read, and as what; nil: [ParseTopic]. Beside
	// them the topics of Source definitions are read.
	Route func(topic string) (Route, bool)
	// Schemas returns what the schema registry has under an id, "" if nothing;
	// nil: there is no schema registry.
	Schemas func(ctx context.Context, id int) (string, error)
	HashKey []byte // of sources' hashed fields

	MaxRows     int           // rows of a unit
	MaxBytes    int64         // bytes of keys and values of a unit
	MemoryBytes int64         // of keys and values of all units; near it, a unit ends at a partition's fair share
	MinDelay    time.Duration // how long a unit waits for more records
	MaxDelay    time.Duration // how long it may wait when the store is busy
	Writers     int           // inserts at a time, over all partitions

	DeadLetterBytes int64 // of a namespace without a quota of its own: beyond, dead letters lose their bytes; 0: no bound

	IDWindow int64 // offsets of a partition within which an id makes an event a duplicate; 0: ids are not looked at

	IdleCommit    time.Duration // a partition without new records commits its end after this
	InsertTimeout time.Duration // one attempt of an insert
	FenceAfter    time.Duration // an intent older than this is committed anew before an insert
	DrainTimeout  time.Duration // how long a stop waits for units under way
	Session       time.Duration // a member without heartbeat for this long is dead
	Heartbeat     time.Duration
	Rebalance     time.Duration

	// OwnStore says that no other process can write the store, so that what a
	// former owner of a partition sent has ended with it. Else a repeated unit
	// that is found broken is given up only when FenceAfter and InsertTimeout
	// have passed since the partition was assigned.
	OwnStore bool

	// PowerLoss also covers what a power cut takes: parts and deduplication
	// records that the engine had not brought to disk. A pending unit is then
	// removed and read again in a new epoch instead of being repeated under
	// its tokens. It is safe only where one process at a time writes the store.
	PowerLoss bool

	Decoder event.DecoderConfig
}

// Route says what the records of a topic are.
type Route struct {
	Namespace string
	Kind      event.Kind // zero for a source's
	Source    bool       // a Source definition maps the records
}

// DefaultConfig returns a configuration for the group "kedge".
func DefaultConfig() Config {
	return Config{
		Group: "kedge", MaxRows: 100_000, MaxBytes: 48 << 20, MemoryBytes: 256 << 20,
		MinDelay: 200 * time.Millisecond, MaxDelay: time.Second, Writers: 2,
		DeadLetterBytes: 1 << 30,
		IDWindow:        1_000_000,
		IdleCommit:      2 * time.Second, InsertTimeout: time.Minute, FenceAfter: 5 * time.Second, DrainTimeout: 10 * time.Second,
		Session: 10 * time.Second, Heartbeat: time.Second, Rebalance: 30 * time.Second,
		Decoder: event.DefaultDecoderConfig(),
	}
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Group != "", "ingest: name a consumer group")
	check(!strings.ContainsAny(c.Sink+c.Group, "/ "), "ingest: group %q and sink %q take no slash or space, they are parts of tokens", c.Group, c.Sink)
	check(c.MaxRows > 0 && c.MaxBytes > 0 && c.MemoryBytes > 0, "ingest: the bounds of a unit are positive")
	check(c.MinDelay >= 0 && c.MaxDelay >= c.MinDelay, "ingest: max delay %v is less than min delay %v", c.MaxDelay, c.MinDelay)
	check(c.Writers > 0, "ingest: at least one writer")
	check(c.DeadLetterBytes >= 0, "ingest: the cap of dead letters is not negative")
	check(c.IDWindow >= 0 && c.IDWindow < 1<<31, "ingest: an id window of %d offsets; want 0 to 2147483647", c.IDWindow)
	check(c.InsertTimeout > 0 && c.DrainTimeout > 0 && c.IdleCommit > 0 && c.FenceAfter > 0, "ingest: time limits are positive")
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Sink == "" {
		c.Sink = c.Group
	}
	if c.Route == nil {
		c.Route = ParseTopic
	}
	return c
}

// ParseTopic reads a topic name of the form kedge.<namespace>.<kind>.
func ParseTopic(topic string) (Route, bool) {
	rest, ok := strings.CutPrefix(topic, "kedge.")
	at := strings.LastIndexByte(rest, '.')
	if !ok || at < 1 {
		return Route{}, false
	}
	kind, err := event.ParseKind(rest[at+1:])
	return Route{Namespace: rest[:at], Kind: kind}, err == nil
}
