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

type shop struct {
	Amount float64  `parquet:"amount"`
	Calm   *float64 `parquet:"calm,optional"`
	City   string   `parquet:"city"`
	Order  string   `parquet:"order"`
}

// writeShop writes rows; shift moves the amounts, and drops calm now and then.
func writeShop(t *testing.T, path string, seed uint64, shift, missing float64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2))
	var rows []shop
	for i := range 4000 {
		calm := rng.Float64()
		r := shop{Amount: shift + rng.NormFloat64(), City: []string{"Rome", "Oslo", "Lima"}[rng.IntN(3)], Order: fmt.Sprint("o", seed, i)}
		if rng.Float64() >= missing {
			r.Calm = &calm
		}
		rows = append(rows, r)
	}
	if err := parquet.WriteFile(path, rows); err != nil {
		t.Fatal(err)
	}
}

func TestCompareTwoFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	writeShop(t, at("a.parquet"), 1, 0, 0)
	writeShop(t, at("same.parquet"), 2, 0, 0)
	writeShop(t, at("moved.parquet"), 3, 0.5, 0.2)
	call := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		status := run(t.Context(), append([]string{"compare"}, args...), strings.NewReader(""), &out, &errs)
		return status, out.String(), errs.String()
	}
	if status, out, errs := call(at("a.parquet"), at("same.parquet")); status != 0 || !strings.Contains(out, "0 of 4 columns drifted") {
		t.Errorf("two samples of one world: %d\n%s%s", status, out, errs)
	}
	status, out, errs := call(at("a.parquet"), at("moved.parquet"), "-o", "json", "--junit", at("j.xml"), "--html", at("p.html"))
	var r files.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 3 || r.Drifted != 2 {
		t.Fatalf("a moved and a missing column: %d %v\n%s%s", status, err, out, errs)
	}
	for _, c := range r.Columns {
		if want := c.Column == "amount" || c.Column == "calm"; c.Drifted != want {
			t.Errorf("%+v", c)
		}
		if c.Column == "calm" && (c.Detector != "missing_rate" || c.Missing < 0.15) || c.Column == "order" && c.Reason == "" {
			t.Errorf("%+v", c)
		}
	}
	checkOutputs(t, at("j.xml"), at("p.html"))
	for want, args := range map[int][]string{
		0: {at("a.parquet"), at("moved.parquet"), "--threshold", "amount=0.9", "--columns", "amount"},
		1: {at("a.parquet"), at("none.parquet")},
		2: {at("a.parquet"), at("moved.parquet"), "--alpha", "7"},
	} {
		if status, out, errs := call(args...); status != want {
			t.Errorf("%v: status %d, want %d\n%s%s", args, status, want, out, errs)
		}
	}
	if err := os.WriteFile(at("cut.parquet"), []byte("PAR1 and no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call(at("cut.parquet"), at("a.parquet")); status != 1 || !strings.Contains(errs, "cut.parquet") {
		t.Errorf("a damaged file: %d %s", status, errs)
	}
}

func checkOutputs(t *testing.T, junit, page string) {
	t.Helper()
	b, err := os.ReadFile(junit)
	var s junitSuite
	if err != nil || xml.Unmarshal(b, &s) != nil || s.Tests != 4 || s.Failures != 2 || s.Skipped != 1 {
		t.Errorf("JUnit %+v (%v)", s, err)
	}
	html, err := os.ReadFile(page)
	if text := string(html); err != nil || strings.Count(text, "<svg") < 3 || strings.Contains(text, "<script") || strings.Contains(text, "http") {
		t.Errorf("the page has %d plots, or needs something else (%v)", strings.Count(string(html), "<svg"), err)
	}
}
