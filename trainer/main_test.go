package trainer

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/trainer/xgb"
)

// The test binary is its own training process, as kedge is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "train-worker" {
		os.Exit(WorkerMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

func xgboost(t testing.TB) *XGBoost {
	t.Helper()
	path, err := xgb.Find("", testenv.Root(t))
	if err != nil {
		testenv.Skip(t, testenv.NoLibrary, "%v", err)
	}
	return &XGBoost{Library: path}
}

// sample gathers n rows: two numbers and a category that matter, one number
// that does not, with missing values, one row a minute.
func sample(t testing.TB, n int, kind string, seed uint64) *Matrix {
	t.Helper()
	b, err := NewBuilder(sampleFields(), labelType(kind), DefaultBuilderConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Append(sampleChunk(n, kind, seed)); err != nil {
		t.Fatal(err)
	}
	m, err := b.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sampleFields() []Field {
	return []Field{
		{Name: "age", Type: "Float64", View: "user", ViewVersion: 2},
		{Name: "amount", Type: "Float64", Monotone: 1},
		{Name: "noise", Type: "Int64"},
		{Name: "country", Type: "String"},
	}
}

func labelType(kind string) string {
	if kind == "texts" {
		return "String"
	}
	return "Float64"
}

func sampleChunk(n int, kind string, seed uint64) Chunk {
	rng := rand.New(rand.NewPCG(seed, 77))
	c := Chunk{Columns: make([]ChunkColumn, 4)}
	countries := []string{"DE", "FR", "MT", "SE", "US"}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		age, amount, country := rng.NormFloat64(), rng.NormFloat64(), rng.IntN(5)
		z := 1.5*age + 0.8*amount + float64(country%3) - 1 + 0.5*rng.NormFloat64()
		if rng.IntN(15) == 0 {
			age = math.NaN()
		}
		c.Columns[0].Numbers = append(c.Columns[0].Numbers, age)
		c.Columns[1].Numbers = append(c.Columns[1].Numbers, amount)
		c.Columns[2].Numbers = append(c.Columns[2].Numbers, float64(rng.IntN(100)))
		c.Columns[3].Texts = append(c.Columns[3].Texts, countries[country])
		c.Columns[3].Missing = append(c.Columns[3].Missing, rng.IntN(20) == 0)
		c.Time = append(c.Time, start.Add(time.Duration(i)*time.Minute).UnixMicro())
		switch kind {
		case "binary":
			c.Label.Numbers = append(c.Label.Numbers, float64(b2i(z > 0.3)))
		case "texts":
			c.Label.Texts = append(c.Label.Texts, []string{"low", "mid", "top"}[b2i(z > -0.5)+b2i(z > 1)])
		default:
			c.Label.Numbers = append(c.Label.Numbers, 10*z)
		}
	}
	return c
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// jobOn is a job over given rows.
func jobOn(m *Matrix, b Backend, p Params) Job {
	return Job{
		Name: "example", Namespace: "default", Backend: b, Params: p,
		Source: func(context.Context) (*Matrix, model.Data, error) {
			return m.Select(m.all()), model.Data{Query: "sample"}, nil
		},
	}
}
