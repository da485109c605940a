package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Config says which cluster to talk to, and as whom.
type Config struct {
	Brokers  []string // host:port, at least one
	ClientID string   // shown in the broker's logs; "kedge" when empty

	TLS  *tls.Config // nil: plain text
	SASL SASL        // zero: no authentication
	// Dial connects to a broker's address; nil: TCP. TLS is spoken over what it
	// returns.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// RequestTimeout bounds one request, beside what the request itself waits
	// for; 10 s when zero.
	RequestTimeout time.Duration
	// DialTimeout bounds connecting, TLS and SASL included; 5 s when zero.
	DialTimeout time.Duration
	// Logger hears of retries; nil discards.
	Logger *slog.Logger
}

// SASL names a mechanism and its credentials.
type SASL struct {
	Mechanism string // "", "PLAIN", "SCRAM-SHA-256" or "SCRAM-SHA-512"
	User      string
	Password  string
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: name at least one host:port"))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			errs = append(errs, fmt.Errorf("brokers: %q is not host:port: %w", b, err))
		}
	}
	if _, err := c.SASL.mechanism(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToUpper(s.Mechanism) {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password)
	}
	return nil, fmt.Errorf("sasl: mechanism %q is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", s.Mechanism)
}

// Client talks to one cluster. It is safe for concurrent use.
type Client struct {
	cfg       Config
	addr      net.Addr
	mechanism sasl.Mechanism
	transport *kafka.Transport
	log       *slog.Logger

	mu     sync.Mutex
	layout *layout
}

// NewClient checks the configuration. It does not connect.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	cfg = cfg.withDefaults()
	mechanism, err := cfg.SASL.mechanism()
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	c := &Client{cfg: cfg, addr: kafka.TCP(cfg.Brokers...), mechanism: mechanism, log: cfg.Logger}
	c.transport = &kafka.Transport{
		ClientID:    cfg.ClientID,
		Dial:        cfg.Dial,
		TLS:         cfg.TLS,
		SASL:        mechanism,
		DialTimeout: cfg.DialTimeout,
		// The library's own view of the cluster only finds the address of a
		// broker by its id, so it asks often and for no topic; leaders come
		// from this package's layout.
		MetadataTTL:    time.Second,
		MetadataTopics: []string{},
	}
	return c, nil
}

func (c Config) withDefaults() Config {
	if c.ClientID == "" {
		c.ClientID = "kedge"
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 10 * time.Second
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	return c
}

// Close drops idle connections. Requests under way end by their own contexts.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Ping asks the cluster for its brokers, and fails when none answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.refresh(ctx)
	return err
}

// ClusterID returns the cluster's own id, part of every unit's token.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	l, err := c.refresh(ctx)
	if err != nil {
		return "", err
	}
	return l.clusterID, nil
}

// retry calls fn until it succeeds, fails for good, or ctx ends.
func (c *Client) retry(ctx context.Context, what string, fn func() error) error {
	for attempt := 0; ; attempt++ {
		err := fn()
		if err == nil || !transient(err) || fenced(err) || ctx.Err() != nil {
			return err
		}
		c.log.Debug("retry", "what", what, "attempt", attempt, "error", err)
		if pause(ctx, backoff(attempt)) != nil {
			return err
		}
	}
}

// backoff is 50 ms, doubling to 1 s.
func backoff(attempt int) time.Duration {
	return min(50*time.Millisecond<<min(attempt, 5), time.Second)
}

// pause waits d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
