package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
)

// BuiltRoles lists the roles that this binary can take, in starting order.
func BuiltRoles() []string {
	return []string{"store", "ingest", "query", "features", "serving", "trainer", "drift"}
}

// Validate returns every fault of the configuration, joined.
func (c *Config) Validate() error {
	var f faults
	f.check(c.DataDir != "", "data_dir: is empty")
	if err := event.CheckNamespace(c.Namespace); err != nil {
		f.check(false, "namespace: %w", err)
	}
	f.check(c.Drain > 0, "drain: want more than 0s")
	f.check(c.Durability == "process" || c.Durability == "power", "durability: %q: want process or power", c.Durability)
	c.checkRoles(&f)
	c.checkHTTP(&f)
	c.checkKafka(&f)
	c.checkClickHouse(&f)
	c.checkOutside(&f)
	c.checkIngest(&f)
	c.checkFeatures(&f)
	c.checkSources(&f)
	c.checkTrainer(&f)
	c.checkArtifacts(&f)
	c.checkAlerts(&f)
	c.checkAuth(&f)
	c.checkRest(&f)
	return errors.Join(f...)
}

// faults collects sentences.
type faults []error

func (f *faults) check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

func (f *faults) address(member, addr string) {
	host, port, err := net.SplitHostPort(addr)
	n, portErr := strconv.Atoi(port)
	f.check(err == nil && portErr == nil && n >= 0 && n <= 65535 && !strings.ContainsAny(host, " /"),
		"%s: %q: want host:port such as 127.0.0.1:7070", member, addr)
}

func (f *faults) positive(member string, d Duration) {
	f.check(d > 0, "%s: want more than 0s", member)
}

func (f *faults) atLeast(member string, v, low Size) {
	f.check(v >= low, "%s: want at least %s", member, must(low.MarshalText()))
}

func must(b []byte, _ error) []byte { return b }

func (c *Config) checkRoles(f *faults) {
	f.check(len(c.Roles) > 0, "roles: none given: want some of %s", strings.Join(BuiltRoles(), ", "))
	for i, r := range c.Roles {
		f.check(slices.Contains(BuiltRoles(), r), "roles: unknown role %q: want some of %s", r, strings.Join(BuiltRoles(), ", "))
		f.check(!slices.Contains(c.Roles[:i], r), "roles: %q is given twice", r)
	}
	needsEngine := slices.Contains(c.Roles, "ingest") || slices.Contains(c.Roles, "query") || slices.Contains(c.Roles, "drift")
	f.check(!c.EmbeddedStore() || !needsEngine || slices.Contains(c.Roles, "store"),
		"roles: ingest, query and drift need the role store in the same process, or clickhouse.url")
}

func (c *Config) checkHTTP(f *faults) {
	f.address("http.listen", c.HTTP.Listen)
	f.atLeast("http.max_body", c.HTTP.MaxBody, 1<<10)
	f.atLeast("http.max_events", c.HTTP.MaxEvents, 1<<10)
	f.positive("http.header_timeout", c.HTTP.HeaderTimeout)
	f.positive("http.body_timeout", c.HTTP.BodyTimeout)
	f.positive("http.query_timeout", c.HTTP.QueryTimeout)
}

func (c *Config) checkKafka(f *faults) {
	k := &c.Kafka
	if c.EmbeddedBroker() {
		f.address("kafka.listen", k.Listen)
		f.check(!k.TLS.Enabled && k.SASL.Mechanism == "", "kafka.tls, kafka.sasl: are for kafka.brokers: the embedded broker takes http.tls and API keys")
	}
	for i, b := range k.Brokers {
		f.address(fmt.Sprintf("kafka.brokers[%d]", i), b)
	}
	if k.Advertise != "" {
		f.address("kafka.advertise", k.Advertise)
	}
	f.check(k.Partitions >= 1 && k.Partitions <= 1024, "kafka.partitions: %d: want 1 to 1024", k.Partitions)
	f.check(k.ReplicationFactor >= 1 && k.ReplicationFactor <= 15, "kafka.replication_factor: %d: want 1 to 15", k.ReplicationFactor)
	f.positive("kafka.retention", k.Retention)
	f.atLeast("kafka.retention_size", k.RetentionSize, 1<<20)
	f.check(slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, k.SASL.Mechanism),
		"kafka.sasl.mechanism: %q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", k.SASL.Mechanism)
	f.check(k.SASL.Mechanism == "" || k.SASL.Username != "", "kafka.sasl.username: is empty")
	f.check((k.TLS.CertFile == "") == (k.TLS.KeyFile == ""), "kafka.tls: cert_file and key_file go together")
}

