package store

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// OpenServer opens a ClickHouse server, or another Kedge process with the role
// store, over HTTP: "http://user:password@host:8123" or "https://…". It makes
// the database and brings its tables up to date.
func OpenServer(ctx context.Context, dsn string, opt Options) (*Store, error) {
	if err := opt.validate(); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	o, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("open the store: read the ClickHouse address: %w", err)
	}
	if o.Protocol != clickhouse.HTTP {
		return nil, errors.New("open the store: the ClickHouse address must begin with http:// or https:// (inserts go over ClickHouse's HTTP interface, port 8123 or 8443)")
	}
	o.Auth.Database = "" // it may not exist yet; every name is qualified
	s := &Store{opt: opt, engine: newServerEngine(o), stop: func() error { return nil }, erasing: make(chan struct{}, 1)}
	if s.conn, err = clickhouse.Open(o); err == nil {
		err = s.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the store at %s: %w", o.Addr[0], err), s.Close())
	}
	return s, nil
}

// o2dial uses the driver's own way to dial, where there is one.
func o2dial(o *clickhouse.Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if o.DialContext == nil {
		d := net.Dialer{Timeout: o.DialTimeout}
		return d.DialContext
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) { return o.DialContext(ctx, addr) }
}
