package trainer

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
)

// wideRows fills the embedded engine with a view "wide": 50,000 keys, so many
// numbers and a label, one row a second.
func wideRows(b *testing.B, rows, columns int) (*Stored, DataSpec, store.Bounds) {
	b.Helper()
	fatal := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	st, err := store.OpenEmbedded(b.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(b), DataDir: b.TempDir()})
	fatal(err)
	b.Cleanup(func() { st.Close() })
	reg, err := registry.Open(b.Context(), memlog.New(time.Now))
	fatal(err)
	go func() { _ = reg.Run(b.Context()) }()
	number := event.ColumnType{Elem: event.Float64}
	spec := event.ViewSpec{Origin: event.Declared, Online: true, Keys: []event.FieldSpec{{Name: "id", Type: event.ColumnType{Elem: event.Int64}}}}
	d := DataSpec{Labels: &LabelSpec{View: "wide", Column: "y"}}
	for i := range columns {
		spec.Columns = append(spec.Columns, event.FieldSpec{Name: fmt.Sprint("x", i), Type: number})
		d.Features = append(d.Features, fmt.Sprint("wide:x", i))
	}
	spec.Columns = append(spec.Columns, event.FieldSpec{Name: "y", Type: number})
	raw, err := json.Marshal(spec)
	fatal(err)
	_, err = reg.Apply(b.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: "demo", Name: "wide", Op: registry.Put, Spec: raw, Who: "bench"})
	fatal(err)
	online := features.NewOnline()
	fatal(online.Define(reg.State()))
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	d.From, d.To = start, start.Add(time.Duration(rows)*time.Second)
	rng := rand.New(rand.NewPCG(4, 4))
	topic, schema := features.FeatureTopic("demo"), online.View("demo", "wide").Schema
	for from := 0; from < rows; from += 100_000 {
		batch := event.NewBatch(schema, topic)
		for i := from; i < min(rows, from+100_000); i++ {
			addWide(batch, rng, i, start.UnixMicro()+int64(i)*1_000_000)
		}
		fatal(st.Insert(b.Context(), fmt.Sprint("rows ", from), batch))
	}
	fatal(st.Embedded().Exec(b.Context(), chdb.Statement{SQL: "OPTIMIZE TABLE kedge." + schema.Table() + " FINAL"})) // rows of yesterday lie merged
	history := features.NewHistory(features.HistoryConfig{}, online, st)
	return &Stored{History: history, Store: st, Registry: reg}, d, store.Bounds{topic: {0: int64(rows)}}
}

func addWide(b *event.Batch, rng *rand.Rand, i int, at int64) {
	c := b.Columns
	for _, f := range []int{event.ColPartition, event.ColIndex, event.ColEpoch} {
		c[f].Int32s = append(c[f].Int32s, 0)
	}
	for _, f := range []int{event.ColEventTime, event.ColCreated, event.ColKnownAt, event.ColAppended} {
		c[f].Int64s = append(c[f].Int64s, at)
	}
	for _, f := range []int{event.ColID, event.ColTrace, event.ColOverflow} {
		c[f].StrEnds = append(c[f].StrEnds, 0)
	}
	c[event.ColOffset].Int64s = append(c[event.ColOffset].Int64s, int64(i))
	c[event.FeatureDelete].Bools = append(c[event.FeatureDelete].Bools, 0)
	c[b.Schema.KeyStart()].AppendInt64(int64(i) * 7919 % 50_000)
	values := c[b.Schema.ValueStart():]
	last := len(values) - 1
	for j := range last {
		values[j].AppendFloat64(rng.NormFloat64())
	}
	x := func(j int) float64 { v := values[j].Float64s; return v[len(v)-1] }
	values[last].AppendFloat64(float64(b2i(x(0)+x(1)*x(2)+math.Sin(3*x(3))+rng.NormFloat64()/2 > 0)))
	b.Rows++
}

// BenchmarkDataPath goes from 1,000,000 stored rows × 30 to a judged model: 100
// rounds of depth 6 on two threads. path-cpu-s is what it takes until the rows lie
// in XGBoost's matrices: the embedded engine's statements, the join, the matrix and
// its digest, the cut, leaks, the way to the training process, the DMatrix; share is
// what that is of the whole run, evaluation and golden rows included.
func BenchmarkDataPath(b *testing.B) {
	x := xgboost(b)
	data, d, bounds := wideRows(b, 1_000_000, 30)
	var matrix, process, whole float64
	for b.Loop() {
		began := ownCPU()
		j := Job{Name: "wide", Namespace: "demo", Backend: x, Source: data.Source("demo", d, bounds),
			Params: Params{Task: model.Binary, Rounds: 100, Device: CPU, Threads: 2, Extra: map[string]string{"max_depth": "6"}}}
		p, err := j.Load(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		loaded := ownCPU()
		res, err := TrainPrepared(b.Context(), "bench", j, p, Record{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		cost := res.Run.Cost
		matrix, process, whole = matrix+loaded-began, process+cost.DataCPU, whole+ownCPU()-began+cost.CPU
		b.Logf("%d of %d rows trained, log loss %.4f, training process %.1f CPU s", p.Train.Rows(), len(p.Train.Label)+len(p.Valid.Label)+len(p.Test.Label), res.Run.Metrics["test"]["logloss"], cost.CPU)
	}
	n := float64(b.N)
	b.ReportMetric(matrix/n, "matrix-cpu-s")
	b.ReportMetric(process/n, "dmatrix-cpu-s")
	b.ReportMetric(whole/n, "whole-cpu-s")
	b.ReportMetric((matrix+process)/whole, "share")
}
