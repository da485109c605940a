package ingest_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// childEnv makes this test binary a process of the tests' own: a broker, a
// store, a consumer, or several of them in one.
const childEnv = "KEDGE_INGEST_CHILD"

// job is what a child is told.
type job struct {
	Broker     string // address to serve the broker at
	Brokers    string // address of a broker elsewhere
	BrokerDir  string
	Lib        string // libchdb.so
	StoreDir   string
	StoreAddr  string // address to serve the store at
	StoreDSN   string // store elsewhere
	Ingest     *jobConfig
	Audit      bool
	Own        *ownJob
	Partitions int
	Retention  int64  // bytes a topic keeps; 0: everything
	Flushes    string // file that the preloaded injector notes flushed files in; "": none
}

// jobConfig is what tests change of a consumer.
type jobConfig struct {
	Group    string
	Guards   ingest.Guards
	MinDelay time.Duration
	MaxRows  int
	Fence    time.Duration
	Insert   time.Duration
	Session  time.Duration
	Power    bool
	Window   int64
	Faults   bool // writes of the engine fail now and then, through the preloaded injector
	Settle   bool // wait for the engine's merges at the end, and say how it stands
}

func childMain(text string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func (j *job) run(ctx context.Context) (err error) {
	if j.Broker != "" {
		cfg := broker.Config{Addr: j.Broker, DataDir: j.BrokerDir, DefaultPartitions: j.Partitions, MinSession: time.Second, RetentionBytes: -1}
		if j.Retention > 0 {
			cfg.RetentionBytes, cfg.SegmentBytes, cfg.Sweep = j.Retention, 16<<10, 50*time.Millisecond
		}
		b, err := broker.Start(cfg)
		if err != nil {
			return err
		}
		defer b.Close()
		j.Brokers = b.Addr()
	}
	var s *store.Store
	opt := store.DefaultOptions()
	if j.Flushes != "" {
		noteFlushes(j.Flushes)
	}
	if j.Ingest != nil && j.Ingest.Power {
		opt.Durability = store.PowerLoss
	}
	switch {
	case j.StoreDir != "":
		s, err = store.OpenEmbedded(ctx, store.EmbeddedConfig{Options: opt, LibPath: j.Lib, DataDir: j.StoreDir})
	case j.StoreDSN != "":
		s, err = store.OpenServer(ctx, j.StoreDSN, store.DefaultOptions())
	}
	if err != nil {
		return unlessStopped(ctx, err)
	}
	if s != nil {
		defer s.Close()
	}
	switch {
	case j.Audit:
		return j.audit(ctx, s)
	case j.Own != nil:
		return j.Own.run(ctx, s)
	case j.StoreAddr != "":
		return j.serveStore(ctx, s)
	case j.Ingest != nil:
		return j.ingest(ctx, s)
	}
	say("ready")
	<-ctx.Done()
	return nil
}

func say(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(b, '\n'))
}

func (j *job) serveStore(ctx context.Context, s *store.Store) error {
	l, err := net.Listen("tcp", j.StoreAddr)
	if err != nil {
		return err
	}
	say("ready")
	return s.Embedded().Serve(ctx, l, chdb.Access{})
}

// unlessStopped is an error of a start, which is none of a child that was told
// to stop meanwhile: it has nothing to drain.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (j *job) ingest(ctx context.Context, s *store.Store) error {
	client, err := stream.NewClient(stream.Config{Brokers: strings.Split(j.Brokers, ","), RequestTimeout: 5 * time.Second})
	if err != nil {
		return unlessStopped(ctx, err)
	}
	defer client.Close()
	log, err := client.OpenLog(ctx, "kedge.registry")
	if err != nil {
		return unlessStopped(ctx, err)
	}
	reg, err := registry.Open(ctx, log)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	scope := telemetry.Discard()
	scope.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg := j.Ingest.config()
	cfg.OwnStore = j.StoreDSN == ""
	c, err := ingest.New(cfg, client, reg, s, scope)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	c.Without(j.Ingest.Guards)
	if j.Ingest.Faults {
		go failWrites(ctx)
	}
	say("ready")
	if !j.Ingest.Settle {
		return runConsumer(ctx, reg, c)
	}
	peak := watchMemory()
	err = runConsumer(ctx, reg, c)
	ctx = context.WithoutCancel(ctx)
	st, wrong := standingOf(ctx, s, "features_[0-9]+")
	say(st)
	return errors.Join(err, wrong, settled(ctx, s, "features_[0-9]+", peak()))
}

