package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// FuzzMapping holds that a mapping which is accepted compiles or is refused,
// and is the same after it was written and read again.
func FuzzMapping(f *testing.F) {
	examples, err := filepath.Glob(filepath.Join(testenv.Root(f), "examples", "*.yaml"))
	if err != nil || len(examples) == 0 {
		f.Fatal("no example mappings", err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("events: [{kind: labels, model: m, label: {expr: a.b}, prediction_id: {const: 1}, time: {field: t, unit: ms, zone: Europe/Berlin}}]")
	f.Add("values: !0000 00000") // the YAML library panics
	f.Add("events: [{kind: labels, model: m, prediction_id: i, label: l, time: {spread: {start: A, end: 2026-01-01}}}]")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse([]byte(text))
		if err != nil {
			return
		}
		if mp, err := NewMapper(m, Options{HashKey: []byte("0123456789abcdef")}); err == nil {
			_, _ = mp.Map(Row{Fields: []event.NamedValue{{Name: "a", Value: event.Int(1)}}}) // must not panic
		}
		first, err := m.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(first)
		if err != nil {
			t.Fatalf("%v in what was written:\n%s", err, first)
		}
		second, err := back.YAML()
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v:\n%s\nbecomes\n%s", err, first, second)
		}
	})
}

// fuzzFile holds that a file yields as many rows and row errors as it states,
// or an error that ends it.
func fuzzFile(t *testing.T, name string, data []byte, m *Mapping) {
	f, err := NewFile(name, bytes.NewReader(data), int64(len(data)), m)
	if err != nil {
		return
	}
	n := int64(0)
	for _, err := range f.Rows() {
		if err != nil && !strings.HasPrefix(err.Error(), "row ") {
			return
		}
		n++
	}
	if n != f.Total() {
		t.Fatalf("%s: %d rows, stated %d: %q", name, n, f.Total(), data)
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n1,2\n\"x\ny\",\n"))
	f.Add([]byte("\xef\xbb\xbfa;b\r\n1;2"))
	f.Add([]byte("a\n\"\n1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzFile(t, "x.csv", data, &Mapping{})
		fuzzFile(t, "x.csv", data, &Mapping{Format: Format{Comma: ";", Header: []string{"p", "q"}}})
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n\n[1]\n{\"a\":{\"b\":[]}}"))
	f.Add([]byte("\r\n \x00\n{"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, "x.jsonl", data, &Mapping{}) })
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetBytes(f, sampleRows(3)))
	f.Add([]byte("PAR1PAR1"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, "x.parquet", data, &Mapping{}) })
}
