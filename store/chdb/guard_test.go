package chdb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/kedge-ml/kedge/store/chdb"
)

// httpClient is a bare client of a handler.
type httpClient struct {
	c *http.Client
}

func bare(t *testing.T, db *chdb.DB, a chdb.Access) httpClient {
	dial := serve(t, db, a)
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	t.Cleanup(tr.CloseIdleConnections)
	return httpClient{&http.Client{Transport: tr}}
}

// ask posts a statement and returns status, answer and exception code.
func (h httpClient) ask(t *testing.T, q url.Values, body string) (status int, answer, code string) {
	t.Helper()
	res, err := h.c.Post("http://localhost/?"+q.Encode(), "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header.Get("X-ClickHouse-Exception-Code")
}

const secret = "the-secret-in-a-file"

// attack is a statement that must not run on the read-only port. Those with
// works are first shown to succeed where nothing guards.
type attack struct {
	name, sql string
	works     bool
	params    map[string]string
}

func attacks(file, out string) []attack {
	f := func(format string) string { return strings.ReplaceAll(format, "FILE", file) }
	return []attack{
		{name: "file table function", sql: f("SELECT * FROM file('FILE', 'LineAsString')"), works: true},
		{name: "upper case", sql: f("SELECT * FROM FILE('FILE', 'LineAsString')")},
		{name: "quoted name", sql: f("SELECT * FROM `file`('FILE', 'LineAsString')"), works: true},
		{name: "comment inside", sql: f("SELECT * FROM file/**/('FILE', /* x */ 'LineAsString') -- "), works: true},
		{name: "subquery", sql: f("SELECT * FROM (SELECT * FROM (SELECT * FROM file('FILE', 'LineAsString')))"), works: true},
		{name: "CTE", sql: f("WITH x AS (SELECT * FROM file('FILE', 'LineAsString')) SELECT * FROM x"), works: true},
		{name: "scalar subquery", sql: f("SELECT (SELECT any(line) FROM file('FILE', 'LineAsString'))"), works: true},
		{name: "WITH scalar", sql: f("WITH (SELECT any(line) FROM file('FILE', 'LineAsString')) AS x SELECT x"), works: true},
		{name: "join", sql: f("SELECT line FROM system.one CROSS JOIN file('FILE', 'LineAsString') AS f"), works: true},
		{name: "IN subquery", sql: f("SELECT '" + secret + "' IN (SELECT line FROM file('FILE', 'LineAsString')) ? '" + secret + "' : ''"), works: true},
		{name: "union", sql: f("SELECT '' AS line UNION ALL SELECT line FROM file('FILE', 'LineAsString')"), works: true},
		{name: "intersect", sql: f("SELECT line FROM file('FILE', 'LineAsString') INTERSECT SELECT '" + secret + "'"), works: true},
		{name: "exists", sql: f("SELECT if(EXISTS(SELECT 1 FROM file('FILE', 'LineAsString')), '" + secret + "', '')"), works: true},
		{name: "lambda", sql: f("SELECT arrayMap(x -> (SELECT any(line) FROM file('FILE', 'LineAsString')), [1])"), works: true},
		{name: "order by", sql: f("SELECT '" + secret + "' ORDER BY (SELECT any(line) FROM file('FILE', 'LineAsString'))"), works: true},
		{name: "FROM first", sql: f("FROM file('FILE', 'LineAsString') SELECT *"), works: true},
		{name: "scalar file function", sql: f("SELECT file('FILE')"), works: true},
		{name: "file database", sql: f("SELECT * FROM default.`FILE`"), works: true},
		{name: "file database in IN", sql: f("SELECT '" + secret + "' FROM system.one WHERE 'x' NOT IN default.`FILE`"), works: true},
		{name: "file database in join", sql: f("SELECT f.* FROM system.one JOIN default.`FILE` AS f ON 1"), works: true},
		{name: "identifier parameter", sql: "SELECT * FROM default.{t:Identifier}", params: map[string]string{"t": file}, works: true},
		{name: "database parameter", sql: f("SELECT * FROM {d:Identifier}.`FILE`"), params: map[string]string{"d": "default"}, works: true},
		{name: "view", sql: "SELECT * FROM hiding", works: true},
		{name: "view over view", sql: "SELECT * FROM kedge.hiding2", works: true},
		{name: "view in CTE with an alias", sql: "WITH q AS (SELECT * FROM hiding2 AS h) SELECT * FROM q", works: true},
		{name: "parameterised view", sql: "SELECT * FROM hiding_p(f = '" + file + "')", works: true},
		{name: "view in system's shade", sql: "SELECT * FROM system.one, hiding", works: true},
		{name: "file engine table", sql: "SELECT * FROM filetable", works: true},
		{name: "merge over it", sql: "SELECT * FROM merge('kedge', 'filetable')", works: true},
		{name: "loop", sql: "SELECT * FROM loop(kedge.filetable) LIMIT 1", works: true},
		{name: "view function", sql: f("SELECT * FROM view(SELECT * FROM file('FILE', 'LineAsString'))"), works: true},
		{name: "user-defined function", sql: "SELECT readsfile()", works: true},
		{name: "describe", sql: f("DESCRIBE TABLE file('FILE', 'LineAsString')")},
		{name: "explain", sql: f("EXPLAIN SELECT * FROM file('FILE', 'LineAsString')")},
		{name: "outfile", sql: "SELECT 1 INTO OUTFILE '" + out + "'"},
		{name: "outfile with format", sql: "SELECT 1 INTO OUTFILE '" + out + "' TRUNCATE FORMAT CSV"},
		{name: "insert into function", sql: "INSERT INTO FUNCTION file('" + out + "', 'CSV', 'x Int64') SELECT 1"},
		{name: "insert", sql: "INSERT INTO t SELECT 1"},
		{name: "two statements", sql: "SELECT 1; DROP TABLE t"},
		{name: "two statements behind a comment", sql: "SELECT 1 /* ; */ ; -- \n DROP TABLE t"},
		{name: "parallel with", sql: "SELECT 1 PARALLEL WITH DROP TABLE t"},
		{name: "drop", sql: "DROP TABLE t"},
		{name: "create", sql: "CREATE TABLE z (a Int64) ENGINE=Memory"},
		{name: "create temporary", sql: "CREATE TEMPORARY TABLE z (a Int64)"},
		{name: "create as", sql: f("CREATE TABLE z ENGINE=Memory AS SELECT * FROM file('FILE', 'LineAsString')")},
		{name: "alter", sql: "ALTER TABLE t ADD COLUMN b Int64"},
		{name: "delete", sql: "DELETE FROM t WHERE 1"},
		{name: "truncate", sql: "TRUNCATE TABLE t"},
		{name: "optimize", sql: "OPTIMIZE TABLE t"},
		{name: "system", sql: "SYSTEM STOP MERGES"},
		{name: "kill", sql: "KILL QUERY WHERE 1"},
		{name: "backup", sql: "BACKUP TABLE t TO File('" + out + "')"},
		{name: "attach", sql: "ATTACH TABLE z FROM '" + out + "' (a Int64) ENGINE=MergeTree ORDER BY a"},
		{name: "use", sql: "USE default"},
		{name: "set", sql: "SET readonly = 0"},
		{name: "set in select", sql: "SELECT 1 SETTINGS readonly = 0"},
		{name: "set in subquery", sql: "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)"},
		{name: "url", sql: "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'x String')"},
		{name: "s3", sql: "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV', 'x String')"},
		{name: "remote", sql: "SELECT * FROM remote('127.0.0.1:1', system.one)"},
		{name: "remoteSecure", sql: "SELECT * FROM remoteSecure('127.0.0.1:1', system.one)"},
		{name: "cluster", sql: "SELECT * FROM cluster('default', system.one)"},
		{name: "executable", sql: "SELECT * FROM executable('x', 'CSV', 'x String')"},
		{name: "mysql", sql: "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')"},
		{name: "postgresql", sql: "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')"},
		{name: "sqlite", sql: "SELECT * FROM sqlite('" + out + "', 't')"},
		{name: "input", sql: "SELECT * FROM input('x String')"},
		{name: "format", sql: "SELECT * FROM format(CSV, '1')"},
		{name: "dictionary", sql: "SELECT * FROM dictionary('d')"},
		{name: "dictGet", sql: "SELECT dictGet('d', 'a', 1)"},
		{name: "sleep", sql: "SELECT sleep(3)"},
		{name: "empty", sql: " -- nothing\n"},
		{name: "not SQL", sql: "hello"},
	}
}

func plant(t *testing.T, db *chdb.DB, file string) {
	run(t, db, "CREATE TABLE t (a Int64, s String) ENGINE=MergeTree ORDER BY a", "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
		"CREATE VIEW honest AS SELECT a, s FROM t WHERE a > 1",
		"CREATE VIEW hiding AS SELECT * FROM file('"+file+"', 'LineAsString')",
		"CREATE VIEW hiding2 AS SELECT * FROM (SELECT * FROM hiding)",
		"CREATE VIEW hiding_p AS SELECT * FROM file({f:String}, 'LineAsString')",
		"CREATE TABLE filetable (line String) ENGINE = File('LineAsString', '"+file+"')")
}

func TestReadOnlyPortRefuses(t *testing.T) {
	db := open(t)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "secret.txt"), filepath.Join(dir, "written")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plant(t, db, file)
	unguarded, guarded := bare(t, db, chdb.Access{}), bare(t, db, chdb.Access{ReadOnly: true})
	for _, a := range attacks(file, out) {
		t.Run(a.name, func(t *testing.T) {
			q := url.Values{}
			for k, v := range a.params {
				q.Set("param_"+k, v)
			}
			if strings.Contains(a.sql, "readsfile") {
				run(t, db, "CREATE FUNCTION readsfile AS () -> file('"+file+"')")
				defer run(t, db, "DROP FUNCTION readsfile")
			}
			if a.works {
				if status, answer, _ := unguarded.ask(t, q, a.sql); status != 200 || !strings.Contains(answer, secret) {
					t.Fatalf("the attack does not work unguarded, so refusing it shows nothing: %d %s", status, answer)
				}
			}
			status, answer, code := guarded.ask(t, q, a.sql)
			if status == 200 || code != "497" && code != "62" || strings.Contains(answer, secret) && !strings.Contains(a.sql, secret) {
				t.Errorf("got %d, code %s: %.300s", status, code, answer)
			}
		})
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("a file was written: %v %v", entries, err)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}); got != "2" {
		t.Errorf("table t holds %s rows", got)
	}
}

