package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

const tripOne = `kind: FeatureView
name: trip
spec:
  origin: declared
  online: true
  keys: [{name: id, type: Int64}]
  columns: [{name: fare, type: Float64}, {name: city, type: String}]
`

const tripTwo = `kind: FeatureView
name: trip
spec:
  origin: declared
  online: true
  keys: [{name: id, type: Int64}]
  version: 2
  columns: [{name: fare_cents, type: Int64}, {name: city, type: String}]
  former:
  - version: 1
    columns: [{name: fare, type: Float64}, {name: city, type: String}]
    convert: {fare_cents: int(round(fare * 100))}
`

// TestViewVersions gives a view other columns while its producers go on: what was
// stored, what producers of the old version send later, and what new ones send
// reads as the new version, online, in training sets, rows and summaries, before
// and after a restart.
func TestViewVersions(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	p := startKedge(t, data)
	file := func(text string) string {
		path := filepath.Join(dir, "trip.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hour := func(h int) string { return time.Date(2026, 3, 1, h, 0, 0, 0, time.UTC).Format(time.RFC3339) }
	trip := func(id, h int, rest string) {
		p.send(fmt.Sprintf(`{"view":"trip","key":{"id":%d},"event_time":%q,"known_at":%[2]q,%s}`+"\n", id, hour(h), rest))
	}
	p.must("apply", "-f", file(tripOne))
	trip(1, 1, `"values":{"fare":10.25,"city":"Riga"}`)
	trip(1, 2, `"values":{"fare":11.5,"city":"Riga"}`)
	trip(2, 1, `"values":{"fare":3.75,"city":"Oslo"}`)
	p.caughtUp(3)

	bad := strings.Replace(tripTwo, "int(round(fare * 100))", "city", 1)
	if out, errs, status := p.kedge("plan", "-f", file(bad)); status != 1 || !strings.Contains(out+errs, "cannot be converted") {
		t.Errorf("a conversion that no stored row survives: %d %s %s", status, out, errs)
	}
	if out, _, status := p.kedge("plan", "-f", file(tripTwo)); status != 3 || !strings.Contains(out, "int(round(fare * 100))") || !strings.Contains(out, "a new version: stored rows are converted") {
		t.Errorf("plan: %d %s", status, out)
	}
	p.must("apply", "-f", file(tripTwo))
	if _, errs, status := p.kedge("apply", "-f", file(tripOne)); status != 1 || !strings.Contains(errs, "later version") {
		t.Errorf("back to the first version: %d %s", status, errs)
	}
	trip(3, 1, `"values":{"fare":7.5,"city":"Bari"}`)                   // knows of no versions
	trip(4, 1, `"values":{"fare_cents":900,"city":"Rome"},"version":2`) // knows
	trip(5, 1, `"values":{"fare_cents":900,"city":"Rome"},"version":3`) // knows more than is defined
	p.caughtUp(6)

	online := func() error {
		_, body := post(t, p.http+"/get-online-features", `{"features":["trip:fare_cents","trip:city"],"entities":{"id":[1,2,3,4]}}`)
		if strings.Contains(strings.ReplaceAll(body, " ", ""), `"values":[1150,375,750,900]`) && strings.Contains(body, "Riga") {
			return nil
		}
		return fmt.Errorf("online: %s", body)
	}
	check := func() {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			out := p.must("query", "rows", "--view", "trip", "--from", "2026-03-01", "--to", "2026-03-02", "--columns", "id,fare_cents,city", "-o", "csv")
			for _, want := range []string{"1,1025,Riga", "1,1150,Riga", "2,375,Oslo", "3,750,Bari", "4,900,Rome"} {
				if !strings.Contains(out, want) || strings.Count(out, "\n") != 6 {
					return fmt.Errorf("rows: %s", out)
				}
			}
			return online()
		})
		out := p.must("query", "summary", "--view", "trip", "--columns", "fare_cents", "--from", "2026-03-01", "--to", "2026-03-02", "--step", "1d", "-o", "csv")
		if !strings.Contains(out, ",5,") || !strings.Contains(out, "840") { // (1025+1150+375+750+900)/5
			t.Errorf("summary: %s", out)
		}
		entities := filepath.Join(dir, "entities.csv")
		if err := os.WriteFile(entities, fmt.Appendf(nil, "id,event_timestamp\n1,%s\n1,%s\n3,%s\n", "2026-03-01T01:30:00Z", "2026-03-01T03:00:00Z", "2026-03-01T03:00:00Z"), 0o600); err != nil {
			t.Fatal(err)
		}
		set := filepath.Join(dir, "set.csv")
		p.must("features", "history", "--entities", entities, "--features", "trip:fare_cents", "-o", set)
		b, err := os.ReadFile(set)
		if err != nil {
			t.Fatal(err)
		}
		if rows := strings.Split(strings.TrimSpace(string(b)), "\n"); len(rows) != 4 || !strings.HasSuffix(rows[1], ",1025") || !strings.HasSuffix(rows[2], ",1150") || !strings.HasSuffix(rows[3], ",750") {
			t.Errorf("training set: %s", b)
		}
	}
	check()
	if out := p.must("dead-letters", "list"); !strings.Contains(out, "newest is 2") {
		t.Errorf("a version that is not defined: %s", out)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = startKedge(t, data)
	p.caughtUp(6)
	check()
	ledger := p.must("query", "ledger", "-o", "json")
	if !strings.Contains(ledger, "import.convert") {
		t.Errorf("the ledger has no conversion: %s", ledger)
	}
	p.mustBalance()
}
