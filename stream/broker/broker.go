// Package broker runs a Kafka-protocol broker inside this process, on disk.
package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where the broker listens and what it keeps.
type Config struct {
	Addr      string // host:port to listen on; port 0 picks a free one
	Advertise string // host:port that clients are told; the listening address when empty
	DataDir   string // empty: memory only

	DefaultPartitions int   // of topics that do not say; 4 when zero
	RetentionMS       int64 // of topics that do not say; 3 days when zero, −1 for ever
	RetentionBytes    int64 // per partition; 2 GB over the default partitions when zero, −1 without bound
	MaxMessageBytes   int   // largest batch; 16 MiB when zero
	SyncWrites        bool  // fsync every batch
	AutoCreateTopics  bool  // a client that asks for a missing topic creates it
	ClusterID         string
}

func (c Config) withDefaults() Config {
	if c.DefaultPartitions == 0 {
		c.DefaultPartitions = 4
	}
	if c.RetentionMS == 0 {
		c.RetentionMS = 3 * 24 * 60 * 60 * 1000
	}
	if c.RetentionBytes == 0 {
		c.RetentionBytes = 2_000_000_000 / int64(c.DefaultPartitions)
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 16 << 20
	}
	if c.ClusterID == "" {
		c.ClusterID = "kedge-embedded"
	}
	return c
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
}

// Start starts a broker and returns when it accepts connections. A taken
// address is an error that names it.
func Start(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if cfg.DataDir != "" {
		if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
			return nil, fmt.Errorf("start the embedded broker: %w", err)
		}
	}
	l, err := listen(cfg.Addr, cfg.Advertise)
	if err != nil {
		return nil, err
	}
	cluster, err := kfake.NewCluster(options(cfg, l)...)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("start the embedded broker on %s with data in %s: %w", cfg.Addr, cfg.DataDir, err)
	}
	return &Broker{cluster: cluster, addr: l.advertised.String()}, nil
}

func options(cfg Config, l *listener) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return l, nil }),
		kfake.ClusterID(cfg.ClusterID),
		kfake.DefaultNumPartitions(cfg.DefaultPartitions),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":    strconv.FormatInt(cfg.RetentionMS, 10),
			"log.retention.bytes": strconv.FormatInt(cfg.RetentionBytes, 10),
			"message.max.bytes":   strconv.Itoa(cfg.MaxMessageBytes),
		}),
	}
	if cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	if cfg.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.AutoCreateTopics {
		opts = append(opts, kfake.AllowAutoTopicCreation())
	}
	return opts
}

// Addr returns the address that clients connect to.
func (b *Broker) Addr() string { return b.addr }

// Close stops the broker and writes its state.
func (b *Broker) Close() { b.cluster.Close() }

// listener tells clients another address than the one it listens on.
type listener struct {
	net.Listener
	advertised net.Addr
}

// Addr returns the address that clients are told.
func (l *listener) Addr() net.Addr { return l.advertised }

// hostPort is an address by name.
type hostPort string

// Network returns "tcp".
func (hostPort) Network() string { return "tcp" }

// String returns host:port.
func (a hostPort) String() string { return string(a) }

func listen(addr, advertise string) (*listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	inner, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("start the embedded broker: %s is taken by another process; stop it, or choose another address with --kafka: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: listen on %s: %w", addr, err)
	}
	l := &listener{Listener: inner, advertised: inner.Addr()}
	if advertise != "" {
		if _, _, err := net.SplitHostPort(advertise); err != nil {
			inner.Close()
			return nil, fmt.Errorf("start the embedded broker: advertised address %q is not host:port: %w", advertise, err)
		}
		l.advertised = hostPort(advertise)
	}
	return l, nil
}
