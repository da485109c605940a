package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// open opens the parts in the order in which they need each other.
func (a *App) open(ctx context.Context) error {
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"broker", a.openBroker},
		{"kafka", a.openKafka},
		{"store", a.openStore},
		{"store ports", a.openStorePorts},
		{"registry", a.openRegistry},
		{"auth", a.openAuth},
		{"ingest", a.openIngest},
		{"features", a.openFeatures},
		{"serving", a.openServing},
		{"runs", a.openRuns},
		{"trainer", a.openTrainer},
		{"drift", a.openDrift},
		{"alerts", a.openAlerts},
	} {
		start := time.Now()
		if err := step.open(ctx); err != nil {
			return fmt.Errorf("open %s: %w", step.name, err)
		}
		a.sc.Log.Debug("opened", "part", step.name, "took", time.Since(start))
	}
	return nil
}

// openBroker starts the embedded broker, unless there are outside ones.
func (a *App) openBroker(context.Context) error {
	if !a.cfg.EmbeddedBroker() {
		a.brokers = a.cfg.Kafka.Brokers
		return nil
	}
	b, err := broker.Start(broker.Config{
		Addr: a.cfg.Kafka.Listen, Advertise: a.cfg.Kafka.Advertise, DataDir: a.dir.Sub("broker"),
		DefaultPartitions: a.cfg.Kafka.Partitions, RetentionMS: time.Duration(a.cfg.Kafka.Retention).Milliseconds(), RetentionBytes: int64(a.cfg.Kafka.RetentionSize),
		SyncWrites: a.cfg.Durability == "power", HelloTimeout: time.Duration(a.cfg.HTTP.HeaderTimeout), FrameTimeout: time.Duration(a.cfg.HTTP.BodyTimeout),
		TLS: a.tls, Guard: a.brokerGuard(),
	})
	if err != nil {
		return err
	}
	a.broker, a.brokers = b, []string{b.Addr()}
	a.onClose("broker", func() error { b.Close(); return nil })
	return nil
}

// openKafka makes a client and the topics that are missing.
func (a *App) openKafka(ctx context.Context) error {
	cfg, err := a.cfg.kafkaClient(a.brokers)
	if err != nil {
		return err
	}
	cfg = a.ownBroker(cfg)
	cfg.Logger = a.tel.Scope("stream").Log
	if a.client, err = stream.NewClient(cfg); err != nil {
		return err
	}
	a.onClose("kafka client", a.client.Close)
	var specs []stream.TopicSpec
	for _, t := range a.cfg.Topics() {
		specs = append(specs, t.Spec)
	}
	if err := a.client.EnsureTopics(ctx, specs); err != nil {
		return fmt.Errorf("create topics on %v: %w", a.brokers, err)
	}
	a.producer = a.client.Producer(stream.ProducerConfig{BatchBytes: 900 << 10})
	a.onClose("producer", a.producer.Close)
	return nil
}

// kafkaClient is how to reach brokers.
func (c *Config) kafkaClient(brokers []string) (stream.Config, error) {
	out := stream.Config{Brokers: brokers, ClientID: "kedge"}
	if c.EmbeddedBroker() {
		return out, nil
	}
	out.SASL = stream.SASL{Mechanism: c.Kafka.SASL.Mechanism, User: c.Kafka.SASL.Username, Password: string(c.Kafka.SASL.Password)}
	if !c.Kafka.TLS.Enabled {
		return out, nil
	}
	var err error
	out.TLS, err = c.Kafka.TLS.config()
	return out, err
}

