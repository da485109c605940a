package files

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmptyColumnHasNoType: a column without a value is told as such, and
// nobody says that it held numbers.
func TestEmptyColumnHasNoType(t *testing.T) {
	const rows = 400
	table := func(value func(i int) string) *Table {
		var b strings.Builder
		b.WriteString("y,x\n")
		for i := range rows {
			fmt.Fprintf(&b, "%d,%s\n", i%7, value(i))
		}
		path := filepath.Join(t.TempDir(), "x.csv")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = out.Close() })
		return out
	}
	sides := map[string]func(int) string{
		"empty":   func(int) string { return "" },
		"texts":   func(i int) string { return []string{"hills", "harbour", "old town"}[i%3] },
		"numbers": func(i int) string { return fmt.Sprint(i * i % 11) },
		"ids":     func(i int) string { return fmt.Sprintf("id-%d", i) },
	}
	for _, c := range []struct {
		ref, cur string
		drifted  bool
		says     string
	}{
		{"empty", "texts", false, "not compared, the reference has no value"},
		{"empty", "numbers", false, "not compared, the reference has no value"},
		{"empty", "empty", false, "not compared, the reference has no value"},
		{"ids", "empty", false, "not compared, it looks like an identifier"},
		{"texts", "empty", true, "without a usable value in 100.0 % of rows"},
		{"numbers", "empty", true, "without a usable value in 100.0 % of rows"},
		{"texts", "numbers", true, "; texts in the reference, numbers in the new file"},
		{"ids", "numbers", true, "another type: texts in the reference, numbers in the new file"},
	} {
		r, err := Compare(table(sides[c.ref]), table(sides[c.cur]), DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for r.Columns[i].Column != "x" {
			i++
		}
		x := r.Columns[i]
		typed := strings.Contains(x.Sentence, " in the new file") && strings.Contains(x.Sentence, " in the reference")
		if x.Drifted != c.drifted || !strings.Contains(x.Sentence, c.says) || typed && (c.ref == "empty" || c.cur == "empty") {
			t.Errorf("%s to %s: drifted %v, %q; want %v, %q", c.ref, c.cur, x.Drifted, x.Sentence, c.drifted, c.says)
		}
	}
}
