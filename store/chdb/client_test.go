package chdb_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/kedge-ml/kedge/store/chdb"
)

func TestClientRoundTrip(t *testing.T) {
	db := open(t)
	methods := map[string]*clickhouse.Compression{
		"none": nil,
		"lz4":  {Method: clickhouse.CompressionLZ4},
		"zstd": {Method: clickhouse.CompressionZSTD, Level: 1},
		"gzip": {Method: clickhouse.CompressionGZIP, Level: 1},
	}
	for name, c := range methods {
		t.Run(name, func(t *testing.T) {
			conn := client(t, db, chdb.Access{}, func(o *clickhouse.Options) { o.Compression = c })
			ctx := t.Context()
			table := "round_" + name
			if err := conn.Exec(ctx, "CREATE TABLE "+table+` (ts DateTime64(6,'UTC'), n Nullable(Float64), m Map(LowCardinality(String), Float64),
				a Array(Nullable(Int64)), lc LowCardinality(String), s String, u UInt64, b Bool) ENGINE=MergeTree ORDER BY u`); err != nil {
				t.Fatal(err)
			}
			ts := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
			one, big := 1.5, int64(math.MinInt64)
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+table)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				n := &one
				if i == 1 {
					n = nil
				}
				err := batch.Append(ts.Add(time.Duration(i)*time.Microsecond), n, map[string]float64{"x": float64(i), "é'`": math.Inf(1)},
					[]*int64{&big, nil}, "lc", strings.Repeat("\x00\n", i), uint64(math.MaxUint64-uint64(i)), i == 2)
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			rows, err := conn.Query(ctx, "SELECT ts, n, m, a, lc, s, u, b FROM "+table+" ORDER BY u DESC")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			i := 0
			for ; rows.Next(); i++ {
				var (
					gotTS time.Time
					n     *float64
					m     map[string]float64
					a     []*int64
					lc, s string
					u     uint64
					b     bool
				)
				if err := rows.Scan(&gotTS, &n, &m, &a, &lc, &s, &u, &b); err != nil {
					t.Fatal(err)
				}
				if !gotTS.Equal(ts.Add(time.Duration(i) * time.Microsecond)) {
					t.Errorf("row %d: time %v", i, gotTS)
				}
				if (n == nil) != (i == 1) || n != nil && *n != one {
					t.Errorf("row %d: nullable %v", i, n)
				}
				if !maps.Equal(m, map[string]float64{"x": float64(i), "é'`": math.Inf(1)}) {
					t.Errorf("row %d: map %v", i, m)
				}
				if len(a) != 2 || *a[0] != big || a[1] != nil {
					t.Errorf("row %d: array %v", i, a)
				}
				if lc != "lc" || s != strings.Repeat("\x00\n", i) || u != math.MaxUint64-uint64(i) || b != (i == 2) {
					t.Errorf("row %d: %q %q %d %v", i, lc, s, u, b)
				}
			}
			if rows.Err() != nil || i != 3 {
				t.Fatalf("%d rows, %v", i, rows.Err())
			}
		})
	}
}

func TestClientTypedErrors(t *testing.T) {
	conn := client(t, open(t), chdb.Access{})
	cases := []struct {
		sql  string
		code int32
	}{
		{"SELECT * FROM nowhere", 60},
		{"SELECT nope FROM system.one", 47},
		{"SELEC 1", 62},
		{"SELECT 1; SELECT 2", 62},
		{"SET a_setting_that_is_none = 1", 115},
		{"SELECT throwIf(number = 3) FROM numbers(10)", 395},
		{"CREATE TABLE x (a Int64) ENGINE = NoSuchEngine", 56},
	}
	for _, c := range cases {
		err := conn.Exec(t.Context(), c.sql)
		var ex *clickhouse.Exception
		if !errors.As(err, &ex) || ex.Code != c.code {
			t.Errorf("%s: got %v, want code %d", c.sql, err, c.code)
		}
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the connection is unusable after errors: %v", err)
	}
}

// An error after the first blocks went out cannot use the status line.
func TestClientErrorMidStream(t *testing.T) {
	conn := client(t, open(t), chdb.Access{})
	rows, err := conn.Query(t.Context(), "SELECT throwIf(number = 5000000), number FROM numbers(10000000) SETTINGS max_threads = 1")
	n := 0
	if err == nil {
		for rows.Next() {
			n++
		}
		err = rows.Err()
	}
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) || ex.Code != 395 {
		t.Errorf("after %d rows: got %v, want code 395", n, err)
	}
	if n == 0 {
		t.Error("no rows came before the error: the test shows nothing")
	}
}

