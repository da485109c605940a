package trainer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// build gathers chunks of two inputs.
func build(t *testing.T, cfg BuilderConfig, chunks ...Chunk) (*Matrix, error) {
	t.Helper()
	b, err := NewBuilder([]Field{{Name: "x", Type: "Float64"}, {Name: "c", Type: "String"}}, "Float64", cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		if err := b.Append(c); err != nil {
			return nil, err
		}
	}
	return b.Matrix()
}

type row struct {
	x       float64
	c       string
	missing bool
	y       float64
	at      int64
}

func chunkOf(rows ...row) Chunk {
	c := Chunk{Columns: make([]ChunkColumn, 2)}
	c.Columns[1].Texts, c.Label.Numbers = []string{}, []float64{}
	for _, r := range rows {
		c.Columns[0].Numbers = append(c.Columns[0].Numbers, r.x)
		c.Columns[1].Texts = append(c.Columns[1].Texts, r.c)
		c.Columns[1].Missing = append(c.Columns[1].Missing, r.missing)
		c.Label.Numbers = append(c.Label.Numbers, r.y)
		c.Time = append(c.Time, r.at)
	}
	return c
}

func randomRows(n int, seed uint64) []row {
	rng := rand.New(rand.NewPCG(seed, 1))
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{rng.NormFloat64(), string(rune('a' + rng.IntN(9))), rng.IntN(7) == 0, rng.Float64(), int64(i)}
		if rng.IntN(9) == 0 {
			rows[i].x = math.NaN()
		}
	}
	return rows
}

// The digest does not know the order of rows nor how they were cut into
// chunks, and notices everything else.
func TestDigest(t *testing.T) {
	rows := randomRows(200, 3)
	digest := func(chunks ...Chunk) string {
		m, err := build(t, DefaultBuilderConfig(), chunks...)
		if err != nil {
			t.Fatal(err)
		}
		return m.Digest
	}
	want := digest(chunkOf(rows...))
	for seed := range uint64(5) {
		shuffled := slices.Clone(rows)
		rng := rand.New(rand.NewPCG(seed, 2))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		cut := 1 + rng.IntN(198)
		if got := digest(chunkOf(shuffled[:cut]...), chunkOf(shuffled[cut:]...)); got != want {
			t.Fatalf("another order has another digest")
		}
	}
	for name, change := range map[string]func(r []row) []row{
		"one row less":      func(r []row) []row { return r[1:] },
		"one row twice":     func(r []row) []row { return append(r, r[0]) },
		"last bit":          func(r []row) []row { r[7].y = math.Nextafter(r[7].y, 9); return r },
		"below float32":     func(r []row) []row { r[9].x = 1e-300; return r },
		"category":          func(r []row) []row { r[3].c, r[3].missing = "zz", false; return r },
		"missing, not text": func(r []row) []row { r[3].missing = !r[3].missing; return r },
		"time":              func(r []row) []row { r[5].at++; return r },
		"labels exchanged":  func(r []row) []row { r[1].y, r[2].y = r[2].y, r[1].y; return r },
	} {
		if digest(chunkOf(change(slices.Clone(rows))...)) == want {
			t.Errorf("%s: the digest did not change", name)
		}
	}
	minus := slices.Clone(rows)
	minus[0].x = 0
	zero := digest(chunkOf(minus...))
	minus[0].x = math.Copysign(0, -1)
	if digest(chunkOf(minus...)) != zero {
		t.Error("-0 and 0 differ")
	}
}

// Codes follow the categories' names, whatever order rows come in.
func TestCategories(t *testing.T) {
	rows := []row{{c: "b", y: 1}, {c: "a"}, {c: "b"}, {missing: true}, {c: "10"}, {c: "9"}, {c: "b"}}
	for range 3 {
		m, err := build(t, DefaultBuilderConfig(), chunkOf(rows...))
		if err != nil {
			t.Fatal(err)
		}
		c := m.Column("c")
		if !slices.Equal(c.Categories, []string{"9", "10", "a", "b"}) || c.Other {
			t.Fatalf("%v", c.Categories)
		}
		for i, r := range rows {
			if r.missing != (c.Values[i] != c.Values[i]) || !r.missing && c.Categories[int(c.Values[i])] != r.c {
				t.Fatalf("row %d: %v", i, c.Values[i])
			}
		}
		rows = append(rows[1:], rows[0])
	}
	cfg := DefaultBuilderConfig()
	cfg.MaxCategories = 3
	m, err := build(t, cfg, chunkOf(rows...))
	if err != nil {
		t.Fatal(err)
	}
	c := m.Column("c")
	if !slices.Equal(c.Categories, []string{"10", "b", "OTHER"}) || !c.Other {
		t.Fatalf("%v", c.Categories)
	}
	if i := slices.IndexFunc(rows, func(r row) bool { return r.c == "9" }); c.Values[i] != 2 {
		t.Fatalf("a rare category has code %v", c.Values[i])
	}
}

