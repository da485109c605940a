package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/stream"
)

// schemaRegistry answers as Confluent's documentation of its HTTP interface
// says: GET /schemas/ids/{id}. It is down until up is called.
func schemaRegistry(t *testing.T, id int, schema string) (address string, up func()) {
	open := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		select {
		case <-open:
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error_code":50302,"message":"not ready"}`)
			return
		}
		if r.URL.Path != fmt.Sprintf("/schemas/ids/%d", id) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"schema": schema})
	}))
	t.Cleanup(s.Close)
	return s.URL, func() { close(open) }
}

const scoredSchema = `{"type":"record","name":"Scored","namespace":"shop","fields":[
 {"name":"requestId","type":"string"},
 {"name":"ts","type":{"type":"long"}},
 {"name":"predictions","type":{"type":"array","items":{"type":"record","name":"P","fields":[
   {"name":"sku","type":"string"},{"name":"p","type":"double"},{"name":"price","type":["null","float"]}]}}}]}`

const scoredSource = `
kind: Source
name: shop
spec:
  owner: shop-team
  topic: shop.scored
  mapping:
    format: {type: avro}
    explode: predictions
    filter: predictions.sku != "internal"
    events:
    - kind: predictions
      model: shop_ranker
      version: {const: "7"}
      id: {expr: 'requestId + "/" + predictions.sku'}
      time: {field: ts, unit: ms}
      inputs: {only: [predictions.price], rename: {predictions.price: price}}
      output: {score: predictions.p}
`

// foreign is the producer that nobody may touch.
type foreign struct {
	t        *testing.T
	schema   *avro.Schema
	sent     int
	producer *stream.Producer
}

func newForeign(t *testing.T, kafka string, create bool) *foreign {
	c, err := stream.NewClient(stream.Config{Brokers: []string{kafka}, ClientID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if create {
		if err := c.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: "shop.scored", Partitions: 3, Replication: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	return &foreign{t: t, schema: avro.MustParse(scoredSchema), producer: c.Producer(stream.ProducerConfig{})}
}

// send produces records of three predictions each, one of them filtered out.
func (f *foreign) send(ctx context.Context, n int, at time.Time) error {
	var batch []stream.Message
	for range n {
		body, err := f.schema.AppendEncode([]byte{0, 0, 0, 0, 42}, map[string]any{
			"requestId": fmt.Sprintf("r-%d", f.sent), "ts": at.UnixMilli(),
			"predictions": []any{
				map[string]any{"sku": "a", "p": 0.25, "price": float32(9.5)},
				map[string]any{"sku": "b", "p": 0.75, "price": nil},
				map[string]any{"sku": "internal", "p": 0.0, "price": nil},
			},
		})
		if err != nil {
			return err
		}
		f.sent++
		batch = append(batch, stream.Message{Key: fmt.Appendf(nil, "r-%d", f.sent), Value: body})
	}
	return f.producer.Produce(ctx, "shop.scored", batch...)
}

// TestForeignTopic monitors a topic whose producer knows nothing of Kedge: an
// array of predictions per record, its own names, epoch milliseconds, Avro in a
// schema registry's frame. The registry is away at first, the process is killed
// under load, a record is not what it should be, and the mapping changes.
func TestForeignTopic(t *testing.T) {
	dir := t.TempDir()
	registry, up := schemaRegistry(t, 42, scoredSchema)
	t.Setenv("KEDGE_SOURCES_SCHEMA_REGISTRY", registry)
	p := startKedge(t, dir)
	shop := newForeign(t, p.kafka, true)
	now := time.Now()
	if err := shop.send(t.Context(), 500, now); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "shop.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(scoredSource)
	p.must("apply", "-f", file)
	testenv.Eventually(t, 30*time.Second, func() error { // back-pressure with a reason, no loss
		if out, _, _ := p.kedge("status"); !strings.Contains(out, "schema registry") {
			return fmt.Errorf("status does not say that the schema registry is away:\n%s", out)
		}
		return nil
	})
	up()
	draft := p.must("source", "draft", "shop.scored", "--name", "shop_ranker")
	if !strings.Contains(draft, "type: avro") || !strings.Contains(draft, "kind: Source") {
		t.Errorf("draft:\n%s", draft)
	}
	out := p.must("source", "check", file, "--records", "300")
	if !strings.Contains(out, "predictions  600") || !strings.Contains(out, "rejected     0 (0.00%)") || !strings.Contains(out, "Model shop_ranker") {
		t.Errorf("check:\n%s", out)
	}
	landed := func(p *kedgeProcess, want int) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			if got := landed(p, "predictions", "shop_ranker"); got != int64(want) {
				return fmt.Errorf("%d predictions have landed, want %d", got, want)
			}
			return nil
		})
	}
	landed(p, 1000)

	loaded := make(chan error, 1)
	go func() { loaded <- shop.send(t.Context(), 3000, now) }()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	p.kill() // while units are under way
	p = startKedge(t, dir)
	landed(p, 7000)

	shop2 := newForeign(t, p.kafka, false)
	bad, err := base64.StdEncoding.DecodeString("AAAAACoCeA==") // the right schema's id, a body that is cut off
	if err != nil {
		t.Fatal(err)
	}
	if err := shop2.producer.Produce(t.Context(), "shop.scored", stream.Message{Value: bad}, stream.Message{Key: []byte("gone")}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 30*time.Second, func() error {
		if out := p.must("dead-letters", "list"); !strings.Contains(out, "schema") || !strings.Contains(out, "shop.scored") {
			return fmt.Errorf("no dead letter of the foreign topic:\n%s", out)
		}
		return nil
	})
	write(strings.Replace(scoredSource, `filter: predictions.sku != "internal"`, "description: nothing is filtered any more", 1))
	p.must("apply", "-f", file)
	shop2.sent = shop.sent
	if err := shop2.send(t.Context(), 100, now); err != nil {
		t.Fatal(err)
	}
	landed(p, 7300)
	ledger := p.must("query", "ledger", "-o", "csv")
	if !strings.Contains(ledger, "shop.scored") {
		t.Errorf("the ledger does not know the foreign topic:\n%s", ledger)
	}
	testenv.Eventually(t, 20*time.Second, func() error { // the last units' ledger rows
		if n := columnSum(t, p.ask(query.Request{Kind: "ledger"})[0], "records"); n != 3602 {
			return fmt.Errorf("the ledger counts %d records", n)
		}
		return nil
	})
	frames := p.ask(query.Request{Kind: "ledger"})
	for name, want := range map[string]int64{
		"records": 3602, "rows": 7300, "dead_letters": 1, "silent": 3501, // the filtered predictions of 3,500 records, and a tombstone
		"duplicates": 0, "missing": 0, "gap_records": 0, "overlap_records": 0, "unbalanced": 0, "gap_rows": 0, "duplicate_rows": 0, "unledgered_rows": 0,
	} {
		if got := columnSum(t, frames[0], name); got != want {
			t.Errorf("ledger: %s is %d, want %d", name, got, want)
		}
	}
	if n := frames[1].Rows(); n != 0 {
		t.Errorf("ledger: %d findings: %+v", n, frames[1])
	}
	if _, errs, status := p.kedge("apply", "-f", file, "--why", "again"); status != 0 {
		t.Errorf("apply of what is live already: %s", errs)
	}
	second := strings.Replace(scoredSource, "name: shop\n", "name: shop2\n", 1)
	write(second)
	if _, errs, status := p.kedge("apply", "-f", file); status == 0 || !strings.Contains(errs, "a topic has one source") {
		t.Errorf("a second source of the topic: %d %s", status, errs)
	}
}