func TestReadOnlyPortAnswers(t *testing.T) {
	db := open(t)
	plant(t, db, "/nowhere")
	guarded := bare(t, db, chdb.Access{ReadOnly: true})
	cases := []struct{ sql, want string }{
		{"SELECT count() FROM t", "2"},
		{"SELECT s FROM kedge.t WHERE a = 1", "x"},
		{"select `a` from `kedge`.`t` order by 1 desc limit 1", "2"},
		{"SELECT a FROM honest", "2"},
		{"WITH x AS (SELECT a FROM t), y AS (SELECT a FROM x) SELECT sum(a) FROM x JOIN y USING a", "3"},
		{"SELECT a FROM t WHERE a IN (SELECT a FROM honest)", "2"},
		{"SELECT a FROM t AS l ANY LEFT JOIN t AS r ON l.a = r.a ORDER BY a LIMIT 1", "1"},
		{"SELECT count() FROM system.tables WHERE database = 'kedge' AND name = 't'", "1"},
		{"SELECT count() FROM information_schema.tables WHERE table_name = 't'", "1"},
		{"SELECT sum(number) FROM numbers(10)", "45"},
		{"SELECT 'file(x)'", "file(x)"},
		{"SELECT file.a FROM t AS file WHERE file.a = 1", "1"},
		{"SELECT {v:String}", "a b"},
		{"SELECT 1 UNION ALL SELECT 1", "1\n1"},
	}
	for _, c := range cases {
		status, answer, _ := guarded.ask(t, url.Values{"param_v": {"a b"}}, c.sql)
		if status != 200 || strings.TrimSpace(answer) != c.want {
			t.Errorf("%s: %d %q, want %q", c.sql, status, answer, c.want)
		}
	}
}

