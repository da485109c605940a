package chdb_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/store/chdb"
)

// TestInsertThatComesLateStoresNothing sends the head of an insert and half of
// its rows, sleeps as a stopped process does, and sends the rest.
func TestInsertThatComesLateStoresNothing(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE late (n UInt64) ENGINE = MergeTree ORDER BY n")
	dial := serve(t, db, chdb.Access{})
	for _, c := range []struct {
		seconds int
		rows    string
	}{{1, "0"}, {60, "2"}} {
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /?query=INSERT%%20INTO%%20late%%20FORMAT%%20TSV&max_execution_time=%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n", c.seconds)
		time.Sleep(2 * time.Second)                      // how long the client sleeps
		go io.WriteString(conn, "2\r\n2\n\r\n0\r\n\r\n") //nolint:errcheck // the server may have hung up
		if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			text, _ := io.ReadAll(res.Body)
			t.Logf("%d s: %s %.150s", c.seconds, res.Status, text)
			res.Body.Close()
		}
		conn.Close()
		if got := strings.TrimSpace(text(t, db, chdb.Statement{SQL: "SELECT count() FROM late"})); got != c.rows {
			t.Errorf("an insert of at most %d s that took two stored %s rows, want %s", c.seconds, got, c.rows)
		}
	}
}
