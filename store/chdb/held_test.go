package chdb_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/store/chdb"
)

// TestFailedStatementsHoldNothing lets a statement fail in each of the ways in
// which one can, and takes its table away from another session: a failed
// statement that still holds its table makes that wait for ever.
func TestFailedStatementsHoldNothing(t *testing.T) {
	db := open(t)
	ctx := t.Context()
	fails := map[string]func(table string) error{
		"insert": func(table string) error {
			_, err := db.Insert(ctx, chdb.Statement{SQL: "INSERT INTO " + table}, "TabSeparated", func(w io.Writer) error {
				_, err := io.WriteString(w, "1\n-1\n")
				return err
			})
			return err
		},
		"insert of text": func(table string) error {
			return db.Exec(ctx, chdb.Statement{SQL: "INSERT INTO " + table + " VALUES (-1)"})
		},
		"insert cut off": func(table string) error {
			_, err := db.Insert(ctx, chdb.Statement{SQL: "INSERT INTO " + table}, "TabSeparated", func(w io.Writer) error {
				_, _ = io.WriteString(w, "1\n2\n")
				return io.ErrUnexpectedEOF
			})
			return err
		},
		"select": func(table string) error {
			return db.Query(ctx, chdb.Statement{SQL: "SELECT throwIf(n > 70000) FROM " + table}, "Native", func([]byte) error { return nil })
		},
		"select into a sink that fails": func(table string) error {
			return db.Query(ctx, chdb.Statement{SQL: "SELECT n FROM " + table}, "Native", func([]byte) error { return io.ErrShortWrite })
		},
		"alter": func(table string) error {
			return db.Exec(ctx, chdb.Statement{SQL: "ALTER TABLE " + table + " MODIFY COLUMN n Array(Int64)"})
		},
	}
	for name, fail := range fails {
		t.Run(name, func(t *testing.T) {
			must := func(sql string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				defer cancel()
				if err := db.Exec(ctx, chdb.Statement{SQL: sql}); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			must("CREATE TABLE held (n Int64, CONSTRAINT positive CHECK n >= 0) ENGINE = MergeTree ORDER BY n")
			must("INSERT INTO held SELECT number FROM numbers(100000)")
			if err := fail("held"); err == nil {
				t.Fatal("it does not fail")
			} else {
				t.Log(err)
			}
			began := time.Now()
			must("DETACH TABLE held SYNC")
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the table was held for %v", took)
			}
			must("ATTACH TABLE held")
			must("DROP TABLE held SYNC")
		})
	}
}