func TestReadOnlyPortSettings(t *testing.T) {
	db := open(t)
	guarded := bare(t, db, chdb.Access{ReadOnly: true})
	read := func(q url.Values) (int, string) {
		status, answer, _ := guarded.ask(t, q, "SELECT getSetting('readonly'), getSetting('max_execution_time'), getSetting('max_memory_usage') > 0")
		return status, strings.TrimSpace(answer)
	}
	if status, answer := read(url.Values{"max_execution_time": {"5"}}); status != 200 || answer != "1\t5\ttrue" && answer != "1\t5\t1" {
		t.Errorf("%d %q", status, answer)
	}
	for _, k := range []string{"readonly", "max_memory_usage", "allow_ddl", "log_comment", "format_schema", "http_write_exception_in_output_format", "no_such_setting"} {
		if status, answer := read(url.Values{k: {"0"}}); status == 200 && !strings.HasPrefix(answer, "1\t") {
			t.Errorf("setting %s: %d %s", k, status, answer)
		}
	}
	for _, d := range []string{"default", "nowhere"} {
		if status, _ := read(url.Values{"database": {d}}); status == 200 {
			t.Errorf("database %s was accepted", d)
		}
	}
}

// The driver itself must work on the read-only port.
func TestReadOnlyPortDriver(t *testing.T) {
	db := open(t)
	plant(t, db, "/nowhere")
	conn := client(t, db, chdb.Access{ReadOnly: true, User: "reader", Password: "p"})
	var n uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM t WHERE a >= {a:Int64}", clickhouse.Named("a", "1")).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d %v", n, err)
	}
	var ex *clickhouse.Exception
	if err := conn.Exec(t.Context(), "DROP TABLE t"); !errors.As(err, &ex) || ex.Code != 497 {
		t.Errorf("drop: %v", err)
	}
}

