package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

const featureDefinitions = `kind: FeatureView
name: driver
spec:
  origin: declared
  online: true
  ttl: 7d
  keys: [{name: driver_id, type: Int64}]
  columns: [{name: rating, type: Float64}, {name: city, type: String}]
---
kind: WindowView
name: activity
spec:
  source: driver
  features:
    - {name: rows_1h, function: count, window: 1h}
    - {name: best_7d, function: max, column: rating, window: 7d}
---
kind: FeatureService
name: eta
spec: {features: ["driver:rating", "activity"]}
`

// TestTrainingSets walks what a data scientist does: a table of labels with
// features, what a model was served with its labels, and all entities; then
// restarts, and reads the windows that were filled from stored rows.
func TestTrainingSets(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	p := startKedge(t, data)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p.must("apply", "-f", file("defs.yaml", featureDefinitions))
	ago := func(d time.Duration) string { return time.Now().UTC().Add(-d).Format(time.RFC3339Nano) }
	p.send(fmt.Sprintf(`{"view":"driver","key":{"driver_id":7},"event_time":%q,"known_at":%[1]q,"values":{"rating":4.5,"city":"Riga"}}
{"view":"driver","key":{"driver_id":7},"event_time":%[2]q,"values":{"rating":4,"city":"Riga"}}
{"view":"driver","key":{"driver_id":9},"event_time":%[2]q,"values":{"rating":3,"city":"Oslo"}}
{"model":"eta","version":"1","id":"p1","event_time":%[2]q,"key":{"driver_id":7},"inputs":{"rating":4.5},"output":{"score":0.9},"weight":2}
{"model":"eta","version":"1","id":"p2","event_time":%[2]q,"key":{"driver_id":9},"inputs":{"rating":3},"output":{"score":0.1}}
{"model":"eta","prediction_id":"p1","label":0,"event_time":%[2]q}
{"model":"eta","prediction_id":"p1","label":1,"event_time":%[3]q,"weight":0.5}
`, ago(48*time.Hour), ago(2*time.Minute), ago(time.Minute)))
	p.caughtUp(7)
	history := func(args ...string) (rows []string, said string) {
		t.Helper()
		out := filepath.Join(dir, "out.csv")
		said = p.must(append([]string{"features", "history", "-o", out}, args...)...)
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n"), said
	}
	labels := file("labels.csv", fmt.Sprintf("driver_id,event_timestamp,y\n7,%s,1\n7,%s,0\n8,%[1]s,0\n7,%[2]s,0\n", ago(24*time.Hour), ago(-time.Second)))
	rows, said := history("--entities", labels, "--service", "eta")
	if len(rows) != 5 || !strings.HasSuffix(rows[1], ",1,4.5,0,4.5") || !strings.HasSuffix(rows[2], ",0,4,1,4.5") || !strings.HasSuffix(rows[3], ",0,,0,") || rows[4] != rows[2] {
		t.Fatalf("with labels:\n%s\n%s", strings.Join(rows, "\n"), said)
	}
	if !strings.Contains(said, "4 rows") || !strings.Contains(said, "driver: 1 without a value; of 0 a newer row was not yet known") {
		t.Fatalf("it said %q", said)
	}
	rows, _ = history("--from-predictions", "eta", "--with-labels", "--features", "driver:city")
	if len(rows) != 2 || rows[0] != "prediction_id,event_timestamp,version,driver_id,input__rating,score,class,value,label,label_class,weight,city" ||
		!strings.HasPrefix(rows[1], "p1,") || !strings.HasSuffix(rows[1], ",1,7,4.5,0.9,,,1,,1,Riga") {
		t.Fatalf("from predictions:\n%s", strings.Join(rows, "\n"))
	}
	if rows, _ = history("--from-predictions", "eta"); len(rows) != 3 {
		t.Fatalf("from predictions without labels:\n%s", strings.Join(rows, "\n"))
	}
	rows, _ = history("--all-entities", "--features", "driver:rating", "--at", ago(24*time.Hour), "--at", ago(0))
	if len(rows) != 5 || !strings.HasSuffix(rows[1], ",4.5") || !strings.HasSuffix(rows[2], ",4") || !strings.HasSuffix(rows[3], "Z,") || !strings.HasSuffix(rows[4], ",3") {
		t.Fatalf("all entities:\n%s", strings.Join(rows, "\n"))
	}
	if out, errs, status := p.kedge("features", "history", "-o", "x.csv", "--all-entities"); status != 1 || !strings.Contains(errs, "name features") {
		t.Fatalf("all entities of nothing: %d %s%s", status, out, errs)
	}
	if _, errs, status := p.kedge("features", "history", "-o", "x.csv"); status != 2 || !strings.Contains(errs, "--entities") {
		t.Fatalf("nothing asked for: %d %s", status, errs)
	}
	out := filepath.Join(dir, "drawn.csv")
	for _, quiet := range []bool{false, true} {
		drawn := onTerminal(t, func(terminal *os.File) {
			args := []string{"--server", p.http, "features", "history", "-o", out, "--entities", labels, "--service", "eta", fmt.Sprintf("--quiet=%v", quiet)}
			if status := run(t.Context(), args, strings.NewReader(""), io.Discard, terminal); status != 0 {
				t.Fatalf("on a terminal: status %d", status)
			}
		})
		whole, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		if quiet && drawn != "" || !quiet && (!strings.Contains(drawn, out) || !strings.Contains(drawn, fmt.Sprintf("(%d B", whole.Size()))) {
			t.Fatalf("quiet %v: of %d bytes was drawn %q", quiet, whole.Size(), drawn)
		}
	}
	online := func(p *kedgeProcess) {
		t.Helper()
		testenv.Eventually(t, 30*time.Second, func() error {
			_, got := post(t, p.http+"/get-online-features", `{"feature_service":"eta","entities":{"driver_id":[7]}}`)
			for _, want := range []string{`{"values":[4.0],`, `{"values":[1],`, `{"values":[4.5],`} {
				if !strings.Contains(got, want) {
					return fmt.Errorf("no %s in %s", want, got)
				}
			}
			return nil
		})
	}
	online(p)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	online(startKedge(t, data))
}

