package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// pastLoan is a row of the Parquet history.
type pastLoan struct {
	ID     int64   `parquet:"id"`
	At     int64   `parquet:"at_ms"`
	Amount float64 `parquet:"amount"`
	Score  float64 `parquet:"score"`
	Truth  *int64  `parquet:"truth,optional"`
}

const loanMapping = `
events:
- kind: features
  view: loan
  key: {id: id}
  time: {field: at_ms, unit: ms}
  values: {only: [amount]}
- kind: predictions
  model: risk
  version: {const: "1"}
  id: {expr: 'string(id)'}
  time: {field: at_ms, unit: ms}
  inputs: {only: [amount]}
  output: {score: score}
- kind: labels
  model: risk
  prediction_id: {expr: 'string(id)'}
  label: truth
  time: {field: at_ms, unit: ms, shift: 30d}
`

// TestImport stores the history in a CSV and in a Parquet file past the broker:
// what the tables hold is what the files say, known when the files say, a
// second run adds nothing, and the ledger is balanced, after a kill too.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	p := startKedge(t, dir)
	elec := testenv.Shared(t, "data/elec.csv")
	first := []string{"import", elec, "--map", "../../examples/elec.yaml", "--known-at", "event_time"}
	if _, errs, status := p.kedge(first...); status != 0 || !strings.Contains(errs, "45312 events imported: 45312 rows, 0 dead letters; 0 were there already") {
		t.Fatalf("import elec.csv: %d %s", status, errs)
	}
	loans, mapping := filepath.Join(t.TempDir(), "loans.parquet"), filepath.Join(t.TempDir(), "loans.yaml")
	if err := os.WriteFile(mapping, []byte(loanMapping), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	var rows []pastLoan
	labels := int64(0)
	want := &totals{sums: map[string]map[string]float64{}}
	for i := range int64(2000) {
		r := pastLoan{ID: i, At: begin.Add(time.Duration(i) * time.Minute).UnixMilli(), Amount: float64(i) / 4, Score: float64(i%7) / 7}
		if i%3 == 0 {
			truth := i % 2
			r.Truth, labels = &truth, labels+1
			want.add("labels/risk", "sum(label)", float64(truth))
			want.add("labels/risk", "count()", 1)
		}
		rows = append(rows, r)
		want.add("features/loan", "sum(v_amount)", r.Amount)
		want.add("features/loan", "count()", 1)
		want.add("features/loan", "countIf(known_at != event_time)", 0)
		want.add("features/loan", "countIf(appended_at < now() - 3600)", 0)
		want.add("predictions/risk", "sum(score)", r.Score)
	}
	if err := parquet.WriteFile(loans, rows); err != nil {
		t.Fatal(err)
	}
	p.must("import", loans, "--map", mapping, "--known-at", "event_time")
	want.readElec(t)
	want.check(t, p)
	records := 45312 + 4000 + labels
	p.checkLedger(records, 0)
	for range 2 {
		if _, errs, status := p.kedge(first...); status != 0 || !strings.Contains(errs, "0 events imported: 0 rows, 0 dead letters; 45312 were there already") {
			t.Errorf("import elec.csv again: %d %s", status, errs)
		}
		p.checkLedger(records, 0)
		p.kill()
		p = startKedge(t, dir)
	}
	if out := p.must("get", "Import"); !strings.Contains(out, "elec.csv") || !strings.Contains(out, "loans.parquet") {
		t.Errorf("the registry does not tell of the imports: %s", out)
	}
	if _, errs, status := p.kedge("import", elec, "--map", "../../examples/elec.yaml"); status != 2 || !strings.Contains(errs, "--known-at") {
		t.Errorf("an import that does not say when its rows were known: %d %s", status, errs)
	}
	if status, body := post(t, p.http+"/v1/imports", `{"id":"../../etc"}`); status != 400 || !strings.Contains(body, "SHA-256") {
		t.Errorf("an id that is none: %d %s", status, body)
	}
	if f := p.ask(query.Request{Kind: "incidents"}); len(f) > 0 && f[0].Rows() != 0 {
		t.Errorf("history opened incidents: %+v", f[0])
	}
}
