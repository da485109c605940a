package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/stream"
)

// apicurio starts an Apicurio Registry and returns the address of its Confluent
// interface.
func apicurio(t *testing.T) string {
	t.Helper()
	jars, _ := filepath.Glob(filepath.Join(testenv.Root(t), ".deps", "apicurio", "*-runner.jar"))
	if len(jars) != 1 {
		t.Fatal("no registry in .deps/apicurio: third_party/apicurio/fetch.sh puts it there")
	}
	_, port, _ := net.SplitHostPort(testenv.Address(t))
	log, err := os.Create(filepath.Join(t.TempDir(), "apicurio.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("java", "-Xmx512m", "-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port="+port, "-jar", jars[0])
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
	address := "http://127.0.0.1:" + port + "/apis/ccompat/v7"
	testenv.Eventually(t, 5*time.Minute, func() error {
		res, err := http.Get(address + "/subjects")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the registry answers %s", res.Status)
		}
		return nil
	})
	return address
}

// register writes a schema to the registry as a producer's serializer does, and
// returns its id.
func register(t *testing.T, address, subject, schema string) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{"schema": schema})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(address+"/subjects/"+subject+"/versions", "application/vnd.schemaregistry.v1+json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ ID int }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.ID == 0 {
		t.Fatalf("register a schema: %s %v", res.Status, err)
	}
	return answer.ID
}

// TestTortureSchemaRegistry reads a topic in Avro against a real registry: two
// versions of a schema, by the ids that it gave them, and an id that it does not
// have.
func TestTortureSchemaRegistry(t *testing.T) {
	if os.Getenv("KEDGE_TORTURE") == "" {
		testenv.Skip(t, testenv.Short, "make torture runs it: it starts a real schema registry")
	}
	address := apicurio(t)
	newer := strings.Replace(scoredSchema, `{"name":"ts"`, `{"name":"shop","type":["null","string"],"default":null},{"name":"ts"`, 1)
	ids := []int{register(t, address, "shop.scored-value", scoredSchema), register(t, address, "shop.scored-value", newer)}
	t.Setenv("KEDGE_SOURCES_SCHEMA_REGISTRY", address)
	dir := t.TempDir()
	p := startKedge(t, dir)
	shop := newForeign(t, p.kafka, true)
	var batch []stream.Message
	for n, schema := range []string{scoredSchema, newer} {
		for i := range 100 {
			row := map[string]any{"requestId": fmt.Sprint(n, "-", i), "ts": time.Now().UnixMilli(), "predictions": []any{
				map[string]any{"sku": "a", "p": 0.25, "price": float32(9.5)}, map[string]any{"sku": "internal", "p": 0.0, "price": nil}}}
			if n == 1 {
				row["shop"] = "north"
			}
			body, err := avro.MustParse(schema).AppendEncode([]byte{0, 0, 0, 0, byte(ids[n])}, row)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, stream.Message{Value: body})
		}
	}
	batch = append(batch, stream.Message{Value: []byte{0, 0, 0, 0, 250, 2, 'x'}})
	if err := shop.producer.Produce(t.Context(), "shop.scored", batch...); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(file, []byte(scoredSource), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := p.kedge("source", "check", file); !strings.Contains(out, "predictions  200") {
		t.Errorf("check:\n%s", out)
	}
	p.must("apply", "-f", file)
	testenv.Eventually(t, time.Minute, func() error {
		f := p.ask(query.Request{Kind: "ledger"})[0]
		if rows, dead := columnSum(t, f, "rows"), columnSum(t, f, "dead_letters"); rows != 200 || dead != 1 {
			return fmt.Errorf("%d rows and %d dead letters", rows, dead)
		}
		return nil
	})
	if out := p.must("dead-letters", "list"); !strings.Contains(out, "no readable schema") {
		t.Errorf("dead letters:\n%s", out)
	}
	p.mustBalance()
}
