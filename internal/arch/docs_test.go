package arch

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

var rewrite = flag.Bool("rewrite", false, "write the table of kinds into docs/contracts.md")

// kindTable is query.Kinds as the documentation shows it.
func kindTable() string {
	var b strings.Builder
	for _, k := range query.Kinds() {
		reads := "–"
		if len(k.Reads) > 0 {
			reads = "`" + strings.Join(k.Reads, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", k.Name, k.Subject, reads, k.Frame)
	}
	return b.String()
}

func TestContractsListEveryKind(t *testing.T) {
	path := filepath.Join(testenv.Root(t), "docs", "contracts.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const rule = "|---|---|---|---|\n"
	head, rows, ok := strings.Cut(string(b), rule)
	if !ok {
		t.Fatal("docs/contracts.md has no table of kinds")
	}
	if *rewrite {
		if err := os.WriteFile(path, []byte(head+rule+kindTable()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if rows != kindTable() {
		t.Errorf("docs/contracts.md does not list the kinds of query.Kinds: go test ./internal/arch -args -rewrite")
	}
}

// A rule whose test is gone is held by nothing.
func TestContractsNameTestsThatExist(t *testing.T) {
	root := testenv.Root(t)
	b, err := os.ReadFile(filepath.Join(root, "docs", "contracts.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(b), -1)
	if len(named) < 20 {
		t.Fatalf("docs/contracts.md names only %d tests", len(named))
	}
	there := testNames(t, root)
	for _, n := range named {
		if !there[n[1]] {
			t.Errorf("docs/contracts.md names %s, which does not exist", n[1])
		}
	}
}

func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	out := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