func (c *jobConfig) config() ingest.Config {
	cfg := ingest.DefaultConfig()
	cfg.IDWindow, cfg.Sink = c.Window, "kedge"
	cfg.Session, cfg.Heartbeat, cfg.Rebalance = 2*time.Second, 300*time.Millisecond, 5*time.Second
	for _, set := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&cfg.MinDelay, c.MinDelay}, {&cfg.FenceAfter, c.Fence}, {&cfg.InsertTimeout, c.Insert}, {&cfg.Session, c.Session}} {
		if set.from > 0 {
			*set.to = set.from
		}
	}
	if c.Group != "" {
		cfg.Group = c.Group
	}
	if c.MaxRows > 0 {
		cfg.MaxRows = c.MaxRows
	}
	cfg.PowerLoss = c.Power
	cfg.IdleCommit = 300 * time.Millisecond
	return cfg
}

// runConsumer runs both until ctx ends, and says how it is doing.
func runConsumer(ctx context.Context, reg *registry.Registry, c *ingest.Consumer) error {
	following, unfollow := context.WithCancel(context.Background())
	defer unfollow()
	var g errgroup.Group
	g.Go(func() error { return reg.Run(following) })
	done := make(chan struct{})
	g.Go(func() error {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			say(c.Status())
			select {
			case <-tick.C:
			case <-done:
				return nil
			}
		}
	})
	err := c.Run(ctx)
	close(done)
	unfollow()
	return errors.Join(err, g.Wait())
}

// found is what an audit says: the sums of every place, and what the ledger
// audit found wrong.
type found struct {
	Places   []foundPlace
	Audit    []store.PartitionAudit
	Findings []store.Finding
}

type foundPlace struct {
	place
	sums
}

func (j *job) audit(ctx context.Context, s *store.Store) error {
	var f found
	var err error
	if f.Audit, f.Findings, err = s.AuditLedger(ctx, "", time.Time{}); err != nil {
		return err
	}
	tables, err := selectLines(ctx, s, "SELECT name FROM system.tables WHERE database = 'kedge' AND match(name, '^(features|predictions|labels)_[0-9]+$')")
	if err != nil {
		return err
	}
	for _, row := range append(tables, map[string]any{"name": "dead_letters"}) {
		if err := f.table(ctx, s, row["name"].(string)); err != nil {
			return err
		}
	}
	say(f)
	return nil
}

func (f *found) table(ctx context.Context, s *store.Store, name string) error {
	number, offset, partition, label := "toUInt64(v_n)", "_offset", "_partition", "'"+name+"'"
	switch {
	case name == "dead_letters":
		number, offset, partition, label = "toUInt64(0)", "offset", "partition", "concat('dead_letters/', topic)"
	case len(name) > 6 && name[:6] == "labels":
		number = "toUInt64(label)"
	}
	rows, err := selectLines(ctx, s, fmt.Sprintf(`SELECT %[4]s AS t, %[3]s AS p, intDiv(%[2]s, %[5]d) AS b, toString(count()) AS c, toString(sum(h)) AS s, toString(groupBitXor(h)) AS x
FROM (SELECT *, %[1]s * toUInt64(%[6]d) + toUInt64(%[2]s) * toUInt64(%[7]d) AS h FROM kedge.%[8]s) GROUP BY t, p, b`,
		number, offset, partition, label, bucketSize, uint64(hashN), uint64(hashOffset), name))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, r := range rows {
		var p foundPlace
		p.Table = r["t"].(string)
		_, err := fmt.Sscan(fmt.Sprint(r["p"], " ", r["b"], " ", r["c"], " ", r["s"], " ", r["x"]), &p.Partition, &p.Bucket, &p.Count, &p.Sum, &p.Xor)
		if err != nil {
			return fmt.Errorf("%s: sums %v: %w", name, r, err)
		}
		f.Places = append(f.Places, p)
	}
	return nil
}

// selectLines asks the engine itself, not the store's own questions.
func selectLines(ctx context.Context, s *store.Store, sql string) ([]map[string]any, error) {
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(s.Embedded().Query(ctx, chdb.Statement{SQL: sql, Settings: map[string]string{"output_format_json_quote_64bit_integers": "1"}}, "JSONEachRow",
			func(b []byte) error { _, err := w.Write(b); return err }))
	}()
	var out []map[string]any
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var row map[string]any
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, lines.Err()
}

func (w *world) storePath() string { return filepath.Join(cmp.Or(w.storeDir, w.dir), "store") }