// TestImportFeast applies what a Feast repository defines to a server, and reads
// one of its services.
func TestImportFeast(t *testing.T) {
	repo := t.TempDir()
	registry, err := os.ReadFile(filepath.Join(testenv.Root(t), "features", "testdata", "feast-registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"feature_store.yaml": "project: demo\nregistry: {path: r.db}\n", "r.db": string(registry)} {
		if err := os.WriteFile(filepath.Join(repo, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defs, notes, status := runKedge(t, "import", "feast", repo)
	if status != 0 || !strings.Contains(notes, "on-demand view odfv is Python") {
		t.Fatalf("status %d: %s", status, notes)
	}
	file := filepath.Join(repo, "defs.yaml")
	if err := os.WriteFile(file, []byte(defs), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startKedge(t, t.TempDir())
	p.must("apply", "-f", file)
	testenv.Eventually(t, 20*time.Second, func() error {
		status, got := post(t, p.http+"/get-online-features", `{"feature_service":"svc","entities":{"driver_id":[1],"customer_id":["c"]}}`)
		if status != 200 || !strings.Contains(got, `"feature_names":["driver_id","customer_id","f64","i64","rating"]`) {
			return fmt.Errorf("%d %s", status, got)
		}
		return nil
	})
	if err := os.Remove(filepath.Join(repo, "r.db")); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := runKedge(t, "import", "feast", repo); status != 1 || !strings.Contains(errs, "feast apply") {
		t.Fatalf("without a registry: %d %s", status, errs)
	}
}

// TestDeleteEntityCommand deletes as an operator does, from a running
// installation: nothing of the entity is left for a reader, a training set or
// SQL, a late event respects the tombstone, and nobody else loses anything.
func TestDeleteEntityCommand(t *testing.T) {
	p := startKedge(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "defs.yaml")
	if err := os.WriteFile(file, []byte(featureDefinitions), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("apply", "-f", file)
	row := func(id int, ago time.Duration, city string) string {
		return fmt.Sprintf(`{"view":"driver","key":{"driver_id":%d},"event_time":%q,"values":{"rating":4,"city":%q}}`+"\n", id, time.Now().UTC().Add(-ago).Format(time.RFC3339Nano), city)
	}
	read := func() string {
		_, got := post(t, p.http+"/get-online-features", `{"features":["driver:city","activity:rows_1h"],"entities":{"driver_id":[7,8]}}`)
		return got
	}
	expect := func(want ...string) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			got := read()
			for _, w := range want {
				if !strings.Contains(got, w) {
					return fmt.Errorf("no %s in %s", w, got)
				}
			}
			return nil
		})
	}
	p.send(row(7, 2*time.Minute, "canary") + row(7, time.Minute, "canary") + row(8, time.Minute, "Oslo"))
	expect(`{"values":["canary","Oslo"],`, `{"values":[2,1],`)
	if said := p.must("features", "delete", "driver_id=7"); said != "driver: 1 keys, 2 stored rows\n" {
		t.Fatalf("it said %q", said)
	}
	expect(`{"values":[null,"Oslo"],"statuses":["NOT_FOUND","PRESENT"]`, `{"values":[0,1],`)
	p.send(row(7, 30*time.Second, "canary") + row(8, time.Second, "Riga"))
	expect(`{"values":[null,"Riga"],"statuses":["NOT_FOUND","PRESENT"]`, `{"values":[0,2],`)
	p.caughtUp(6) // the tombstone is one of them
	out := filepath.Join(t.TempDir(), "out.csv")
	p.must("features", "history", "--all-entities", "--features", "driver:city", "-o", out)
	if b, err := os.ReadFile(out); err != nil || strings.Contains(string(b), "canary") {
		t.Fatalf("a training set has the deleted entity: %s %v", b, err)
	}
	if _, errs, status := p.kedge("features", "delete", "nobody=7"); status != 1 || !strings.Contains(errs, "no view of namespace") {
		t.Fatalf("an unknown key: %d %s", status, errs)
	}
	if _, errs, status := p.kedge("features", "delete", "driver_id"); status != 2 || !strings.Contains(errs, "KEY=VALUE") {
		t.Fatalf("half an argument: %d %s", status, errs)
	}
}