func TestPassword(t *testing.T) {
	db := open(t)
	conn := client(t, db, chdb.Access{User: "kedge", Password: "right"})
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	dial := serve(t, db, chdb.Access{User: "kedge", Password: "right"})
	for _, auth := range []clickhouse.Auth{{Username: "kedge", Password: "wrong"}, {Username: "other", Password: "right"}, {Username: "kedge"}, {}} {
		c, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{"localhost:80"}, Auth: auth,
			DialContext: func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }})
		if err != nil {
			t.Fatal(err)
		}
		var ex *clickhouse.Exception
		if err := c.Ping(t.Context()); !errors.As(err, &ex) || ex.Code != 516 {
			t.Errorf("%+v: %v", auth, err)
		}
		c.Close()
	}
	h := bare(t, db, chdb.Access{User: "kedge", Password: "right"})
	if status, _, _ := h.ask(t, url.Values{"user": {"kedge"}, "password": {"right"}}, "SELECT 1"); status == 200 {
		t.Error("a password in the URL, which logs keep, was accepted")
	}
}

// Reads with GET must not be able to write: a link or an image tag can make
// any browser send one.
func TestGetCannotWrite(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE t (a Int64) ENGINE=MergeTree ORDER BY a")
	h := bare(t, db, chdb.Access{})
	get := func(sql string) int {
		res, err := h.c.Get("http://localhost/?query=" + url.QueryEscape(sql))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := get("SELECT 1"); got != 200 {
		t.Errorf("select: %d", got)
	}
	if got := get("DROP TABLE t"); got != 403 {
		t.Errorf("drop: %d", got)
	}
	if got := get("INSERT INTO t VALUES (1)"); got != 403 {
		t.Errorf("insert: %d", got)
	}
	if got := text(t, db, chdb.Statement{SQL: "EXISTS t"}); got != "1" {
		t.Error("the table is gone")
	}
}

// Data that breaks off must not be stored, in no form in which it can come.
func TestCutInsertStoresNothing(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE t (a Int64) ENGINE=MergeTree ORDER BY a")
	h := bare(t, db, chdb.Access{})
	whole := strings.Repeat("1\n", 1000)
	send := func(body io.Reader) (int, error) {
		res, err := h.c.Post("http://localhost/?query="+url.QueryEscape("INSERT INTO t FORMAT TabSeparated"), "", body)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	for _, size := range []int{1, 100_000, 5_000_000} {
		data := strings.Repeat(whole, size/len(whole)+1)
		broken := io.MultiReader(strings.NewReader(data), brokenReader{})
		if status, err := send(broken); err == nil && status == 200 {
			t.Errorf("%d bytes, then broken: status %d", len(data), status)
		}
		waitFor(t, "0", func() string { return text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}) })
	}
	if status, err := send(strings.NewReader(whole)); err != nil || status != 200 {
		t.Errorf("the whole: %d %v", status, err)
	}
	waitFor(t, "1000", func() string { return text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}) })
}

// A compressed stream that ends inside a block, though the request is whole.
func TestCutBlockStoresNothing(t *testing.T) {
	db := open(t)
	run(t, db, "CREATE TABLE t (a Int64) ENGINE=MergeTree ORDER BY a")
	h := bare(t, db, chdb.Access{})
	var body []byte
	var first int
	for _, m := range []compress.Method{compress.LZ4, compress.ZSTD} {
		w := compress.NewWriter(compress.LevelZero, m)
		if err := w.Compress([]byte(strings.Repeat("1\n", 1000))); err != nil {
			t.Fatal(err)
		}
		body = append(body, w.Data...)
		first = max(first, len(w.Data)*(1-min(1, first)))
	}
	send := func(b []byte) int {
		q := url.Values{"query": {"INSERT INTO t FORMAT TabSeparated"}, "decompress": {"1"}}
		status, _, _ := h.ask(t, q, string(b))
		return status
	}
	for _, cut := range []int{1, 24, 25, first - 1, first + 3, first + 25, len(body) - 1} {
		if status := send(body[:cut]); status == 200 {
			t.Errorf("cut at %d of %d: status %d", cut, len(body), status)
		}
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}); got != "0" {
		t.Errorf("cut streams left %s rows", got)
	}
	if status := send(body); status != 200 {
		t.Errorf("the whole: %d", status)
	}
	if got := text(t, db, chdb.Statement{SQL: "SELECT count() FROM t"}); got != "2000" {
		t.Errorf("the whole: %s rows, want 2000", got)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, fmt.Errorf("the client's disk failed") }
