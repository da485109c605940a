package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/alerts/push"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/ingest/pair"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
	"github.com/kedge-ml/kedge/trainer/mlflow"
)

// App is one running process. New claims what only one process can have (the
// data directory and the ports), Run opens and runs the parts.
type App struct {
	cfg     Config
	version string
	started time.Time
	tel     *telemetry.Telemetry
	sc      telemetry.Scope
	dir     *dataDir
	ln      net.Listener
	state   atomic.Pointer[handler] // what answers HTTP: first a gate, then the API

	brokers   []string
	broker    *broker.Broker // nil with outside brokers
	client    *stream.Client
	producer  *stream.Producer
	store     *store.Store
	registry  *registry.Registry
	keys      *auth.Keys
	door      *auth.Gate
	journal   *auth.Journal
	auditLog  *stream.Log
	tls       *tls.Config      // of HTTP and gRPC; nil: plain
	mux       *web.Mux         // of the HTTP port, once it is ready
	admin     net.Listener     // nil without one
	consumer  *ingest.Consumer // nil without the role ingest
	pairer    *pair.Pairer     // as the consumer
	features  *featureStore    // nil without the role features
	artifacts *model.Library   // opened by the first that needs it
	serving   *modelServer     // nil without the role serving
	runs      *mlflow.Store    // nil without the role trainer
	trainer   *modelTrainer    // nil without the role trainer, or without rows and features to train from
	drift     *drift.Scheduler // nil without the role drift
	pusher    *push.Pusher     // nil where nobody wants to be told of alerts
	ports     []storePort
	audit     audit
	policies  policyBook

	live   atomic.Pointer[Config] // cfg with what was reloaded since
	opened atomic.Bool

	statements func(sql string) // is told what the engine is told; nil: nobody is

	closers []closer // what is open, in opening order
}

type handler struct{ http.Handler }

type closer struct {
	name  string
	close func() error
}

// New checks the configuration and claims the data directory and the HTTP
// port. Log lines go to logTo.
func New(ctx context.Context, cfg Config, version string, logTo io.Writer) (*App, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	host, _ := os.Hostname() // only a name in telemetry
	tel, err := telemetry.New(ctx, telemetry.Config{
		LogFormat: cfg.Telemetry.LogFormat, LogLevel: cfg.Telemetry.LogLevel, LogTo: logTo,
		OTLPEndpoint: cfg.Telemetry.OTLP, OTLPClient: cfg.outbound(10*time.Second, cfg.Telemetry.OTLP).Client(), SampleRatio: cfg.Telemetry.SampleRatio,
		Service: "kedge", Version: version, Instance: fmt.Sprintf("%s-%d", host, os.Getpid()),
	})
	if err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, version: version, started: time.Now(), tel: tel, sc: tel.Scope("app")}
	a.live.Store(&cfg)
	a.onClose("telemetry", func() error {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		return tel.Close(flush)
	})
	if err := a.claim(); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// claim takes the directory and the port, so that a second process fails
// before it has started anything.
func (a *App) claim() (err error) {
	if a.dir, err = openDataDir(a.cfg.DataDir); err != nil {
		return err
	}
	a.onClose("data directory", a.dir.Close)
	if err := a.erasureKey(); err != nil {
		return err
	}
	if t := a.cfg.HTTP.TLS; t.CertFile != "" {
		if a.tls, err = web.ServerTLS(t.CertFile, t.KeyFile, t.ClientCA); err != nil {
			return fmt.Errorf("http.tls: %w", err)
		}
	}
	if a.ln, err = web.Listen("HTTP", a.cfg.HTTP.Listen); err != nil {
		return err
	}
	return a.claimAdmin()
}

// Addr is where HTTP is served.
func (a *App) Addr() string { return a.ln.Addr().String() }

// Brokers are the Kafka addresses in use, once Run has opened them.
func (a *App) Brokers() []string { return a.brokers }

func (a *App) onClose(name string, f func() error) {
	a.closers = append(a.closers, closer{name, f})
}

// close closes what is open, newest first.
func (a *App) close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.name, err))
		}
	}
	a.closers = nil
	return errors.Join(errs...)
}

