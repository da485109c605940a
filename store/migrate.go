package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/store/chdb"
)

// Version is the version of the fixed tables that this binary writes.
const Version = 7

// ErrNewer says that a newer Kedge wrote the tables.
var ErrNewer = errors.New("the store was written by a newer kedge")

// migrate makes the database and its fixed tables, or brings them forward. A
// store that is up to date is only read: it opens on a full disk, too.
func (s *Store) migrate(ctx context.Context) error {
	if at, err := s.version(ctx); err != nil || at == Version {
		return err
	}
	if err := s.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+chdb.QuoteIdent(s.opt.Database)+s.opt.onCluster()); err != nil {
		return err
	}
	if err := s.exec(ctx, s.fixed("schema_versions", "version UInt32, applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')", "version", "")); err != nil {
		return err
	}
	at, err := s.version(ctx)
	if err != nil {
		return err
	}
	if at > Version {
		return fmt.Errorf("%w: its tables have version %d, this binary knows %d; use the newer binary, or a backup made before", ErrNewer, at, Version)
	}
	for v, statements := range s.migrations() {
		if uint32(v+1) <= at {
			continue
		}
		for _, sql := range statements {
			if err := s.exec(ctx, sql); err != nil {
				return fmt.Errorf("migrate to version %d: %w", v+1, err)
			}
		}
		if err := s.exec(ctx, fmt.Sprintf("INSERT INTO %s (version) SELECT %d", s.ref("schema_versions"), v+1)); err != nil {
			return err
		}
	}
	return nil
}

// version is that of the tables, 0 when there are none.
func (s *Store) version(ctx context.Context) (at uint32, err error) {
	var tables uint64
	err = s.queryRow(ctx, "SELECT count() FROM system.tables WHERE database = {db:String} AND name = 'schema_versions'", params{"db": s.opt.Database}).Scan(&tables)
	if err == nil && tables > 0 {
		err = s.conn.QueryRow(ctx, "SELECT max(version) FROM "+s.ref("schema_versions")).Scan(&at)
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return at, nil
}

// migrations are the steps from version i to i+1. A step may be cut off and
// run again, so each statement must bear that. Never edit one that shipped.
func (s *Store) migrations() [][]string {
	return [][]string{{
		s.fixed("ledger", strings.Join([]string{
			"topic LowCardinality(String)", "partition Int32", "epoch Int32",
			"from_offset Int64 CODEC(Delta, ZSTD(1))", "to_offset Int64 CODEC(Delta, ZSTD(1))",
			"records Int64", "rows Int64", "dead_letters Int64", "duplicates Int64", "tombstoned Int64", "dropped Int64", "missing Int64",
			"decoder Int32", "registry Int64", "tables Map(String, Int64)",
			"windows Array(Tuple(kind UInt8, table_id UInt64, minute Int64))",
			micros("max_event_time"), micros("min_known_at"), micros("max_known_at"), micros("min_appended_at"), micros("max_appended_at"),
			"inserted_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))",
		}, ", "), "topic, partition, epoch, from_offset", "toYYYYMM(max_appended_at)"),
		s.fixed("dead_letters", strings.Join([]string{
			"topic LowCardinality(String)", "partition Int32", "offset Int64 CODEC(Delta, ZSTD(1))", "`index` Int32", "epoch Int32",
			micros("known_at"), "reason LowCardinality(String)", "detail String CODEC(ZSTD(1))",
			"key String CODEC(ZSTD(1))", "value String CODEC(ZSTD(1))", "size Int64",
		}, ", "), "known_at, topic, partition, offset, `index`", "toYYYYMM(known_at)"),
		s.fixed("definitions", strings.Join([]string{
			"kind LowCardinality(String)", "namespace LowCardinality(String)", "name String", "uid UInt64", "version UInt64",
			"offset Int64", micros("time"), "who String", "why String", "deleted Bool", "spec String CODEC(ZSTD(1))",
		}, ", "), "kind, namespace, name, version", ""),
	}, s.derivedTables(), s.monitorTables(), {
		fmt.Sprintf("ALTER TABLE %s%s ADD COLUMN IF NOT EXISTS silent Int64 AFTER tombstoned", s.ref("ledger"), s.opt.onCluster()),
	}, s.runTables(), s.segmentTables(), {
		fmt.Sprintf("ALTER TABLE %s%s ADD COLUMN IF NOT EXISTS reference LowCardinality(String) AFTER reference_rows", s.ref("verdicts"), s.opt.onCluster()),
		fmt.Sprintf("ALTER TABLE %s%s ADD COLUMN IF NOT EXISTS reference LowCardinality(String) AFTER reference_rows", s.ref("segment_verdicts"), s.opt.onCluster()),
	}}
}

func micros(name string) string { return name + " DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))" }

// fixed is the DDL of a table whose columns are known beforehand.
func (s *Store) fixed(name, columns, order, partition string) string {
	sql := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s (%s) ENGINE = %s", s.ref(name), s.opt.onCluster(), columns, s.opt.mergeTree())
	if partition != "" {
		sql += " PARTITION BY " + partition
	}
	return sql + " ORDER BY (" + order + ") " + s.opt.tableSettings()
}

// ref is a table's qualified name in SQL.
func (s *Store) ref(table string) string { return qualified(s.opt.Database, table) }

func (s *Store) exec(ctx context.Context, sql string) error {
	if err := s.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", firstWords(sql), err)
	}
	return nil
}

// firstWords names a statement in an error.
func firstWords(sql string) string {
	words := strings.Fields(sql)
	return strings.Join(words[:min(len(words), 6)], " ")
}

func ttl(column string, d time.Duration) string {
	return fmt.Sprintf("toDateTime(%s) + INTERVAL %d SECOND", column, int64(d.Seconds()))
}
