package store_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// hostile is a name that would end a quoted one, a string and a statement, if
// any of them were pasted together.
const hostile = "a`.\"b\"'; DROP TABLE x -- \\ {p:String} é"

func quoted(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// openOutside is a store beside which another database stands.
func openOutside(t testing.TB, tables ...store.OutsideTable) *store.Store {
	cfg := config(t)
	cfg.Outside = tables
	s := openAt(t, cfg)
	text(t, s, "CREATE DATABASE warehouse")
	return s
}

// outsideView is a view of namespace test over an outside table.
func outsideView(id uint64, from event.FromSpec, values ...event.Field) *event.Schema {
	s := features(id, values...)
	s.From = &from
	return s
}

const describe = "SELECT groupArray((name, type)) FROM system.columns WHERE database = 'kedge' AND table = "

// TestOutsideView reads a table that Kedge did not make, through the columns
// that a stored view has, whatever the names in it.
func TestOutsideView(t *testing.T) {
	s := openOutside(t, store.OutsideTable{Name: "people", Namespaces: []string{"test"}, Database: "warehouse", Table: hostile})
	text(t, s, "CREATE TABLE warehouse."+quoted(hostile)+" (`event_time` Nullable(DateTime('Europe/Berlin')), `created` Nullable(DateTime64(3, 'UTC')), "+quoted(hostile)+" LowCardinality(Nullable(String)), "+
		"`v_n` UInt64, big Nullable(UInt32), `d.x` Decimal(10, 2), `ns` Array(Nullable(Int16)), day Date32, e Enum8('a' = 1, 'b' = 2), flag Bool) ENGINE = MergeTree ORDER BY tuple()")
	text(t, s, "INSERT INTO warehouse."+quoted(hostile)+" VALUES ('2026-03-01 13:00:00', '2026-03-01 12:00:01.250', 'u1', 18, 7, 1.25, [1, NULL], '2026-03-01', 'b', true), "+
		"('2026-03-01 13:00:00', NULL, 'u1', 9007199254740993, NULL, -0.01, [], '1960-01-01', 'a', false), (NULL, NULL, 'u2', 1, 1, 1, [], '2026-03-01', 'a', false), ('2026-03-01 13:00:00', NULL, NULL, 1, 1, 1, [], '2026-03-01', 'a', false)")
	values := []event.Field{field("n", scalar(event.Int64)), field("big", scalar(event.Float64)), field("d.x", scalar(event.Float64)), field("ns", list(event.Int64)),
		field("day", scalar(event.Timestamp)), field("e", scalar(event.String)), field("flag", scalar(event.Bool)), field("n2", scalar(event.Int64))}
	view := outsideView(7, event.FromSpec{Table: "people", EventTime: "event_time", Created: "created", Columns: event.Names{"user": hostile, "n": "v_n", "n2": "v_n"}}, values...)
	prepare(t, s, view, features(8, values...))
	if got, want := text(t, s, describe+"'features_7'"), text(t, s, describe+"'features_8'"); got != want {
		t.Errorf("the view's columns are not a stored table's:\n%s\n%s", got, want)
	}
	const all = "SELECT k_user, toUnixTimestamp(event_time), toUnixTimestamp64Micro(created), toUnixTimestamp64Micro(known_at), v_n, v_n2, v_big, `v_d%2Ex`, v_ns, toUnixTimestamp64Micro(v_day), v_e, v_flag, _offset >= 0 FROM features_7 ORDER BY v_n"
	want := "u1\t1772366400\t1772366401250000\t1772366401250000\t18\t18\t7\t1.25\t[1,NULL]\t1772323200000000\tb\ttrue\t1\n" +
		"u1\t1772366400\t1772366400000000\t1772366400000000\t9007199254740993\t9007199254740993\t\\N\t-0.01\t[]\t-315619200000000\ta\tfalse\t1"
	if got := text(t, s, all); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := text(t, s, "SELECT uniqExact(_offset) FROM features_7"); got != "2" {
		t.Errorf("rows of one key and time have %s places in their order", got)
	}
	text(t, s, "INSERT INTO warehouse."+quoted(hostile)+" VALUES ('2026-03-01 13:00:00', NULL, 'u3', 18446744073709551615, 1, 1, [], '2026-03-01', 'a', false)")
	err := s.Embedded().Exec(t.Context(), chdb.Statement{SQL: "SELECT v_n FROM features_7 FORMAT Null"})
	if err == nil {
		t.Error("a number that Int64 cannot hold was read as another one")
	}
}

// TestOutsideRefusals: what is not allowed, not there or of another shape is
// refused with a sentence that says what to do.
func TestOutsideRefusals(t *testing.T) {
	s := openOutside(t,
		store.OutsideTable{Name: "t", Namespaces: []string{"test"}, Database: "warehouse", Table: "t"},
		store.OutsideTable{Name: "other's", Namespaces: []string{"elsewhere"}, Database: "warehouse", Table: "t"},
		store.OutsideTable{Name: "gone", Namespaces: []string{"*"}, Database: "warehouse", Table: "gone"},
		store.OutsideTable{Name: "nowhere", Namespaces: []string{"*"}, Database: "nowhere", Table: "t"},
		store.OutsideTable{Name: "files", Namespaces: []string{"*"}, Parquet: filepath.Join(t.TempDir(), "*.parquet")})
	text(t, s, "CREATE TABLE warehouse.t (user String, ts DateTime, day String, x Float64, n Int64, xs Array(Float64)) ENGINE = MergeTree ORDER BY tuple()")
	x := field("x", scalar(event.Float64))
	for _, c := range []struct {
		from   event.FromSpec
		value  event.Field
		remedy string
	}{
		{event.FromSpec{Table: "unknown", EventTime: "ts"}, x, "outside.tables of the configuration"},
		{event.FromSpec{Table: "other's", EventTime: "ts"}, x, "namespace test may read no outside table"},
		{event.FromSpec{Table: "gone", EventTime: "ts"}, x, "it is not there"},
		{event.FromSpec{Table: "nowhere", EventTime: "ts"}, x, "it is not there"},
		{event.FromSpec{Table: "files", EventTime: "ts"}, x, "no Parquet files"},
		{event.FromSpec{Table: "t", EventTime: "when"}, x, `from.event_time: there is no column "when"`},
		{event.FromSpec{Table: "t", EventTime: "day"}, x, "is String, which is no Timestamp: that is read from DateTime"},
		{event.FromSpec{Table: "t", EventTime: "ts", Created: "x"}, x, "from.created: column"},
		{event.FromSpec{Table: "t", EventTime: "ts", KnownAt: "absent"}, x, "from.known_at: there is no column"},
		{event.FromSpec{Table: "t", EventTime: "ts"}, field("y", scalar(event.Float64)), `column y: there is no column "y"`},
		{event.FromSpec{Table: "t", EventTime: "ts"}, field("n", scalar(event.Float64)), "is Int64, which is no Float64"},
		{event.FromSpec{Table: "t", EventTime: "ts"}, field("xs", scalar(event.Float64)), "which is no Float64"},
		{event.FromSpec{Table: "t", EventTime: "ts"}, field("x", list(event.Float64)), "which is no List(Float64)"},
		{event.FromSpec{Table: "t", EventTime: "ts", Columns: event.Names{"user": "x"}}, x, "key part user"},
	} {
		view := outsideView(9, c.from, c.value)
		for _, err := range []error{s.CheckOutside(t.Context(), view), s.Prepare(t.Context(), []*event.Schema{view})} {
			if !errors.Is(err, store.ErrOutside) || !strings.Contains(err.Error(), c.remedy) {
				t.Errorf("%+v, %s: got %v, want %q", c.from, c.value.Name, err, c.remedy)
			}
		}
	}
	if got := text(t, s, "SELECT count() FROM system.tables WHERE name = 'features_9'"); got != "0" {
		t.Error("a view that was refused is there")
	}
	stored := features(10)
	insert(t, s, "1", batch(stored, 0, 4))
	again := outsideView(10, event.FromSpec{Table: "t", EventTime: "ts"})
	if err := s.Prepare(t.Context(), []*event.Schema{again}); !errors.Is(err, store.ErrOutside) || text(t, s, "SELECT count() FROM features_10") != "4" {
		t.Errorf("stored rows were replaced by an outside table: %v", err)
	}
}

// TestOutsideIsOnlyRead: nothing that changes or removes Kedge's rows reaches an
// outside table, and its view goes alone.
func TestOutsideIsOnlyRead(t *testing.T) {
	s := openOutside(t, store.OutsideTable{Name: "t", Namespaces: []string{"test"}, Database: "warehouse", Table: "t"})
	text(t, s, "CREATE TABLE warehouse.t (user String, ts DateTime, x Float64) ENGINE = MergeTree ORDER BY tuple()")
	text(t, s, "INSERT INTO warehouse.t SELECT 'u' || toString(number), toDateTime('2026-03-01 12:00:00', 'UTC') + number, number FROM numbers(10)")
	view, stored := outsideView(1, event.FromSpec{Table: "t", EventTime: "ts"}), features(2)
	prepare(t, s, view)
	insert(t, s, "1", batch(stored, 0, 10))
	const sum = "SELECT count(), sum(cityHash64(*)) FROM warehouse.t"
	before := text(t, s, sum)

	if err := s.SetRetentions(t.Context(), func(*event.Schema) store.Kept { return store.Kept{For: time.Second} }); err != nil {
		t.Errorf("retention: %v", err)
	}
	parts := map[string]string{"user": "u3"}
	if got, err := s.Forget(t.Context(), "test", parts, nil); err != nil {
		t.Errorf("forget: %v", err)
	} else {
		for _, f := range got {
			if f.Table == "features_1" {
				t.Errorf("the certificate counts rows that are not Kedge's: %+v", f)
			}
		}
	}
	if n, err := s.EraseDeleted(t.Context(), view, minute*2); n != 0 || err != nil {
		t.Errorf("erased %d, %v", n, err)
	}
	if got, err := s.HoldsOutside(t.Context(), "test", parts); err != nil || fmt.Sprint(got) != "[{view1 t 1}]" {
		t.Errorf("what is outside of the entity: %v, %v", got, err)
	}
	if got, err := s.HoldsOutside(t.Context(), "elsewhere", parts); err != nil || len(got) != 0 {
		t.Errorf("another namespace's: %v, %v", got, err)
	}
	if _, found, err := s.AuditLedger(t.Context(), "", time.Time{}); err != nil || len(found) != 0 {
		t.Errorf("audit: %v, %v", found, err)
	}
	if err := s.Insert(t.Context(), "2", batch(view, 0, 1)); err == nil {
		t.Error("a row was inserted")
	}
	s.Keep([]*event.Schema{stored})
	if err := s.DropOutside(t.Context(), []*event.Schema{stored}); err != nil {
		t.Error(err)
	}
	if got := text(t, s, "SELECT groupArray(name) FROM (SELECT name FROM system.tables WHERE match(name, '^features_') OR database = 'warehouse' ORDER BY name)"); got != "['features_2','t']" {
		t.Errorf("after the definition is gone: %s", got)
	}
	if after := text(t, s, sum); after != before {
		t.Errorf("the outside table changed: %s, before %s", after, before)
	}
}

// TestOutsideParquet reads a folder of Parquet files, the newest one too, and the
// same as objects of a bucket, without a key.
func TestOutsideParquet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openOutside(t, store.OutsideTable{Name: "files", Namespaces: []string{"*"}, Parquet: filepath.Join(dir, "*.parquet")},
		store.OutsideTable{Name: "objects", Namespaces: []string{"*"}, S3: objects(t, dir)})
	write := func(name, rows string) {
		text(t, s, "INSERT INTO FUNCTION file("+quotedText(filepath.Join(dir, name))+", 'Parquet', 'user String, ts DateTime64(6, \\'UTC\\'), x Float64') VALUES "+rows)
	}
	write("a.parquet", "('u1', '2026-03-01 12:00:00.000001', 1.5)")
	view := outsideView(1, event.FromSpec{Table: "files", EventTime: "ts"})
	prepare(t, s, view)
	write("b.parquet", "('u2', '2026-03-01 12:00:01', 2.5), ('u3', '2026-03-01 12:00:02', nan)")
	if got := text(t, s, "SELECT k_user, toUnixTimestamp64Micro(event_time), v_x FROM features_1 ORDER BY k_user"); got != "u1\t1772366400000001\t1.5\nu2\t1772366401000000\t2.5\nu3\t1772366402000000\tnan" {
		t.Errorf("got %s", got)
	}
	prepare(t, s, outsideView(2, event.FromSpec{Table: "objects", EventTime: "ts"}))
	const both = "SELECT groupArray((k_user, event_time, v_x)) FROM (SELECT * FROM features_%d ORDER BY k_user)"
	if got, want := text(t, s, fmt.Sprintf(both, 2)), text(t, s, fmt.Sprintf(both, 1)); got != want {
		t.Errorf("objects give %s, files %s", got, want)
	}
	for b, err := range s.History(t.Context(), store.HistoryQuery{Schema: view, From: minute, To: minute + 1_000_000}) {
		if err != nil || b.Rows != 2 {
			t.Errorf("history has %v, %v", b, err)
		}
	}
	for _, name := range []string{"a.parquet", "b.parquet"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range s.History(t.Context(), store.HistoryQuery{Schema: view, From: minute, To: minute * 2}) {
		if !errors.Is(err, store.ErrOutside) {
			t.Errorf("without files: %v", err)
		}
		return
	}
	t.Error("without files the history is empty")
}

// TestOutsideGone opens a store, and brings back its backup elsewhere, where the
// outside table is not there any more.
func TestOutsideGone(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t)
	cfg.Outside = []store.OutsideTable{{Name: "files", Namespaces: []string{"*"}, Parquet: filepath.Join(dir, "*.parquet")}, {Name: "t", Namespaces: []string{"*"}, Database: "warehouse", Table: "t"}}
	s, err := store.OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	text(t, s, "CREATE DATABASE warehouse")
	text(t, s, "CREATE TABLE warehouse.t (user String, ts DateTime, x Float64) ENGINE = MergeTree ORDER BY tuple()")
	text(t, s, "INSERT INTO FUNCTION file("+quotedText(filepath.Join(dir, "a.parquet"))+", 'Parquet') SELECT 'u' AS user, now64(6, 'UTC') AS ts, 1.5 AS x")
	stored := features(3)
	views := []*event.Schema{outsideView(1, event.FromSpec{Table: "files", EventTime: "ts"}), outsideView(2, event.FromSpec{Table: "t", EventTime: "ts"})}
	prepare(t, s, views...)
	insert(t, s, "1", batch(stored, 0, 10))
	backup := filepath.Join(s.Embedded().BackupDir(), "b.tar")
	if err := s.Embedded().Backup(t.Context(), "kedge", backup, ""); err != nil {
		t.Fatal(err)
	}
	text(t, s, "DROP TABLE warehouse.t")
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(dir, "a.parquet"))); err != nil {
		t.Fatal(err)
	}
	holds := func(s *store.Store) {
		t.Helper()
		if got := text(t, s, "SELECT count() FROM features_3"); got != "10" {
			t.Errorf("%s stored rows", got)
		}
		if _, _, err := s.AuditLedger(t.Context(), "", time.Time{}); err != nil {
			t.Errorf("audit: %v", err)
		}
		for _, v := range views {
			if err := s.Prepare(t.Context(), []*event.Schema{v}); !errors.Is(err, store.ErrOutside) {
				t.Errorf("%s: %v", v.Subject, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err = store.OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	holds(s)
	elsewhere := cfg
	elsewhere.DataDir = t.TempDir()
	restoreInto(t, elsewhere, backup)
	if s, err = store.OpenEmbedded(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	holds(s)
}

// objects is a bucket: it lists and serves files of a folder as S3 does.
func objects(t testing.TB, dir string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a request is signed")
		}
		if r.URL.Query().Get("list-type") != "2" {
			name := filepath.Join(dir, filepath.Base(r.URL.Path))
			if info, err := os.Stat(name); err == nil {
				w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(info.Size())))
			}
			http.ServeFile(w, r, name)
			return
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><IsTruncated>false</IsTruncated>`)
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Error(err)
				continue
			}
			fmt.Fprintf(w, `<Contents><Key>visits/%s</Key><LastModified>2026-03-01T12:00:00.000Z</LastModified><ETag>&quot;%d&quot;</ETag><Size>%d</Size></Contents>`, filepath.Base(f), info.Size(), info.Size())
		}
		fmt.Fprint(w, `</ListBucketResult>`)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/bucket/visits/*.parquet"
}

func quotedText(s string) string { return "'" + strings.ReplaceAll(s, "'", "\\'") + "'" }
