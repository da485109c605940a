package trainer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/model"
)

// oneHot is a training set of categories alone, as the employment files have
// them: most of the rows in few categories, and many categories of few rows.
func oneHot(rows int) *Matrix {
	rng := rand.New(rand.NewPCG(1, 2))
	m := &Matrix{Label: make([]float32, rows), Classes: []string{"0", "1"}}
	margin := make([]float64, rows)
	for j, n := range []int{5, 9, 24, 18, 9, 2, 5, 8, 220, 480} {
		c := Column{Field: Field{Name: fmt.Sprint("c", j), Type: "String"}, Values: make([]float32, rows)}
		effect := make([]float64, n)
		for i := range n {
			c.Categories = append(c.Categories, fmt.Sprint(i))
			effect[i] = rng.NormFloat64() / 2
		}
		for r := range rows {
			v := int(float64(n) * math.Pow(rng.Float64(), 3))
			c.Values[r] = float32(v)
			margin[r] += effect[v]
		}
		m.Columns = append(m.Columns, c)
	}
	for r := range rows {
		if rng.Float64() < 1/(1+math.Exp(-margin[r])) {
			m.Label[r] = 1
		}
	}
	return m
}

// BenchmarkLinearOneHot says what a logistic regression of 48,000 rows with 780
// categories costs in CPU seconds.
func BenchmarkLinearOneHot(b *testing.B) {
	m := oneHot(48_000)
	data := Data{Train: m, Golden: goldenRows(m)}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	steps, loss := 0, 0.0
	watch := Watch{Round: func(_ int, v map[string]map[string]float64) error { loss = v["train"]["loss"]; return nil }}
	for b.Loop() {
		f, err := Linear{}.Fit(b.Context(), data, Params{Task: model.Binary}, watch)
		if err != nil {
			b.Fatal(err)
		}
		steps = f.Rounds
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano())
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(steps), "steps")
	b.ReportMetric(loss, "loss")
}
