package stream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// anyAddress stands for whichever configured broker is next.
const anyAddress = "any-broker:9092"

// dialer connects for the library's group membership. That one tries the
// configured brokers in order and stays with the first that accepts a
// connection, even when it never answers; here every attempt takes the next.
func (c *Client) dialer() *kafka.Dialer {
	var turn atomic.Uint32
	return &kafka.Dialer{
		ClientID:      c.cfg.ClientID,
		Timeout:       c.cfg.DialTimeout,
		SASLMechanism: c.mechanism,
		DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == anyAddress {
				address = c.cfg.Brokers[int(turn.Add(1)-1)%len(c.cfg.Brokers)]
			}
			return c.dial(ctx, network, address)
		},
	}
}

// dial connects to an address, with TLS when it is configured. Until the
// library sets a deadline of its own, the connection has that of dialing:
// authentication would wait for ever otherwise.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.cfg.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(c.cfg.DialTimeout)); err != nil {
		conn.Close()
		return nil, err
	}
	if c.cfg.TLS == nil {
		return conn, nil
	}
	cfg := c.cfg.TLS.Clone()
	if cfg.ServerName == "" {
		if cfg.ServerName, _, err = net.SplitHostPort(address); err != nil {
			conn.Close()
			return nil, err
		}
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return secured, nil
}
