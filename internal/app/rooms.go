package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/serving/ort"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/trainer"
	"github.com/kedge-ml/kedge/trainer/mlflow"
)

// featureStore is what the role features runs: the online tables, the tail
// that keeps them fresh, and the HTTP that is asked for them.
type featureStore struct {
	online  *features.Online
	tail    *features.Tail
	server  *features.Server
	keeper  *features.LatestKeeper // as the monitor
	monitor *features.Monitor      // nil without a store to recompute from
	deleter *features.Deleter      // as the monitor
	served  *features.ServedLog
	feast   net.Listener // a port of its own for Feast clients; nil without one
}

// openFeatures prepares the feature store. Its tables are filled while it
// runs: from the store where this process has one, else from the topics.
func (a *App) openFeatures(context.Context) (err error) {
	if !a.hasRole("features") {
		return nil
	}
	sc := a.tel.Scope("features")
	shared, err := a.sharedStore(sc)
	if err != nil {
		return err
	}
	f := &featureStore{online: features.NewOnlineIn(shared)}
	cfg := features.TailConfig{Namespaces: []string{a.cfg.Namespace}, Decoder: a.cfg.decoder(), Scope: sc}
	cfg.HashKey = a.hashKey()
	if cfg.Schemas, err = a.schemas(); err != nil {
		return err
	}
	if a.store != nil {
		partitions := func(ctx context.Context, topic string) (int, error) {
			n, err := a.client.Partitions(ctx, topic)
			return n[topic], err
		}
		cfg.Latest = features.LatestFrom(a.store, a.firstOffsets, 0, func() int64 { return time.Now().UnixMicro() })
		cfg.Stored = func(ctx context.Context, topic string) (map[int32]int64, error) {
			n, err := partitions(ctx, topic)
			if err != nil {
				return nil, err
			}
			return a.store.LatestOffsets(ctx, topic, n)
		}
		cfg.Events = features.EventsFrom(a.store, partitions, 0)
		f.keeper = features.NewLatestKeeper(f.online, cfg.Events, sc)
		delay := time.Duration(a.cfg.Features.Served.Delay)
		f.monitor = features.NewMonitor(features.MonitorConfig{Namespaces: cfg.Namespaces, Delay: delay, Every: min(delay, 10*time.Second), Scope: sc}, f.online, a.store)
	}
	f.tail = features.NewTail(cfg, a.client, a.registry, f.online)
	w := features.NewWriter(a.client, a.producer, f.tail)
	if a.store != nil {
		f.deleter = features.NewDeleter(f.online, cfg.Events, w, sc)
	}
	served := a.cfg.Features.Served
	if served.Share == 0 {
		served.Share = -1 // to the room zero is its default
	}
	f.served = features.NewServedLog(features.ServedConfig{Share: served.Share, ByRequest: served.By == "request", Scope: sc}, a.producer)
	server := a.cfg.Features.server(f.served, sc)
	server.Hides = a.hidesFeatures
	if f.server, err = features.NewServer(server, f.online, w, f.tail.Ready); err != nil {
		return err
	}
	if a.cfg.HTTP.Feast != "" {
		if f.feast, err = web.Listen("Feast", a.cfg.HTTP.Feast); err != nil {
			return err
		}
		a.onClose("Feast port", func() error { _ = f.feast.Close(); return nil }) // closed already where it was served
	}
	a.features = f
	return nil
}

// sharedStore is where a fleet keeps its online rows; nil: in memory.
func (a *App) sharedStore(sc telemetry.Scope) (*features.SharedStore, error) {
	o := &a.cfg.Features.Online
	if len(o.Addresses) == 0 {
		return nil, nil
	}
	cfg := features.SharedConfig{Addresses: o.Addresses, Username: o.Username, Prefix: o.Prefix, Timeout: time.Duration(o.Timeout), Scope: sc}
	cfg.Password = func() (string, error) { return string(o.Password), nil }
	if o.PasswordFile != "" {
		cfg.Password = func() (string, error) {
			text, err := os.ReadFile(o.PasswordFile)
			if err != nil {
				return "", fmt.Errorf("features.online.password_file: %w", err)
			}
			return strings.TrimRight(string(text), "\r\n"), nil
		}
		if _, err := cfg.Password(); err != nil {
			return nil, err
		}
	}
	var err error
	if o.TLS.Enabled {
		if cfg.TLS, err = o.TLS.config(); err != nil {
			return nil, fmt.Errorf("features.online.tls: %w", err)
		}
	}
	s := features.NewSharedStore(cfg)
	a.onClose("shared online store", func() error { s.Close(); return nil })
	return s, nil
}

