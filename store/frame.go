package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// Errors of requests.
var (
	// ErrInvalid says that a request cannot be answered as it stands.
	ErrInvalid = errors.New("invalid request")
	// ErrUnknown says that a view, a model or a column does not exist.
	ErrUnknown = errors.New("unknown")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// cell receives one column of an answer.
type cell interface {
	dest() any // where the driver scans a value to
	take()     // keeps the value
	values() any
}

type cells[T any] struct {
	v   T
	out []T
}

func (c *cells[T]) dest() any {
	var zero T
	c.v = zero
	return &c.v
}
func (c *cells[T]) take()       { c.out = append(c.out, c.v) }
func (c *cells[T]) values() any { return c.out }

// jsonCells receives JSON text.
type jsonCells struct{ cells[string] }

func (c *jsonCells) values() any {
	out := make([]json.RawMessage, len(c.out))
	for i, s := range c.out {
		out[i] = json.RawMessage(s)
	}
	return out
}

func cellOf[T any](nullable bool) cell {
	if nullable {
		return &cells[*T]{out: []*T{}}
	}
	return &cells[T]{out: []T{}}
}

func newCell(c query.Column) cell {
	switch c.Type {
	case query.Time:
		return cellOf[time.Time](c.Nullable)
	case query.Float:
		return cellOf[float64](c.Nullable)
	case query.Int:
		return cellOf[int64](c.Nullable)
	case query.Uint:
		return cellOf[uint64](c.Nullable)
	case query.Bool:
		return cellOf[bool](c.Nullable)
	case query.RawJSON:
		return &jsonCells{}
	}
	return cellOf[string](c.Nullable)
}

// frame asks and reads the answer into the given columns, whose types must be
// the statement's.
func (s *Store) frame(ctx context.Context, name string, typ query.FrameType, cols []query.Column, sql string, p params) (query.Frame, error) {
	f := query.Frame{Name: name, Type: typ, Columns: cols}
	err := s.scan(ctx, cols, sql, p, nil)
	return f, err
}

// scan fills columns, and calls row, if any, after each row.
func (s *Store) scan(ctx context.Context, cols []query.Column, sql string, p params, row func() error) error {
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return err
	}
	defer rows.Close()
	got, dests := make([]cell, len(cols)), make([]any, len(cols))
	for i, c := range cols {
		got[i] = newCell(c)
	}
	for rows.Next() {
		for i := range got {
			dests[i] = got[i].dest()
		}
		if err := rows.Scan(dests...); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		for _, c := range got {
			c.take()
		}
		if row != nil {
			if err := row(); err != nil {
				return err
			}
		}
	}
	for i := range cols {
		cols[i].Values = got[i].values()
	}
	return rows.Err()
}

// at returns row i of a column that is not nullable.
func at[T any](c query.Column, i int) T { return c.Values.([]T)[i] }

func col(name string, t query.ColumnType, unit string) query.Column {
	return query.Column{Name: name, Type: t, Unit: unit}
}

func maybe(name string, t query.ColumnType, unit string) query.Column {
	return query.Column{Name: name, Type: t, Unit: unit, Nullable: true}
}
