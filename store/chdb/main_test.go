package chdb_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

func config(t testing.TB) chdb.Config {
	cfg := chdb.DefaultConfig()
	cfg.LibPath = testenv.LibCHDB(t)
	cfg.DataDir = t.TempDir()
	return cfg
}

func open(t testing.TB) *chdb.DB {
	t.Helper()
	db, err := chdb.Open(t.Context(), config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// serve runs the HTTP interface without a port and returns its dial function.
func serve(t testing.TB, db *chdb.DB, a chdb.Access) func(context.Context) (net.Conn, error) {
	t.Helper()
	pipe := chdb.NewPipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Serve(ctx, pipe, a) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pipe.Dial
}

// client is an ordinary clickhouse-go connection to the engine.
func client(t testing.TB, db *chdb.DB, a chdb.Access, change ...func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	dial := serve(t, db, a)
	opt := &clickhouse.Options{
		Protocol:     clickhouse.HTTP,
		Addr:         []string{"embedded:80"},
		MaxOpenConns: 8,
		MaxIdleConns: 8,
		DialTimeout:  10 * time.Second,
		Auth:         clickhouse.Auth{Username: a.User, Password: a.Password},
		DialContext:  func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) },
	}
	for _, f := range change {
		f(opt)
	}
	conn, err := clickhouse.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func run(t testing.TB, db *chdb.DB, sqls ...string) {
	t.Helper()
	for _, sql := range sqls {
		if err := db.Exec(t.Context(), chdb.Statement{SQL: sql}); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// text is a statement's answer, tab separated.
func text(t testing.TB, db *chdb.DB, s chdb.Statement) string {
	t.Helper()
	var sb strings.Builder
	err := db.Query(t.Context(), s, "TabSeparated", func(b []byte) error { sb.Write(b); return nil })
	if err != nil {
		t.Fatalf("%s: %v", s.SQL, err)
	}
	return strings.TrimSpace(sb.String())
}