// Run opens the parts in order, runs them until ctx ends or one fails, and
// closes them in reverse. It returns nil after a drained stop.
func (a *App) Run(ctx context.Context) error {
	a.state.Store(&handler{a.gate()})
	front, stopFront := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFront()
	served := make(chan error, 1)
	go func() { served <- a.serve(front) }()

	err := a.open(ctx)
	if err == nil {
		release := web.HoldHeap(web.HeapFloor) // not before: the broker opens with collections of its own
		err = a.run(ctx, served)
		release()
	}
	a.state.Store(&handler{a.gate()}) // not ready while closing
	stopFront()
	select {
	case serveErr := <-served:
		err = errors.Join(err, serveErr)
	case <-time.After(time.Duration(a.cfg.Drain)):
		err = errors.Join(err, errors.New("HTTP did not stop in time"))
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop while opening
	}
	return errors.Join(err, a.close())
}

// serve answers HTTP with whatever the state is.
func (a *App) serve(ctx context.Context) error {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.state.Load().ServeHTTP(w, r) })
	lim := web.Limits{
		Header: time.Duration(a.cfg.HTTP.HeaderTimeout),
		Body:   time.Duration(a.cfg.HTTP.BodyTimeout),
		Write:  time.Duration(a.cfg.HTTP.BodyTimeout) + time.Duration(a.cfg.HTTP.QueryTimeout),
		Plain:  slices.Concat(features.PlainPaths(), serving.PlainPaths()),
	}
	return web.Serve(ctx, web.OverTLS(a.ln, a.tls), a.fronted(h), lim, time.Duration(a.cfg.Drain)/2, a.tel.Scope("http").Log)
}

// run runs the open parts until ctx ends or one of them fails.
func (a *App) run(ctx context.Context, served <-chan error) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	a.opened.Store(true)
	defer a.opened.Store(false)
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			err := run(ctx)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if ctx.Err() == nil {
				return fmt.Errorf("%s stopped by itself", name)
			}
			return nil
		})
	}
	stopRegistry := a.background(ctx, part, "registry", a.registry.Run)
	a.runAuth(part)
	defer stopRegistry() // ingest needs it until it has drained
	if a.consumer != nil {
		part("ingest", a.consumer.Run)
		part("conversions", a.runConversions)
		part("pairs", a.pairer.Run)
	}
	if a.store != nil {
		part("definitions", a.followDefinitions)
		part("audit", a.runAudit)
	}
	a.runRooms(part)
	for _, p := range a.ports {
		part(p.name, func(ctx context.Context) error { return a.store.Embedded().Serve(ctx, p.ln, p.access) })
	}
	if a.cfg.Demo.Enabled {
		part("demo", a.runDemo)
	}
	part("http", func(ctx context.Context) error {
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	a.state.Store(&handler{api})
	a.sc.Log.Info("ready", "http", a.scheme()+"://"+a.Addr(), "kafka", a.brokers, "roles", a.cfg.Roles, "took", time.Since(a.started).Round(time.Millisecond))
	return g.Wait()
}

// background runs something that others need until they have stopped: it ends
// by the function returned, not by ctx. Its failure is a part's failure.
func (a *App) background(ctx context.Context, part func(string, func(context.Context) error), name string, run func(context.Context) error) (stop func()) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	failed, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		if err := run(own); err != nil && own.Err() == nil {
			failed <- err
		}
	}()
	part(name, func(ctx context.Context) error {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return func() {
		cancel()
		<-done
	}
}

// hasRole reports whether this process takes a role.
func (a *App) hasRole(role string) bool { return slices.Contains(a.cfg.Roles, role) }

// libraryPath finds the engine's library: where the configuration says, beside
// the binary as the released archive has it, or where `make deps` put it.
func (a *App) libraryPath() (string, error) {
	if p := a.cfg.ClickHouse.Library; p != "" {
		return p, nil
	}
	var looked []string
	for _, p := range libraryPlaces() {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		looked = append(looked, p)
	}
	return "", fmt.Errorf("the embedded engine's library is in none of %v: run `make deps`, set clickhouse.library, or use a server with --clickhouse", looked)
}

func libraryPlaces() []string {
	if p := os.Getenv("KEDGE_LIBCHDB"); p != "" {
		return []string{p}
	}
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	inDeps := filepath.Join(".deps", "chdb", "node_modules", "@chdb", "lib-"+runtime.GOOS+"-"+arch+"-gnu", "libchdb.so")
	out := []string{inDeps}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			root := filepath.Dir(filepath.Dir(exe)) // bin/kedge
			out = append(out, filepath.Join(root, "lib", "libchdb.so"), filepath.Join(root, inDeps))
		}
	}
	return out
}
