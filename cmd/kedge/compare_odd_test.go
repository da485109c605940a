package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/drift/files"
)

// odd is a row of the types that files have beside numbers and texts.
type odd struct {
	Plain  float64  `parquet:"plain"`
	Money  int64    `parquet:"money,decimal(2:10)"`
	Day    int32    `parquet:"day,date"`
	At     int64    `parquet:"at,timestamp(millisecond)"`
	Flag   bool     `parquet:"flag"`
	City   string   `parquet:"city,dict"`
	Empty  *float64 `parquet:"empty,optional"`
	Inside struct {
		Deep float64 `parquet:"deep"`
	} `parquet:"inside"`
	List []float64 `parquet:"list,list"`
}

func writeOdd(t *testing.T, path string, seed uint64, n int) {
	t.Helper()
	rng, rows := rand.New(rand.NewPCG(seed, 5)), make([]odd, n)
	for i := range rows {
		r := &rows[i]
		r.Plain, r.Money, r.Day, r.At = rng.NormFloat64(), rng.Int64N(100_000), 20_000+rng.Int32N(30), 1_700_000_000_000+rng.Int64N(86_400_000)
		r.Flag, r.City, r.Inside.Deep, r.List = rng.IntN(3) == 0, []string{"Rome", "Oslo"}[rng.IntN(2)], rng.NormFloat64(), []float64{1, 2}
	}
	if err := parquet.WriteFile(path, rows); err != nil {
		t.Fatal(err)
	}
}

// TestCompareOddFiles: what files hold that nobody thought of is compared, or
// refused in words that say what to do; never called calm.
func TestCompareOddFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeOdd(t, filepath.Join(dir, "a.parquet"), 1, 600)
	writeOdd(t, filepath.Join(dir, "b.parquet"), 2, 600)
	writeOdd(t, filepath.Join(dir, "one.parquet"), 3, 1)
	writeOdd(t, filepath.Join(dir, "none.parquet"), 3, 0)
	table := func(format string, head string) string {
		b := &strings.Builder{}
		b.WriteString(head)
		for i := range 300 {
			fmt.Fprintf(b, format, i%7, "ab"[i%2])
		}
		return b.String()
	}
	write("r.csv", table("%d,%c\n", "x,c\n"))
	write("mark.csv", table("%d,%c\r\n", "\xef\xbb\xbfx,c\r\n"))
	write("semicolon.csv", table("%d;%c\n", "x;c\n"))
	write("holes.csv", table("%d,%c\n", "x,c\nNA,a\nnull,b\n,a\n"))
	write("word.csv", strings.Replace(table("%d,%c\n", "x,c\n"), "\n3,b", "\nthree,b", 1))
	write("words.csv", table("v%d-"+strings.Repeat("%[2]c", 3)+"\n", "x\n"))
	write("ids.csv", func() string {
		b := &strings.Builder{}
		b.WriteString("x\n")
		for i := range 300 {
			fmt.Fprintf(b, "id-%d\n", i)
		}
		return b.String()
	}())
	write("twice.csv", "x,x\n1,2\n")
	write("head.csv", "x,c\n")
	write("nothing.csv", "")
	write("ragged.csv", "x,c\n1,a\n2\n")
	write("text.parquet", "x")
	for _, c := range []struct {
		files  string
		status int
		says   []string
	}{
		{"a.parquet b.parquet", 0, []string{"money     numeric", "day       numeric", "at        numeric", "flag      categorical", "inside.deep  numeric", "empty: not compared, the reference has no value of it", "list.list.element: not compared, a row has several", "0 of 8 columns"}},
		{"a.parquet one.parquet", 0, []string{"plain may be as the reference has it", "and chance explains it (p", "1 rows against 600"}},
		{"one.parquet one.parquet", 0, []string{"too few values"}},
		{"a.parquet none.parquet", 1, []string{"0 in the new file: there is nothing to compare"}},
		{"none.parquet a.parquet", 1, []string{"0 rows in the reference"}},
		{"a.parquet r.csv", 1, []string{"no column in common: the reference has plain, money", "the new file x, c"}},
		{"r.csv mark.csv", 0, []string{"0 of 2 columns"}},
		{"r.csv holes.csv", 0, []string{"x       numeric"}},
		{"r.csv word.csv", 0, []string{"x       categorical", "c       categorical"}},
		{"r.csv ids.csv", 3, []string{`x moved`, `; numbers in the reference, texts in the new file, such as "id-0"`, "c: only in the reference"}},
		{"ids.csv r.csv", 3, []string{"x has another type: texts in the reference", "c: only in the new file"}},
		{"r.csv semicolon.csv", 1, []string{"the reference has x, c, the new file x;c"}},
		{"r.csv twice.csv", 1, []string{`twice.csv: two of its columns are called "x"`}},
		{"r.csv head.csv", 1, []string{"there is nothing to compare"}},
		{"r.csv nothing.csv", 1, []string{"nothing.csv: the file is empty"}},
		{"r.csv ragged.csv", 1, []string{"ragged.csv", "line 3"}},
		{"r.csv text.parquet", 1, []string{"text.parquet"}},
	} {
		names := strings.Fields(c.files)
		var out, errs bytes.Buffer
		status := run(t.Context(), []string{"compare", filepath.Join(dir, names[0]), filepath.Join(dir, names[1])}, strings.NewReader(""), &out, &errs)
		bad := status != c.status
		for _, s := range c.says {
			flat := strings.Join(strings.Fields(out.String()+errs.String()), " ")
			bad = bad || !strings.Contains(flat, strings.Join(strings.Fields(s), " "))
		}
		if bad {
			t.Errorf("%s: status %d, want %d and %q\n%s%s", c.files, status, c.status, c.says, out.String(), errs.String())
		}
	}
	var out, errs bytes.Buffer
	page := filepath.Join(dir, "j.xml")
	run(t.Context(), []string{"compare", filepath.Join(dir, "ids.csv"), filepath.Join(dir, "r.csv"), "-o", "json", "--junit", page}, strings.NewReader(""), &out, &errs)
	var r files.Result
	var s junitSuite
	b, err := os.ReadFile(page)
	if err != nil || json.Unmarshal(out.Bytes(), &r) != nil || xml.Unmarshal(b, &s) != nil || r.Drifted != 1 || r.Columns[0].Detector != "type" || s.Failures != 1 || !strings.Contains(s.Cases[0].Failure.Message, "another type") {
		t.Errorf("a type that changed: %v\n%s\n%s", err, out.String(), b)
	}
}