func (t *KafkaTLS) config() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka.tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls.ca_file: %s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("kafka.tls: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}

// openStore opens the embedded engine or reaches for a server. A process
// without a role that reads or writes rows has none.
func (a *App) openStore(ctx context.Context) (err error) {
	trains := a.hasRole("trainer") && !a.cfg.EmbeddedStore() // an engine of its own would have no rows to train on
	if !a.hasRole("store") && !a.hasRole("ingest") && !a.hasRole("query") && !a.hasRole("drift") && !trains {
		return nil
	}
	opt := store.DefaultOptions()
	opt.Policy = a.cfg.ClickHouse.Policy
	opt.Retention, opt.Cluster, opt.Outside = time.Duration(a.cfg.Retention.Rows), a.cfg.ClickHouse.Cluster, a.cfg.outsideTables()
	if a.cfg.Durability == "power" {
		opt.Durability = store.PowerLoss
	}
	if a.cfg.EmbeddedStore() {
		a.store, err = a.openEmbeddedStore(ctx, opt)
	} else {
		a.store, err = store.OpenServer(ctx, string(a.cfg.ClickHouse.URL), opt)
	}
	if err != nil {
		return err
	}
	a.onClose("store", a.store.Close)
	return a.store.SetDeadLetterRetention(ctx, time.Duration(a.cfg.Retention.DeadLetters))
}

func (a *App) openEmbeddedStore(ctx context.Context, opt store.Options) (*store.Store, error) {
	lib, err := a.libraryPath()
	if err != nil {
		return nil, err
	}
	return store.OpenEmbedded(ctx, store.EmbeddedConfig{
		Options: opt, LibPath: lib, DataDir: a.dir.Sub("store"), MaxMemory: int64(a.cfg.ClickHouse.Memory), Volumes: a.cfg.volumes(),
		Log: a.tel.Scope("store").Log, Statements: a.statements,
	})
}

// storePort is a way into the embedded engine from outside the process.
type storePort struct {
	name   string
	ln     net.Listener
	access chdb.Access
}

// openStorePorts opens the read-only port for people and their tools, and the
// read-write one for other kedge processes.
func (a *App) openStorePorts(context.Context) error {
	ch := &a.cfg.ClickHouse
	for _, p := range []struct {
		name, addr string
		access     chdb.Access
	}{
		{"read-only ClickHouse port", ch.Listen, chdb.Access{ReadOnly: true, Reader: a.clickhouseReader()}},
		{"store port", ch.Share, chdb.Access{User: "kedge", Password: string(ch.SharePassword)}},
	} {
		if p.addr == "" {
			continue
		}
		ln, err := web.Listen(p.name, p.addr)
		if err != nil {
			return err
		}
		p.access.Header, p.access.Body = time.Duration(a.cfg.HTTP.HeaderTimeout), time.Duration(a.cfg.HTTP.BodyTimeout)
		a.ports = append(a.ports, storePort{p.name, web.OverTLS(ln, a.tls), p.access})
		a.onClose(p.name, func() error { _ = ln.Close(); return nil }) // closed already where it was served
	}
	return nil
}

// openRegistry folds the log of definitions.
func (a *App) openRegistry(ctx context.Context) error {
	log, err := a.client.OpenLog(ctx, RegistryTopic)
	if err != nil {
		return err
	}
	a.registry, err = registry.Open(ctx, log)
	if err != nil {
		return err
	}
	stop, err := a.definitionMetrics()
	if err != nil {
		return err
	}
	a.onClose("definition metrics", func() error { stop(); return nil })
	if err := a.ensureNamespaces(ctx); err != nil {
		return err
	}
	return a.prepareTables(ctx)
}

// prepareTables tells the store of every definition, so that it can answer
// questions about them before the first event comes.
func (a *App) prepareTables(ctx context.Context) error {
	if a.store == nil {
		return nil
	}
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	schemas := catalog.Schemas()
	a.prepareViews(ctx, schemas)
	return a.store.Prepare(ctx, slices.DeleteFunc(schemas, func(s *event.Schema) bool { return s.From != nil }))
}

// keepTables lets the store forget what is not defined any more.
func (a *App) keepTables(ctx context.Context) error {
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	a.store.Keep(catalog.Schemas())
	return a.store.DropOutside(ctx, catalog.Schemas())
}

// catalog is what the registry's definitions mean to the decoder.
func (a *App) catalog() (*event.Catalog, error) {
	var entries []event.CatalogEntry
	for _, d := range a.registry.State().List("", "") {
		if d.Kind == event.FeatureViewKind || d.Kind == event.ModelKind {
			entries = append(entries, event.CatalogEntry{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec})
		}
	}
	return event.NewCatalog(entries)
}

// followDefinitions keeps the store's copy of the definitions fresh.
func (a *App) followDefinitions(ctx context.Context) error {
	const least, most = time.Second, 30 * time.Second
	copied, wait := int64(-1), least
	for after := int64(-2); ; {
		state, err := a.registry.Next(ctx, after)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		err = errors.Join(a.prepareTables(ctx), a.keepTables(ctx), a.applyRetention(ctx), a.store.CopyDefinitions(ctx, copyOf(a.registry.Since(copied))))
		if err == nil {
			after, copied, wait = state.Offset(), state.Offset(), least
			continue
		}
		if ctx.Err() == nil {
			a.sc.Log.Error("definitions are not in the store yet; it is tried again", "error", err, "after", wait.String())
		}
		if sleepUntil(ctx, wait) != nil {
			return nil
		}
		wait = min(2*wait, most)
	}
}

// applyRetention gives each table the retention of its view or model, of its
// namespace, or of the installation: the first that says one.
func (a *App) applyRetention(ctx context.Context) error {
	return a.store.SetRetentions(ctx, a.retentions().keep)
}

func copyOf(versions []registry.Definition) []store.Definition {
	var out []store.Definition
	for _, d := range versions {
		out = append(out, store.Definition{
			Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Version: d.Version, Offset: d.Offset,
			Time: d.Time, Who: d.Who, Why: d.Why, Deleted: d.Deleted, Spec: string(d.Spec),
		})
	}
	return out
}

// decoder bounds what everyone who decodes in this installation takes: ingest
// and the online tables must agree on what is a row.
func (c *Config) decoder() event.DecoderConfig {
	d := event.DefaultDecoderConfig()
	d.MaxRecordBytes, d.FutureBound, d.DeclaredOnly = int(c.Ingest.MaxRecord), time.Duration(c.Ingest.FutureBound), c.Ingest.DeclaredOnly
	d.ErasureKey = string(c.Erasure.Key)
	return d
}

// openIngest prepares the consumer where this process has the role.
func (a *App) openIngest(context.Context) (err error) {
	if !a.hasRole("ingest") {
		return nil
	}
	in := a.cfg.Ingest
	cfg := ingest.DefaultConfig()
	cfg.Group, cfg.MaxRows, cfg.MaxBytes, cfg.MemoryBytes = in.Group, in.MaxRows, int64(in.MaxBytes), int64(in.Memory)
	cfg.MinDelay, cfg.MaxDelay, cfg.Writers, cfg.IDWindow = time.Duration(in.MinDelay), time.Duration(in.MaxDelay), in.Writers, int64(in.IDWindow)
	cfg.DeadLetterBytes = int64(in.DeadLetters)
	cfg.PowerLoss = a.cfg.Durability == "power"
	cfg.OwnStore = a.cfg.EmbeddedStore() && a.cfg.ClickHouse.Share == ""
	cfg.DrainTimeout = time.Duration(a.cfg.Drain) / 2
	cfg.Decoder = a.cfg.decoder()
	cfg.HashKey = a.hashKey()
	if cfg.Schemas, err = a.schemas(); err != nil {
		return err
	}
	if a.consumer, err = ingest.New(cfg, a.client, a.registry, a.store, a.tel.Scope("ingest")); err != nil {
		return err
	}
	return a.openPairs(cfg)
}

// conversionGroup is the group whose member converts stored rows of views that
// got a new version.
const conversionGroup = "kedge.leases.conversions"

// runConversions converts stored rows while this process holds the lease.
func (a *App) runConversions(ctx context.Context) error {
	return a.client.HoldLease(ctx, conversionGroup, LeasesTopic, a.consumer.Converter().Run)
}