func TestClientSettingsAndParams(t *testing.T) {
	db := open(t)
	conn := client(t, db, chdb.Access{})
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_threads": 3, "max_rows_to_read": 12345}))
	var threads, limit string
	if err := conn.QueryRow(ctx, "SELECT toString(getSetting('max_threads')), toString(getSetting('max_rows_to_read'))").Scan(&threads, &limit); err != nil || threads != "3" || limit != "12345" {
		t.Errorf("settings: %q %q %v", threads, limit, err)
	}
	// What one statement chose must not reach the next, on no handle.
	for range 20 {
		if err := conn.QueryRow(t.Context(), "SELECT toString(getSetting('max_rows_to_read'))").Scan(&limit); err != nil || limit != "0" {
			t.Fatalf("a setting leaked: %q %v", limit, err)
		}
	}
	hostile := "a'b`c\\d\n\t{x:String} ö\x00"
	var got string
	err := conn.QueryRow(t.Context(), "SELECT {v:String}", clickhouse.Named("v", hostile)).Scan(&got)
	if err != nil || got != hostile {
		t.Errorf("bound parameter: %q %v", got, err)
	}
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&name); err != nil || name != "kedge" {
		t.Errorf("database %q %v", name, err)
	}
	other := client(t, db, chdb.Access{}, func(o *clickhouse.Options) { o.Auth.Database = "system" })
	if err := other.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&name); err != nil || name != "system" {
		t.Errorf("database parameter: %q %v", name, err)
	}
}

func TestClientTokens(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE tok (a Int64) ENGINE=MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window=100")
	conn := client(t, db, chdb.Access{})
	send := func(s clickhouse.Settings) {
		t.Helper()
		batch, err := conn.PrepareBatch(clickhouse.Context(t.Context(), clickhouse.WithSettings(s)), "INSERT INTO tok")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(batch.Append(int64(1)), batch.Send()); err != nil {
			t.Fatal(err)
		}
	}
	count := func() string { return text(t, db, chdb.Statement{SQL: "SELECT count() FROM tok"}) }
	token := clickhouse.Settings{"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": "unit-1"}
	send(token)
	send(token)
	if got := count(); got != "1" {
		t.Errorf("same token twice: %s rows, want 1", got)
	}
	off := maps.Clone(token)
	off["deduplicate_insert"] = "disable"
	send(off)
	if got := count(); got != "2" {
		t.Errorf("deduplication off: %s rows, want 2", got)
	}
}

func TestClientConcurrency(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE c (g Int64, v Int64) ENGINE=MergeTree ORDER BY g")
	conn := client(t, db, chdb.Access{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO c")
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(batch.Append(int64(g), int64(i)), batch.Send()); err != nil {
					t.Error(err)
				}
				var n uint64
				if err := conn.QueryRow(t.Context(), "SELECT count() FROM c WHERE g = {g:Int64}", clickhouse.Named("g", fmt.Sprint(g))).Scan(&n); err != nil || n != uint64(i+1) {
					t.Errorf("goroutine %d after insert %d: %d rows, %v", g, i, n, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestClientCancellation(t *testing.T) {
	db := open(t)
	conn := client(t, db, chdb.Access{})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		got <- conn.Exec(ctx, "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 0")
	}()
	running := func() string {
		return text(t, db, chdb.Statement{SQL: "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"})
	}
	waitFor(t, "1", running)
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitFor(t, "0", running)
}

func waitFor(t *testing.T, want string, get func() string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for get() != want {
		if time.Now().After(deadline) {
			t.Fatalf("never became %s", want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestClientLargeAnswer(t *testing.T) {
	conn := client(t, open(t), chdb.Access{})
	rows, err := conn.Query(t.Context(), "SELECT number, toString(number) FROM numbers(500000)")
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for rows.Next() {
		var id uint64
		var s string
		if err := rows.Scan(&id, &s); err != nil || s != fmt.Sprint(id) {
			t.Fatal(id, s, err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if rows.Err() != nil || len(ids) != 500000 || len(slices.Compact(ids)) != 500000 {
		t.Errorf("%d rows, %v", len(ids), rows.Err())
	}
}
