package store

import (
	"context"
	"fmt"
)

// Definition is a copy of a registry entry, so that SQL can join names to
// tables. The registry's log stays the truth.
type Definition struct {
	Kind, Namespace, Name string
	UID, Version          uint64
	Offset                int64 // in the registry's log
	Time                  int64 // µs
	Who, Why              string
	Deleted               bool
	Spec                  string // JSON
}

// CopyDefinitions adds definitions to the copy. One that is there already, by
// its offset, is not added again.
func (s *Store) CopyDefinitions(ctx context.Context, ds []Definition) error {
	var have int64
	if err := s.conn.QueryRow(ctx, "SELECT if(count() = 0, -1, max(offset)) FROM "+s.ref("definitions")).Scan(&have); err != nil {
		return fmt.Errorf("read the copied definitions: %w", err)
	}
	var add []Definition
	for _, d := range ds {
		if d.Offset > have {
			add = append(add, d)
		}
	}
	if len(add) == 0 {
		return nil
	}
	cols := []named{
		{"kind", texts(collect(add, func(d Definition) string { return d.Kind }))},
		{"namespace", texts(collect(add, func(d Definition) string { return d.Namespace }))},
		{"name", texts(collect(add, func(d Definition) string { return d.Name }))},
		{"uid", fixed[uint64]{"UInt64", collect(add, func(d Definition) uint64 { return d.UID })}},
		{"version", fixed[uint64]{"UInt64", collect(add, func(d Definition) uint64 { return d.Version })}},
		{"offset", fixed[int64]{"Int64", collect(add, func(d Definition) int64 { return d.Offset })}},
		{"time", fixed[int64]{timestampType, collect(add, func(d Definition) int64 { return d.Time })}},
		{"who", texts(collect(add, func(d Definition) string { return d.Who }))},
		{"why", texts(collect(add, func(d Definition) string { return d.Why }))},
		{"deleted", fixed[bool]{"Bool", collect(add, func(d Definition) bool { return d.Deleted })}},
		{"spec", texts(collect(add, func(d Definition) string { return d.Spec }))},
	}
	token := fmt.Sprintf("definitions/%d-%d", add[0].Offset, add[len(add)-1].Offset)
	return s.insertRows(ctx, "definitions", token, len(add), cols)
}