// server is how features are asked for.
func (c *FeaturesConfig) server(served *features.ServedLog, sc telemetry.Scope) features.ServerConfig {
	l := c.Limits
	return features.ServerConfig{Served: served, Scope: sc, MaxPush: int64(l.Push),
		Limits: features.Limits{MaxEntities: l.Entities, MaxFeatures: l.Features, MaxValues: l.Values, MaxBody: int64(l.Body)}}
}

// firstOffsets are the first offsets that a topic still holds, by partition.
func (a *App) firstOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	n, err := a.client.Partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	var tps []stream.TopicPartition
	for p := range n[topic] {
		tps = append(tps, stream.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	offsets, err := a.client.Offsets(ctx, tps...)
	out := map[int32]int64{}
	for tp, o := range offsets {
		out[tp.Partition] = o.First
	}
	return out, err
}

// modelServer is what the role serving runs.
type modelServer struct {
	server    *serving.Server
	follower  *serving.Follower
	guard     *serving.Guard
	artifacts *model.Library
	bundle    *Bundle // the one that is served alone; nil: what deployments say
	grpc      *grpc.Server
	port      net.Listener // nil without gRPC
}

// artifactsDir is the folder of artefacts within the data directory.
const artifactsDir = "artifacts"

func (a *App) openServing(context.Context) (err error) {
	if !a.hasRole("serving") {
		return nil
	}
	m := &modelServer{}
	if m.artifacts, err = a.library(); err != nil {
		return err
	}
	cfg := serving.DefaultConfig()
	if m.bundle, err = a.packagedModel(); err != nil {
		return err
	}
	if m.bundle != nil {
		cfg.Only = m.bundle.Model
	}
	cfg.Namespace, cfg.Drain = a.cfg.Namespace, time.Duration(a.cfg.Drain)/2
	if cfg.ONNX, err = a.onnx(); err != nil {
		return err
	}
	if f := a.features; f != nil {
		cfg.Features = serving.NewFeatures(f.online, a.registry, a.cfg.Namespace, f.tail.Ready)
	}
	cfg.Hides = a.hidesInputs
	cfg.Denied = func(ctx context.Context, what, target string) {
		a.refused(ctx, auth.From(ctx), auth.EventWrite, what, target)
	}
	m.server = serving.NewServer(cfg, a.producer, a.tel.Scope("serving").Log)
	if err := m.server.Observe(a.tel.Scope("serving").Meter); err != nil {
		return err
	}
	m.server.Trace(a.tel.Scope("serving").Tracer)
	if a.cfg.Telemetry.TritonNames {
		if err := m.server.ObserveAsTriton(a.tel.Scope("serving").Meter); err != nil {
			return err
		}
	}
	m.follower = serving.NewFollower(m.server, a.registry, m.artifacts)
	m.guard = serving.NewGuard(m.server, a.registry, a.facts())
	if a.cfg.GRPC != "" {
		if m.port, err = web.Listen("gRPC", a.cfg.GRPC); err != nil {
			return err
		}
		m.grpc = serving.NewGRPC(m.server, a.grpcOptions()...)
		a.onClose("gRPC port", func() error { _ = m.port.Close(); return nil }) // closed already where it was served
	}
	a.serving = m
	return nil
}

// onnx says how native models run: this binary is their process. Without the
// library they are refused when they are deployed, and all else works.
func (a *App) onnx() (ort.Config, error) {
	cfg, err := onnxConfig()
	if errors.Is(err, ort.ErrNoLibrary) {
		a.tel.Scope("serving").Log.Debug("ONNX models cannot be served", "reason", err)
		err = nil
	}
	return cfg, err
}

// onnxConfig is how this binary runs native models.
func onnxConfig() (ort.Config, error) {
	cfg := ort.DefaultConfig()
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0] // a root without /proc
	}
	root, err := os.Getwd()
	if err != nil {
		return cfg, fmt.Errorf("ONNX Runtime: %w", err)
	}
	cfg.Command = []string{self, "onnx-worker"}
	cfg.Library, err = ort.Find("", root)
	return cfg, err
}

// ONNXWorker is the process in which ONNX Runtime computes one model.
func ONNXWorker(in io.Reader, out io.Writer) error {
	if status := ort.WorkerMain(in, out); status != 0 {
		return fmt.Errorf("onnx-worker ended with status %d", status)
	}
	return nil
}

// maxArtifact bounds one file that an MLflow client uploads.
const maxArtifact = 4 << 30

