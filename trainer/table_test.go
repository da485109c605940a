package trainer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A matrix written as Parquet comes back with every value, name and time.
func TestParquetRoundTrip(t *testing.T) {
	for _, kind := range []string{"binary", "texts"} {
		m := sample(t, 20_000, kind, 2) // several chunks
		rng := rand.New(rand.NewPCG(1, 1))
		for range m.Rows() {
			m.Weight = append(m.Weight, rng.Float32())
		}
		var b bytes.Buffer
		if err := WriteParquet(&b, m, false); err != nil {
			t.Fatal(err)
		}
		got, err := ReadParquet(bytes.NewReader(b.Bytes()), int64(b.Len()),
			Table{Label: "__label", Weight: "__weight", Time: "__time"}, DefaultBuilderConfig())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Label, m.Label) || !slices.Equal(got.Classes, m.Classes) || !slices.Equal(got.Weight, m.Weight) || !slices.Equal(got.Time, m.Time) {
			t.Errorf("%s: label, weight or time differ", kind)
		}
		for _, want := range m.Columns {
			c := got.Column(want.Name)
			if !slices.Equal(c.Categories, want.Categories) || !slices.EqualFunc(c.Values, want.Values, func(a, b float32) bool { return a == b || a != a && b != b }) {
				t.Errorf("%s: column %s differs", kind, want.Name)
			}
		}
	}
}

func TestReadCSV(t *testing.T) {
	const text = "when,x,c,drop,y,w\n" +
		"2026-01-01T00:00:00Z,1.5,a,z,yes,1\n" +
		"2026-01-01T00:00:01Z,,b,z,no,2\n" +
		"2026-01-01T00:00:02Z,3,,z,yes,0.5\n"
	table := Table{Label: "y", Weight: "w", Time: "when", Drop: []string{"drop"}}
	m, err := ReadCSV(strings.NewReader(text), table, DefaultBuilderConfig())
	if err != nil {
		t.Fatal(err)
	}
	x, c := m.Column("x").Values, m.Column("c").Values
	if len(m.Columns) != 2 || x[0] != 1.5 || x[1] == x[1] || c[1] != 1 || c[2] == c[2] || !slices.Equal(m.Classes, []string{"no", "yes"}) || m.Weight[2] != 0.5 {
		t.Errorf("%+v", m)
	}
	if m.Time[1]-m.Time[0] != 1_000_000 {
		t.Errorf("times %v", m.Time)
	}
	for name, c := range map[string]struct {
		text  string
		table Table
		want  error
	}{
		"no label":    {text, Table{Label: "z"}, ErrParam},
		"header only": {"a,y\n", Table{Label: "y"}, ErrNoRows},
		"bad time":    {strings.Replace(text, "00:00:01Z", "noon", 1), table, ErrType},
		"late text":   {"x,y\n" + strings.Repeat("1,0\n", chunkRows) + "oops,1\n", Table{Label: "y"}, ErrType},
	} {
		if _, err := ReadCSV(strings.NewReader(c.text), c.table, DefaultBuilderConfig()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadCSV(strings.NewReader("a,b\n1\n"), Table{Label: "b"}, DefaultBuilderConfig()); err == nil {
		t.Error("a short line was read")
	}
	if _, err := ReadParquet(strings.NewReader("PAR1 no"), 7, Table{Label: "y"}, DefaultBuilderConfig()); err == nil {
		t.Error("read what is no Parquet")
	}
}
