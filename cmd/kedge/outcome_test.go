package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// elecRows reads the electricity market's rows, header apart.
func elecRows(t *testing.T) (header []string, rows [][]string) {
	t.Helper()
	f, err := os.Open(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return all[0], all[1:]
}

// trainOn trains a linear model on rows and returns its digest.
func (p *kedgeProcess) trainOn(dir string, header []string, rows [][]string, drop string) string {
	p.t.Helper()
	file := filepath.Join(dir, "train.csv")
	f, err := os.Create(file)
	if err != nil {
		p.t.Fatal(err)
	}
	w := csv.NewWriter(f)
	_ = w.Write(header)
	if err := w.WriteAll(rows); err != nil {
		p.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"train", file, "--name", "elec", "--label", "class", "--start", "1996-05-07T00:00:00Z", "--step", "30m", "--backend", "linear", "--artifacts", filepath.Join(dir, "artifacts")}
	if drop != "" {
		args = append(args, "--drop", drop)
	}
	digest := regexp.MustCompile(`artefact ([0-9a-f]{64})`).FindStringSubmatch(p.must(args...))
	if digest == nil {
		p.t.Fatal("train prints no artefact")
	}
	return digest[1]
}

// market replays rows in time order: it asks for a prediction of each, and
// learns the truth late.
type market struct {
	p      *kedgeProcess
	header []string
	rows   [][]string
	late   []string // outcomes that are not yet known
}

// labelsLate is how many rows later the truth is known.
const labelsLate = 100

// step asks for the next n rows and sends the outcomes that became known.
func (m *market) step(n int) {
	m.p.t.Helper()
	if len(m.rows) < n {
		m.p.t.Fatal("the replay is over and nothing was decided")
	}
	for _, row := range m.rows[:n] {
		data := make([]string, len(row)-1)
		for i := range data {
			data[i] = fmt.Sprintf("%q:%s", m.header[i], row[i])
		}
		status, body := post(m.p.t, m.p.http+"/v1/predict/elec", `{"data":{`+strings.Join(data, ",")+`}}`)
		var a struct {
			Predictions []struct {
				ID string `json:"prediction_id"`
			}
		}
		if err := json.Unmarshal([]byte(body), &a); status != 200 || err != nil {
			m.p.t.Fatalf("%d %s", status, body)
		}
		m.late = append(m.late, fmt.Sprintf(`{"model":"elec","prediction_id":%q,"label":%s}`, a.Predictions[0].ID, row[len(row)-1]))
	}
	m.rows = m.rows[n:]
	if known := len(m.late) - labelsLate; known > 0 {
		if status, body := post(m.p.t, m.p.http+"/v1/outcome", "["+strings.Join(m.late[:known], ",")+"]"); status != 200 {
			m.p.t.Fatalf("%d %s", status, body)
		}
		m.late = m.late[known:]
	}
}

// until replays until the history's newest line says so.
func (m *market) until(want string) {
	m.p.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		out := strings.TrimSpace(m.p.must("rollout", "history", "elec"))
		if newest := out[strings.LastIndexByte(out, '\n')+1:]; strings.Contains(newest, want) {
			m.p.t.Log(newest)
			return
		}
		if time.Now().After(deadline) {
			m.p.t.Fatalf("no %q in time:\n%s\n%s", want, out, m.p.must("rollout", "status", "elec"))
		}
		m.step(100)
	}
}

// TestOutcomesDecide replays a real market with late labels past three models:
// a canary that learnt from swapped classes is rolled back by its guard-rail, a
// better one is promoted, and the history and the query API tell both.
func TestOutcomesDecide(t *testing.T) {
	header, rows := elecRows(t)
	dir := t.TempDir()
	p := startKedge(t, dir)
	past, future := rows[:6000], rows[6000:]
	swapped := make([][]string, len(past))
	for i, r := range past {
		swapped[i] = append(append([]string{}, r[:len(r)-1]...), map[string]string{"0": "1", "1": "0"}[r[len(r)-1]])
	}
	champion := p.trainOn(dir, header, past, "nswprice,vicprice")
	worse := p.trainOn(dir, header, swapped, "")
	better := p.trainOn(dir, header, past, "")
	deploy := func(canary string, version int) {
		t.Helper()
		spec := fmt.Sprintf(`kind: Deployment
name: elec
version: %d
spec:
  versions: [{version: champion, artifact: %s}, {version: swapped, artifact: %s}, {version: better, artifact: %s}]
  champion: champion
  canary: {version: %s, weight: 0.5}
  guardrails: {every: 1s, errors: {rate: 0.01}, latency: {p99_ms: 10000}, labels: {loss: error, min_labels: 100}}
`, version, champion, worse, better, canary)
		file := filepath.Join(dir, "deployment.yaml")
		if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		p.must("apply", "-f", file, "--why", "try "+canary)
		testenv.Eventually(t, 10*time.Second, func() error {
			if status, body := get(t, p.http+"/v2/models/elec/ready"); status != 200 {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	m := &market{p: p, header: header, rows: future}
	deploy("swapped", 0)
	m.until("rolled back")
	deploy("better", 2)
	m.until("promoted")
	if out := p.must("rollout", "history", "elec"); !strings.Contains(out, "champion better  (guard-rail) labels: error of the canary") {
		t.Errorf("history:\n%s", out)
	}
	f := p.ask(query.Request{Kind: "rollouts", Model: "elec", From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)})[0]
	told := fmt.Sprint(textColumn(f, "action"), textColumn(f, "who"))
	if want := "[promoted canary began rolled back deployed] [guard-rail local guard-rail local]"; told != want {
		t.Errorf("rollouts: %s, want %s", told, want)
	}
	p.must("rollout", "rollback", "elec", "--why", "second thoughts")
	if out := p.must("rollout", "status", "elec"); !strings.Contains(out, "champion champion since") {
		t.Errorf("after the rollback:\n%s", out)
	}
}

func textColumn(f query.Frame, name string) []string {
	for _, c := range f.Columns {
		if v, ok := c.Values.([]string); ok && c.Name == name {
			return v
		}
	}
	return nil
}
