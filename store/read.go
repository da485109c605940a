package store

import (
	"context"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/kedge-ml/kedge/store/chdb"
)

// params are the values of {name:Type} placeholders.
type params map[string]string

// query asks with bound parameters only.
func (s *Store) query(ctx context.Context, sql string, p params) (driver.Rows, error) {
	return s.conn.Query(bind(ctx, p), sql)
}

func (s *Store) queryRow(ctx context.Context, sql string, p params) driver.Row {
	return s.conn.QueryRow(bind(ctx, p), sql)
}

func bind(ctx context.Context, p params) context.Context {
	if len(p) == 0 {
		return ctx
	}
	bound := clickhouse.Parameters{}
	for k, v := range p {
		bound[k] = chdb.EscapeParam(v)
	}
	return clickhouse.Context(ctx, clickhouse.WithParameters(bound))
}
