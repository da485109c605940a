package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// totals are what the files hold, read here by other means than Kedge's.
type totals struct {
	events int64
	sums   map[string]map[string]float64 // "kind/subject" → SQL expression → value
}

func (w *totals) add(table, expr string, v float64) {
	if w.sums[table] == nil {
		w.sums[table] = map[string]float64{}
	}
	w.sums[table][expr] += v
}

type personRow struct {
	AGEP       *float64 `parquet:"AGEP,optional"`
	SEX        *string  `parquet:"SEX,optional"`
	Prediction *int64   `parquet:"prediction,optional"`
	Score      *float64 `parquet:"predicted_probability,optional"`
}

type truthRow struct {
	ID       *int64 `parquet:"id,optional"`
	Employed *int64 `parquet:"employed,optional"`
}

func readParquet[T any](t *testing.T, name string) []T {
	t.Helper()
	rows, err := parquet.ReadFile[T](testenv.Shared(t, "data/"+name))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func expectedTotals(t *testing.T) *totals {
	t.Helper()
	w := &totals{sums: map[string]map[string]float64{}}
	w.readElec(t)
	for _, name := range []string{"employment_MA_reference.pq", "employment_MA_analysis.pq"} {
		for _, r := range readParquet[personRow](t, name) {
			w.events += 2
			for _, table := range []string{"features/person", "predictions/employment"} {
				w.add(table, "count()", 1)
				w.add(table, "sum(v_AGEP)", *r.AGEP)
				w.add(table, "countIf(v_SEX = '1.0' OR v_SEX = '1')", map[bool]float64{true: 1}[*r.SEX == "1.0" || *r.SEX == "1"])
			}
			w.add("predictions/employment", "sum(score)", *r.Score)
			w.add("predictions/employment", "countIf(class = '1')", float64(*r.Prediction))
			w.add("predictions/employment", "uniqExact(id)", 1)
		}
	}
	for _, name := range []string{"employment_MA_reference.pq", "employment_MA_analysis_target.pq"} {
		for _, r := range readParquet[truthRow](t, name) {
			w.events++
			w.add("labels/employment", "count()", 1)
			w.add("labels/employment", "sum(label)", float64(*r.Employed))
			w.add("labels/employment", "sum(toInt64(prediction_id))", float64(*r.ID))
		}
	}
	return w
}

func (w *totals) readElec(t *testing.T) {
	t.Helper()
	f, err := os.Open(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	header, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		w.events++
		w.add("features/elec", "count()", 1)
		for i, name := range header {
			v, err := strconv.ParseFloat(row[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			w.add("features/elec", "sum(v_"+name+")", v)
		}
	}
}

// check compares with what SQL says over the read-only port.
func (w *totals) check(t *testing.T, p *kedgeProcess) {
	t.Helper()
	tables := map[string][]string{} // a model has one per input signature
	disk := p.ask(query.Request{Kind: "disk"})[0]
	text := func(name string, i int) string {
		for _, c := range disk.Columns {
			if c.Name == name {
				return c.Values.([]string)[i]
			}
		}
		return ""
	}
	for i := range disk.Rows() {
		key := text("kind", i) + "/" + text("subject", i)
		tables[key] = append(tables[key], text("table", i))
	}
	for key, exprs := range w.sums {
		if len(tables[key]) != 1 {
			t.Errorf("%s has tables %v, want one", key, tables[key])
			continue
		}
		for expr, want := range exprs {
			got := p.sql(t, fmt.Sprintf("SELECT toFloat64(%s) FROM kedge.%s", expr, tables[key][0]))
			v, err := strconv.ParseFloat(got, 64)
			if err != nil || math.Abs(v-want) > 1e-9*math.Abs(want) {
				t.Errorf("%s: %s is %s, the files say %v", key, expr, got, want)
			}
		}
	}
}

// sql asks the read-only ClickHouse port, as any client of ClickHouse would.
func (p *kedgeProcess) sql(t *testing.T, statement string) string {
	t.Helper()
	res, err := http.Get("http://" + p.clickhouse + "/?query=" + url.QueryEscape(statement+" FORMAT TSV"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %s %s %v", statement, res.Status, b, err)
	}
	return strings.TrimSpace(string(b))
}
