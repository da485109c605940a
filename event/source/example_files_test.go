package source

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// replay maps a file by one of the repository's example mappings, decodes what
// it gives, and returns the rows per kind.
func replay(t *testing.T, file, mapping string) map[event.Kind]*sums {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "examples", mapping))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(testenv.Shared(t, "data/"+file), m)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mp, err := NewMapper(m, Options{File: f, KnownAt: "event_time"})
	if err != nil {
		t.Fatal(err)
	}
	c := newDecoding(t)
	n := int64(0)
	for row, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		events, err := mp.Map(row)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			c.add(e)
		}
		n++
	}
	if n != f.Total() {
		t.Fatalf("%d rows, the file says %d", n, f.Total())
	}
	return c.finish()
}

func TestRealFilesDecodeWhole(t *testing.T) {
	for _, x := range []struct{ file, mapping string }{
		{"elec.csv", "elec.yaml"}, {"employment_MA_reference.pq", "employment.yaml"},
		{"employment_MA_analysis.pq", "employment.yaml"}, {"employment_MA_analysis_target.pq", "employment_labels.yaml"},
	} {
		for k, s := range replay(t, x.file, x.mapping) {
			t.Log(x.file, k, s.rows, fmt.Sprint(s.first, s.last), s.columns)
		}
	}
}