func TestBuilderRefuses(t *testing.T) {
	many := make([]row, 2000)
	for i := range many {
		many[i].c = fmt.Sprint(i)
	}
	cfg := DefaultBuilderConfig()
	cfg.MaxDistinct = 1000
	short := chunkOf(row{}, row{})
	short.Columns[0].Numbers = short.Columns[0].Numbers[:1]
	texts := chunkOf(row{})
	texts.Columns[0] = ChunkColumn{Texts: []string{"many"}}
	heavy := chunkOf(row{})
	heavy.Weight = []float64{math.Inf(1)}
	for name, c := range map[string]struct {
		chunk Chunk
		want  error
	}{
		"no rows":         {chunkOf(), ErrNoRows},
		"cardinality":     {chunkOf(many...), ErrCardinality},
		"NaN label":       {chunkOf(row{}, row{y: math.NaN()}), ErrLabel},
		"infinite label":  {chunkOf(row{y: math.Inf(-1)}), ErrLabel},
		"unequal columns": {short, ErrType},
		"texts":           {texts, ErrType},
		"weight":          {heavy, ErrType},
		"columns":         {Chunk{Columns: make([]ChunkColumn, 1)}, ErrType},
	} {
		if _, err := build(t, cfg, c.chunk); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		} else {
			t.Log(err)
		}
	}
	if _, err := NewBuilder([]Field{{Name: "blob", Type: "Bytes"}}, "Float64", cfg); !errors.Is(err, ErrType) {
		t.Errorf("Bytes: %v", err)
	}
	if _, err := NewBuilder([]Field{{Name: "a", Type: "Float64"}, {Name: "a", Type: "Int64"}}, "Float64", cfg); !errors.Is(err, ErrParam) {
		t.Errorf("twice: %v", err)
	}
}

// What a run could not hold is refused before it is held: rows, and the names
// of categories.
func TestBuilderMemory(t *testing.T) {
	cfg := DefaultBuilderConfig()
	cfg.MaxBytes = runBytes(1500, 2) + 4096 // for the names of nine categories
	first, second := chunkOf(randomRows(1000, 1)...), chunkOf(randomRows(1000, 2)...)
	if _, err := build(t, cfg, first, chunkOf(randomRows(400, 3)...)); err != nil {
		t.Error(err)
	}
	_, err := build(t, cfg, first, second)
	if !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "trainer.memory") {
		t.Errorf("2000 rows where 1500 have room: %v", err)
	}
	if _, err := build(t, cfg, chunkOf(row{c: strings.Repeat("x", 1<<20)}), chunkOf(row{})); !errors.Is(err, ErrMemory) {
		t.Errorf("a name of a megabyte: %v", err)
	}
	cfg.MaxBytes = 0
	if _, err := build(t, cfg, first, second); err != nil {
		t.Errorf("without a bound: %v", err)
	}
}

// Rows of one moment stay together, and no row is lost.
func TestSplitByTime(t *testing.T) {
	rows := randomRows(100, 1)
	for i := range rows {
		rows[i].at = int64(i / 10)
	}
	m, err := build(t, DefaultBuilderConfig(), chunkOf(rows...))
	if err != nil {
		t.Fatal(err)
	}
	for _, share := range [][2]float64{{0.7, 0.15}, {0.34, 0.33}, {0.5, 0.5}, {0.99, 0.01}} {
		s, err := SplitByShare(m, share[0], share[1])
		if err != nil {
			t.Fatal(err)
		}
		train, valid, test, err := s.Apply(m)
		if err != nil {
			t.Fatal(err)
		}
		if n := train.Rows() + valid.Rows() + test.Rows(); n != 100 || train.Rows()%10 != 0 || valid.Rows()%10 != 0 {
			t.Errorf("%v: %d + %d + %d rows", share, train.Rows(), valid.Rows(), test.Rows())
		}
		if d := math.Abs(float64(train.Rows()) - 100*share[0]); d > 10 {
			t.Errorf("%v: %d rows train", share, train.Rows())
		}
		if valid.Rows() > 0 && slices.Max(train.Time) >= slices.Min(valid.Time) {
			t.Errorf("%v: training sees the future", share)
		}
	}
}
