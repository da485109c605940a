package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store/chdb"
)

// TestClusterDDL reads what a cluster would be told. The engine's own parser
// takes it; no cluster has run it.
func TestClusterDDL(t *testing.T) {
	o := DefaultOptions()
	o.Cluster, o.Durability = "main", PowerLoss
	view := event.NewSchema(event.Features, "n", "v", 7, []event.Field{{Name: "k", Type: event.ColumnType{Elem: event.String}}}, nil)
	sql := newTable(o.Database, view).create(o)
	for _, want := range []string{" ON CLUSTER `main` ", "ENGINE = ReplicatedMergeTree\n", "replicated_deduplication_window = 10000", "fsync_after_insert = 1"} {
		if !strings.Contains(sql, want) {
			t.Errorf("no %q in\n%s", want, sql)
		}
	}
	if strings.Contains(sql, "non_replicated") {
		t.Errorf("settings of a lone server in\n%s", sql)
	}
	if got := exactlyOnce(o); got["insert_quorum"] != "auto" || exactlyOnce(DefaultOptions())["insert_quorum"] != "" {
		t.Errorf("insert settings: %v", got)
	}
	s, err := OpenEmbedded(t.Context(), EmbeddedConfig{Options: DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cluster := &Store{opt: o}
	statements := []string{sql}
	for _, step := range cluster.migrations() {
		statements = append(statements, step...)
	}
	for _, sql := range statements {
		if err := s.Embedded().Query(t.Context(), chdb.Statement{SQL: fmt.Sprint("EXPLAIN AST ", sql)}, "Null", func([]byte) error { return nil }); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