// openRuns opens the record of training runs that MLflow clients write to.
func (a *App) openRuns(context.Context) error {
	if !a.hasRole("trainer") {
		return nil
	}
	dir := a.dir.Sub("mlflow")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	a.onClose("run folder", root.Close)
	cfg := mlflow.Config{Namespace: a.cfg.Namespace, Models: trainer.NewModels(a.registry), Store: a.store, Log: a.tel.Scope("mlflow").Log}
	if cfg.Artifacts, err = a.library(); err != nil {
		return err
	}
	if a.runs, err = mlflow.Open(cfg, root); err != nil {
		return err
	}
	a.onClose("runs", a.runs.Close)
	return nil
}

// runRooms starts what the roles features and serving run.
func (a *App) runRooms(part func(string, func(context.Context) error)) {
	if f := a.features; f != nil {
		part("features", f.tail.Run)
		part("served vectors", f.served.Run)
		if f.monitor != nil {
			part("consistency", func(ctx context.Context) error { return f.monitor.Run(ctx, a.client) })
			part("latest state", f.keeper.Run)
			part("deleted entities", f.deleter.Run)
		}
		if f.feast != nil {
			part("feast", a.serveFeast)
		}
	}
	if a.drift != nil {
		part("drift", a.runDrift)
	}
	if a.runs != nil {
		part("runs", a.runs.Run)
	}
	if a.cfg.Artifacts.S3.Bucket != "" && a.artifacts != nil {
		part("artefacts", a.pushArtifacts)
	}
	if a.trainer != nil {
		part("trainer", a.runTrainer)
	}
	if a.pusher != nil {
		part("alerts", a.runAlerts)
	}
	if m := a.serving; m != nil {
		part("predictions", m.server.Run)
		part("outcomes", m.server.RunOutcomes)
		part("deployments", m.follower.Run)
		if m.bundle != nil {
			part("packaged model", a.runBundle)
		}
		part("guard-rails", m.guard.Run)
		if m.port != nil {
			part("grpc", m.serve)
		}
	}
}

func (a *App) serveFeast(ctx context.Context) error {
	mux, _ := a.newMux()
	for _, path := range a.features.server.Paths() {
		mux.Handle(path, a.features.server)
	}
	h, err := a.guarded(mux)
	if err != nil {
		return err
	}
	lim := web.Limits{Header: time.Duration(a.cfg.HTTP.HeaderTimeout), Body: time.Duration(a.cfg.HTTP.BodyTimeout), Write: 2 * time.Duration(a.cfg.HTTP.BodyTimeout), Plain: features.PlainPaths()}
	return web.Serve(ctx, web.OverTLS(a.features.feast, a.tls), a.fronted(h), lim, time.Duration(a.cfg.Drain)/2, a.tel.Scope("feast").Log)
}

// serve answers gRPC until ctx ends, then lets the calls under way finish.
func (m *modelServer) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, m.grpc.GracefulStop)
	defer stop()
	return m.grpc.Serve(m.port)
}

// mountRooms adds the routes of the features and serving rooms.
func (a *App) mountRooms(api *web.API, runs []mlflow.Route) {
	if f := a.features; f != nil {
		for _, path := range f.server.Paths() {
			api.Mux.Handle(path, f.server)
		}
		if a.store != nil {
			sc := a.tel.Scope("features")
			h := features.NewHistory(features.HistoryConfig{Memory: int64(a.cfg.Features.History.Memory)}, f.online, a.store)
			api.Mux.Handle(features.HistoryPath, &features.HistoryHandler{History: h, Hides: a.hidesFeatures, Scope: sc})
			a.deleteRoutes(api)
			a.erasureRoutes(api)
		}
	}
	for _, r := range runs {
		api.Mux.Handle(r.Pattern, r.Handler)
	}
	if a.trainer != nil {
		a.trainerRoutes(api)
		a.promoteRoutes(api)
	}
	if m := a.serving; m != nil {
		a.rolloutRoutes(api)
		for i, r := range serving.Routes(m.server) {
			api.Mux.Handle(r.Pattern, r.Handler)
			documentRoute(api.OpenAPI(), i, r)
		}
	}
}

// featuresHealth says how far the online tables are.
func (a *App) featuresHealth(context.Context) PartHealth {
	detail := plural(len(a.features.online.Views(a.cfg.Namespace)), "view") + " online"
	return partHealth("features", detail, a.features.tail.Ready())
}

// servingHealth names the models that answer; a deployment that is not in
// force leaves the one before it answering, so it is a detail, not a refusal.
func (a *App) servingHealth(context.Context) PartHealth {
	detail := plural(len(a.serving.server.Models()), "model")
	for name, why := range a.serving.follower.Faults() {
		detail += fmt.Sprintf("; deployment of %s is not in force: %s", name, why)
	}
	return PartHealth{Name: "serving", Ready: true, Detail: detail}
}
