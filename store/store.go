package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Durability says which failure an acknowledged insert survives.
type Durability string

// Durability levels.
const (
	ProcessCrash Durability = "process" // the operating system holds the rows; the default
	PowerLoss    Durability = "power"   // the disk holds them: fsync after each insert
)

// Options hold for both engines.
type Options struct {
	Database   string        // created when missing; never "default"
	Durability Durability    // of tables made from now on
	Retention  time.Duration // of tables made from now on, counted from the broker's append; 0 keeps rows for ever
	Policy     string        // server only: the storage policy of tables of events, whose volumes definitions may name; empty: the server's default
	Cluster    string        // server only: DDL goes ON CLUSTER and tables are Replicated; unproven until run on one
	Timeout    time.Duration // of one insert
	// Outside are the tables that views may read without Kedge storing their rows.
	Outside []OutsideTable
}

// DefaultOptions are the embedded engine's: rows survive a process crash and
// are kept for ever.
func DefaultOptions() Options {
	return Options{Database: "kedge", Durability: ProcessCrash, Timeout: 2 * time.Minute}
}

func (o Options) validate() error {
	var errs []error
	if o.Database == "" || o.Database == "default" {
		errs = append(errs, fmt.Errorf("database %q: want an own one", o.Database))
	}
	if o.Durability != ProcessCrash && o.Durability != PowerLoss {
		errs = append(errs, fmt.Errorf("durability %q: want process or power", o.Durability))
	}
	if o.Retention < 0 || o.Timeout <= 0 {
		errs = append(errs, errors.New("retention must not be negative, the insert timeout must be positive"))
	}
	return errors.Join(errs...)
}

// EmbeddedConfig is how to open the engine inside the process.
type EmbeddedConfig struct {
	Options
	LibPath   string        // libchdb.so
	DataDir   string        // one process at a time
	MaxMemory int64         // bytes the engine may take; 0 is 2 GiB
	Handles   int           // statements at once; 0 is 8
	Volumes   []chdb.Volume // where rows that have aged may be moved to
	Log       *slog.Logger  // what was mended before the engine opened; may be nil
	// Statements is told every statement's text: see [chdb.Config]; may be nil.
	Statements func(sql string)
}

// Store is an open engine with Kedge's tables. Its methods may be called from
// many goroutines.
type Store struct {
	opt      Options
	engine   engine
	embedded *chdb.DB // nil for a server
	conn     driver.Conn
	stop     func() error
	settings map[string]string   // of every insert, but the token
	yielding clickhouse.Settings // of what waits for inserts
	detached bool                // system.detached_tables is there
	buffers  sync.Pool           // of *proto.Buffer: a block's text columns take megabytes

	erasing chan struct{} // holds one while deleted rows are erased

	prepareMu sync.Mutex
	prepared  atomic.Pointer[prepared]

	closeOnce sync.Once
	closeErr  error
}

// prepared are the tables of the schemas seen; it is replaced, never changed.
type prepared struct {
	byName   map[string]*table
	older    map[string]*table        // of views that have a newer version
	bySchema map[*event.Schema]*table // all of these tables
}

// OpenEmbedded opens the engine in a data directory and brings its tables up
// to date. The directory can be open once only: see [chdb.ErrLocked].
func OpenEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	ec := chdb.DefaultConfig()
	ec.LibPath, ec.DataDir, ec.Database, ec.Log, ec.Statements = cfg.LibPath, cfg.DataDir, cfg.Database, cfg.Log, cfg.Statements
	ec.Settings = map[string]string{"max_query_size": "16777216"}
	ec.Objects, ec.Volumes = cfg.objects(), cfg.Volumes
	if cfg.MaxMemory > 0 {
		ec.MaxMemory = cfg.MaxMemory
	}
	if cfg.Handles > 0 {
		ec.Handles = cfg.Handles
	}
	db, err := chdb.Open(ctx, ec)
	if err != nil {
		return nil, err
	}
	s := &Store{opt: cfg.Options, embedded: db, engine: embeddedEngine{db}, erasing: make(chan struct{}, 1)}
	s.opt.Cluster, s.opt.Policy = "", ""
	dial, stop := listenInside(db)
	s.stop = func() error { return errors.Join(stop(), db.Close()) }
	s.conn, err = clickhouse.Open(s.insideOptions(dial, ec.Handles))
	if err == nil {
		err = s.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.Close())
	}
	return s, nil
}

// begin makes an engine that answers ready for use.
func (s *Store) begin(ctx context.Context) error {
	if err := s.readSettings(ctx); err != nil {
		return err
	}
	return s.migrate(ctx)
}

// insideOptions are those of a driver connection without a port.
func (s *Store) insideOptions(dial func(context.Context) (net.Conn, error), conns int) *clickhouse.Options {
	return &clickhouse.Options{
		Protocol:        clickhouse.HTTP,
		Addr:            []string{"localhost:80"}, // a name that no proxy setting of the environment applies to
		Auth:            clickhouse.Auth{Database: s.opt.Database},
		DialContext:     func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) },
		DialTimeout:     30 * time.Second,
		MaxOpenConns:    conns,
		MaxIdleConns:    conns,
		ConnMaxLifetime: 24 * time.Hour,
	}
}

// listenInside serves the engine on a listener without a port.
func listenInside(db *chdb.DB) (dial func(context.Context) (net.Conn, error), stop func() error) {
	pipe := chdb.NewPipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Serve(ctx, pipe, chdb.Access{}) }()
	return pipe.Dial, func() error {
		cancel()
		return errors.Join(pipe.Close(), <-done)
	}
}

// Close cancels what is under way and closes the engine. Closing again does
// nothing.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		if s.conn != nil {
			s.closeErr = s.conn.Close()
		}
		s.closeErr = errors.Join(s.closeErr, s.engine.close(), s.stop())
	})
	return s.closeErr
}

// Ping reports whether the engine answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("reach the store: %w", err)
	}
	return nil
}

// Embedded returns the engine inside the process, or nil: for backups and for
// serving it to others.
func (s *Store) Embedded() *chdb.DB { return s.embedded }

// Schemas returns what [Store.Prepare] was given, by no order.
func (s *Store) Schemas() []*event.Schema {
	var out []*event.Schema
	for _, t := range s.tables() {
		out = append(out, t.schema)
	}
	return out
}

func (s *Store) tables() map[string]*table {
	if p := s.prepared.Load(); p != nil {
		return p.byName
	}
	return nil
}

// tableOf is the table of exactly this schema, or nil.
func (s *Store) tableOf(sc *event.Schema) *table {
	if p := s.prepared.Load(); p != nil {
		return p.bySchema[sc]
	}
	return nil
}

// Code is the ClickHouse error code within an error, or 0.
func Code(err error) int {
	var own *chdb.Error
	if errors.As(err, &own) {
		return own.Code
	}
	var ex *clickhouse.Exception
	if errors.As(err, &ex) {
		return int(ex.Code)
	}
	return 0
}

// Database is the name of the database that holds the tables.
func (s *Store) Database() string { return s.opt.Database }