func (c *Config) checkClickHouse(f *faults) {
	ch := &c.ClickHouse
	if ch.Listen != "" {
		f.address("clickhouse.listen", ch.Listen)
		f.check(c.EmbeddedStore(), "clickhouse.listen: is the embedded engine's port: leave it empty with clickhouse.url")
	}
	if ch.Share != "" {
		f.address("clickhouse.share", ch.Share)
		f.check(ch.SharePassword != "", "clickhouse.share_password: the read-write port needs one")
		f.check(c.EmbeddedStore(), "clickhouse.share: shares the embedded engine: leave it empty with clickhouse.url")
	}
	f.atLeast("clickhouse.memory", ch.Memory, 256<<20)
	f.check(len(ch.Volumes) == 0 || c.EmbeddedStore(), "clickhouse.volumes: are the embedded engine's: with clickhouse.url, name the server's storage policy in clickhouse.policy")
	f.check(ch.Policy == "" || !c.EmbeddedStore(), "clickhouse.policy: belongs to clickhouse.url; the embedded engine takes clickhouse.volumes")
	for _, v := range c.volumes() {
		err := v.Validate()
		f.check(err == nil, "clickhouse.volumes: %w", err)
		f.check(!within(v.Path, c.DataDir), "clickhouse.volumes: %s: %s lies in the data directory, or that in it: name a folder elsewhere", v.Name, v.Path)
	}
	f.check(ch.Cluster == "" || !c.EmbeddedStore(), "clickhouse.cluster: belongs to clickhouse.url; the embedded engine has no replicas")
	if ch.URL == "" {
		return
	}
	u, err := url.Parse(string(ch.URL))
	f.check(err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "clickhouse", "tcp"}, u.Scheme),
		"clickhouse.url: want http://user:password@host:8123/database, https://…, clickhouse://… or tcp://…")
}

// within reports whether one of two folders lies in the other, or is it.
func within(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	a, b = a+string(filepath.Separator), b+string(filepath.Separator)
	return errA != nil || errB != nil || strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

func (c *Config) checkIngest(f *faults) {
	in := &c.Ingest
	f.check(in.Group != "" && !strings.ContainsAny(in.Group, "/ "), "ingest.group: %q: want a name without slash or space", in.Group)
	f.check(in.MaxRows >= 1 && in.MaxRows <= 10_000_000, "ingest.max_rows: %d: want 1 to 10000000", in.MaxRows)
	f.atLeast("ingest.max_bytes", in.MaxBytes, 1<<10)
	f.atLeast("ingest.memory", in.Memory, 1<<20)
	f.atLeast("ingest.fetch_memory", in.FetchMemory, 1<<20)
	f.atLeast("ingest.max_record", in.MaxRecord, 1<<10)
	f.check(in.MinDelay >= 0 && in.MinDelay <= in.MaxDelay && in.MaxDelay <= Duration(time.Minute), "ingest.min_delay, max_delay: want 0s ≤ min_delay ≤ max_delay ≤ 1m")
	f.check(in.Writers >= 1 && in.Writers <= 64, "ingest.writers: %d: want 1 to 64", in.Writers)
	f.check(in.DeadLetters >= 0, "ingest.dead_letters: must not be negative")
	f.positive("ingest.future_bound", in.FutureBound)
	f.check(in.IDWindow >= 0 && in.IDWindow < 1<<31, "ingest.id_window: %d: want 0 to 2147483647", in.IDWindow)
}

func (c *Config) checkFeatures(f *faults) {
	o := &c.Features.Online
	for i, addr := range o.Addresses {
		f.address(fmt.Sprintf("features.online.addresses[%d]", i), addr)
	}
	f.check(o.Password == "" || o.PasswordFile == "", "features.online: password and password_file exclude each other")
	f.check(len(o.Addresses) > 0 || o.Password == "" && o.PasswordFile == "" && o.Username == "" && !o.TLS.Enabled, "features.online.addresses: is empty, but username, password or TLS are set")
	f.check((o.TLS.CertFile == "") == (o.TLS.KeyFile == ""), "features.online.tls: cert_file and key_file go together")
	f.check(prefixPattern(o.Prefix), "features.online.prefix: %q: want letters, digits, '-', '_', '.' and ':'", o.Prefix)
	f.positive("features.online.timeout", o.Timeout)
	s := &c.Features.Served
	f.check(s.Share >= 0 && s.Share <= 1, "features.served.share: %v: want 0 to 1", s.Share)
	f.check(s.By == "key" || s.By == "request", "features.served.by: %q: want key or request", s.By)
	f.positive("features.served.delay", s.Delay)
	l := &c.Features.Limits
	f.check(l.Entities >= 1 && l.Features >= 1 && l.Values >= 1, "features.limits: entities, features, values: want at least 1")
	f.atLeast("features.limits.body", l.Body, 1<<10)
	f.atLeast("features.limits.push", l.Push, 1<<10)
	f.atLeast("features.history.memory", c.Features.History.Memory, 64<<20)
}

// prefixPattern reports whether a prefix stands for itself in a key pattern.
func prefixPattern(s string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
	}
	return s != "" && !strings.ContainsFunc(s, other)
}

func (c *Config) checkRest(f *faults) {
	r, t, d := &c.Retention, &c.Telemetry, &c.Demo
	f.check(r.Rows >= 0 && r.DeadLetters >= 0 && r.Ledger >= 0, "retention: want durations that are not negative")
	f.check(t.LogFormat == "text" || t.LogFormat == "json", "telemetry.log_format: %q: want text or json", t.LogFormat)
	f.check(slices.Contains([]string{"debug", "info", "warn", "error"}, t.LogLevel), "telemetry.log_level: %q: want debug, info, warn or error", t.LogLevel)
	f.check(t.SampleRatio >= 0 && t.SampleRatio <= 1, "telemetry.sample_ratio: %v: want 0 to 1", t.SampleRatio)
	if t.OTLP != "" {
		u, err := url.Parse(t.OTLP)
		f.check(err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"), "telemetry.otlp: %q: want http://host:4318", t.OTLP)
	}
	f.check(d.Rate > 0 && d.Rate <= 100_000, "demo.rate: %v: want more than 0, at most 100000", d.Rate)
	f.check(d.Backfill >= 0 && d.Backfill <= Duration(7*24*time.Hour), "demo.backfill: want 0s to 7d")
}
