// Package broker runs a Kafka-protocol broker inside this process, on disk:
// kfake, of the franz-go project, with what it takes to keep its promises.
//
// Promises, with a data directory: a record that was acknowledged survives the
// end of the process at any moment, and, with SyncWrites, of the machine.
// Offsets of a partition never start again. Old records are deleted, in whole
// segments, by the topics' retention. On a disk that runs full, producing is
// refused with an error that clients repeat, until there is space again.
//
// What kfake does not do by itself, and what makes up for it here:
//   - It ignores the error when a group commit, a producer id or a topic cannot
//     be written on a full disk, and answers success. The broker therefore
//     keeps a reserve of free space: below it produce requests are refused,
//     and below a quarter of it commits, too. Should another program fill the
//     disk within one check (250 ms), a commit can still be lost by a crash;
//     readers take the larger of commit and ledger.
//   - After a torn write to its logs of groups or producer ids, it appends
//     behind the torn entry, and a later start would forget all that follows.
//     Start rewrites such logs with every entry that is whole.
//   - Its own retention looks once an hour, not at all after a restart, and may
//     remove a partition's last record; the partition would then begin at
//     offset 0 again after a restart. It is switched off; see retention.go.
//   - It keeps the producers' sequence numbers of the last clean stop; after a
//     crash they are out of date. They are removed once read: a producer that
//     repeats a batch over a crash may store it twice.
//   - A topic that a client's metadata request creates is not written to disk,
//     and after a crash its records are gone. Such requests create it here, by
//     the way that is written.
//   - A frame of an unknown kind ends the process, and one of any stated length
//     is allocated. Frames are checked before kfake reads them.
//
// What remains: records carry the time that their producer stamped, also in
// topics set to LogAppendTime. A client that sets the append-time bit in a
// batch itself, which no Kafka client does, spoils the rest of its segment.
// A fetch that ends at its request's own size limit, within a partition, does
// not say which transactions were aborted (this repository's client lets the
// partitions' limits end it). A cleanup.policy of compact is accepted and nothing is compacted. Memory
// grows by about 100 bytes per stored batch. All requests pass one goroutine.
package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where the broker listens and what it keeps.
type Config struct {
	Addr      string // host:port to listen on; port 0 picks a free one; 127.0.0.1:0 when empty
	Advertise string // host:port that clients are told; the listening address when empty
	DataDir   string // empty: memory only

	DefaultPartitions int   // of topics that do not say; 4 when zero
	RetentionMS       int64 // of topics that do not say; 3 days when zero, −1 for ever
	RetentionBytes    int64 // of a topic of DefaultPartitions, likewise; 2 GB when zero, −1 without bound
	SegmentBytes      int64 // retention deletes in such pieces, and a start reads one per partition at a time; 8 MiB when zero
	MaxMessageBytes   int   // largest batch; 16 MiB when zero
	SyncWrites        bool  // fsync every batch: survives power loss, at a price
	// MinSession is the shortest session that members of groups may ask for; 6 s
	// when zero.
	MinSession time.Duration
	// How long a client that connects may take to begin its first request (10 s
	// when zero), and how long one that begins a request may take to send all of
	// it (5 minutes when zero).
	HelloTimeout, FrameTimeout time.Duration
	AutoCreateTopics           bool // a client that asks for a missing topic creates it

	ReserveBytes int64         // free space kept on the disk; the smaller of 256 MiB and a twentieth of it when zero, none when negative
	Sweep        time.Duration // how often retention is looked at; 1 minute when zero
	Logger       *slog.Logger  // nil discards

	// TLS is spoken with clients outside of this process; nil: plain text.
	TLS *tls.Config `json:"-"`
	// Guard has clients authenticate with SASL/PLAIN; nil: whoever connects may
	// do everything.
	Guard Guard `json:"-"`
}

func (c Config) withDefaults() Config {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.DefaultPartitions == 0 {
		c.DefaultPartitions = 4
	}
	if c.RetentionMS == 0 {
		c.RetentionMS = (3 * 24 * time.Hour).Milliseconds()
	}
	if c.RetentionBytes == 0 {
		c.RetentionBytes = 2_000_000_000
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 8 << 20
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 16 << 20
	}
	if c.Sweep == 0 {
		c.Sweep = time.Minute
	}
	c.HelloTimeout = cmp.Or(c.HelloTimeout, 10*time.Second)
	c.FrameTimeout = cmp.Or(c.FrameTimeout, 5*time.Minute)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Broker is a running broker.
type Broker struct {
	cfg     Config
	cluster *kfake.Cluster
	addr    string
	// listening is where this process reaches it, whatever clients are told
	listening string
	listener  *listener
	space     *space
	stop      context.CancelFunc
	running   sync.WaitGroup
	once      sync.Once
}

// Start starts a broker and returns when it accepts connections. A taken
// address is an error that names it.
func Start(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if cfg.DataDir != "" {
		if err := prepare(cfg); err != nil {
			return nil, fmt.Errorf("start the embedded broker: %w", err)
		}
	}
	l, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, addr: l.Addr().String(), listening: l.Listener.Addr().String(), listener: l}
	if cfg.Guard != nil {
		l.users = newPrincipals(b.grant)
	}
	if b.cluster, err = load(cfg, l); err != nil {
		l.Close()
		return nil, fmt.Errorf("start the embedded broker on %s with data in %s: %w", cfg.Addr, cfg.DataDir, err)
	}
	if err := b.keep(l); err != nil {
		b.Close()
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	return b, nil
}

// load starts kfake, which reads every segment of its directory: garbage is
// collected early meanwhile, and its memory given back.
func load(cfg Config, l *listener) (*kfake.Cluster, error) {
	if cfg.DataDir != "" {
		defer debug.FreeOSMemory()
		defer debug.SetGCPercent(debug.SetGCPercent(20))
	}
	return kfake.NewCluster(options(cfg, l)...)
}

// prepare repairs what a crash left.
func prepare(cfg Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return err
	}
	notes, err := repair(cfg.DataDir)
	for _, n := range notes {
		cfg.Logger.Warn("embedded broker repaired its data", "what", n)
	}
	if err != nil {
		return err
	}
	// A start makes its own users and says what they may do.
	for _, file := range []string{"acls.json", "sasl.json"} {
		if err := removeIfThere(filepath.Join(cfg.DataDir, file)); err != nil {
			return err
		}
	}
	return takeSnapshots(cfg.DataDir)
}

// keep starts what watches over the broker.
func (b *Broker) keep(l *listener) error {
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	if b.cfg.DataDir != "" {
		if err := removeIfThere(filepath.Join(b.cfg.DataDir, sequencesFile)); err != nil {
			return err
		}
	}
	if b.cfg.DataDir != "" && b.cfg.ReserveBytes >= 0 {
		b.space = newSpace(b.cfg, b.cluster)
		if err := b.space.look(); err != nil {
			return err
		}
		b.running.Go(func() { b.space.run(ctx) })
	}
	b.running.Go(func() { b.sweep(ctx) })
	if b.cfg.AutoCreateTopics {
		l.create.Store(&creator{b.cluster})
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func options(cfg Config, l *listener) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(l.only),
		// A directory keeps the id it was created with: a fresh one is another
		// cluster, whose offsets mean something else.
		kfake.ClusterID(fmt.Sprintf("kedge-%016x", rand.Uint64())),
		kfake.DefaultNumPartitions(cfg.DefaultPartitions),
		kfake.WithLogger(logger{cfg.Logger}),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":          strconv.FormatInt(cfg.RetentionMS, 10),
			"log.retention.bytes":       strconv.FormatInt(cfg.partitionBytes(), 10),
			"log.segment.bytes":         strconv.FormatInt(cfg.SegmentBytes, 10),
			"message.max.bytes":         strconv.Itoa(cfg.MaxMessageBytes),
			"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60),
			"log.cleaner.backoff.ms":    strconv.Itoa(10 * 365 * 24 * 3600 * 1000), // kfake's own retention: never
		}),
	}
	if cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.MinSession > 0 {
		opts = append(opts, kfake.GroupMinSessionTimeout(cfg.MinSession))
	}
	if l.users != nil {
		opts = append(opts, l.users.options()...)
	}
	return opts
}

// Private reports whether this process's own clients have to use [Broker.Dial],
// with [Broker.Credentials].
func (b *Broker) Private() bool { return b.cfg.TLS != nil || b.cfg.Guard != nil }

// Dial connects from within this process, whatever the address: without TLS,
// by sockets that nobody else can reach.
func (b *Broker) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return b.listener.dial(ctx)
}

// Credentials are the user and password of this process itself for
// connections of [Broker.Dial]; empty where none are asked for.
func (b *Broker) Credentials() (user, password string) {
	if b.listener.users == nil {
		return "", ""
	}
	return owner, b.listener.users.secret
}

// Addr returns the address that clients connect to.
func (b *Broker) Addr() string { return b.addr }

// Status is what the broker says of itself.
type Status struct {
	FreeBytes int64 // on the data's disk; −1 in memory
	Refusing  bool  // the reserve of free space is used up: producing is refused until there is space
}

// Status reports the state of the disk as it was at most 250 ms ago.
func (b *Broker) Status() Status {
	if b.space == nil {
		return Status{FreeBytes: -1}
	}
	return Status{FreeBytes: b.space.free.Load(), Refusing: b.space.low.Load()}
}

// Close stops the broker and writes its state. Closing again does nothing.
func (b *Broker) Close() {
	b.once.Do(func() {
		b.stop()
		b.running.Wait()
		b.cluster.Close()
		if b.cfg.Guard != nil && b.cfg.DataDir != "" {
			_ = removeIfThere(filepath.Join(b.cfg.DataDir, "sasl.json")) // good for nothing: the next start makes others
		}
	})
}

// logger passes on what kfake says.
type logger struct{ log *slog.Logger }

// Level asks for warnings and errors.
func (logger) Level() kfake.LogLevel { return kfake.LogLevelWarn }

// Logf writes a line.
func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelWarn
	if level == kfake.LogLevelError {
		to = slog.LevelError
	}
	l.log.Log(context.Background(), to, fmt.Sprintf(format, args...), "from", "kfake")
}
