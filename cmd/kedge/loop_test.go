package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// post sends a JSON body and returns status and answer.
func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// send posts events that must all be accepted.
func (p *kedgeProcess) send(lines string) {
	p.t.Helper()
	if status, body := post(p.t, p.http+"/v1/events", lines); status != 200 {
		p.t.Fatalf("POST /v1/events: %d %s", status, body)
	}
}

// TestTheLoopCloses walks from a file of the past to a prediction that meets
// its label: train, deploy, infer, record, label, and the same features online.
func TestTheLoopCloses(t *testing.T) {
	dir := t.TempDir()
	p := startKedge(t, dir)
	out := p.must("train", plantedMarket(t), "--name", "elec", "--label", "class", "--start", "1996-05-07T00:00:00Z", "--step", "30m",
		"--backend", "linear", "--artifacts", filepath.Join(dir, "artifacts"))
	digest := regexp.MustCompile(`artefact ([0-9a-f]{64})`).FindStringSubmatch(out)
	if digest == nil {
		t.Fatalf("train prints no artefact:\n%s", out)
	}
	file := filepath.Join(dir, "deployment.yaml")
	spec := fmt.Sprintf("kind: Deployment\nname: elec\nspec:\n  versions: [{version: '1', artifact: %s}]\n  champion: '1'\n", digest[1])
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("apply", "-f", file)
	ask := `{"id":"p1","inputs":[{"name":"input","shape":[1,6],"datatype":"FP32","data":[0.5,0.1,0.05,0.4,0.003,0.4]}]}`
	testenv.Eventually(t, 10*time.Second, func() error {
		if status, body := post(t, p.http+"/v2/models/elec/infer", ask); status != 200 || !strings.Contains(body, `"prediction_id":"p1"`) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	now := time.Now().UTC().Format(time.RFC3339)
	p.send(fmt.Sprintf(`{"model":"elec","prediction_id":"p1","label":1,"event_time":%q}`, now))
	p.send(fmt.Sprintf(`{"view":"drivers","key":{"driver_id":1001},"event_time":%q,"values":{"trips":7,"rate":0.5}}`, now))
	testenv.Eventually(t, 20*time.Second, func() error {
		for _, kind := range []string{"predictions", "labels"} {
			if got := landed(p, kind, "elec"); got != 1 {
				return fmt.Errorf("%d %s of elec have landed", got, kind)
			}
		}
		return nil
	})
	var online struct {
		Results []struct{ Values []any }
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		_, body := post(t, p.http+"/get-online-features", `{"features":["drivers:trips","drivers:rate"],"entities":{"driver_id":[1001]}}`)
		if err := json.Unmarshal([]byte(body), &online); err != nil || len(online.Results) != 3 || fmt.Sprint(online.Results[1].Values, online.Results[2].Values) != "[7] [0.5]" {
			return fmt.Errorf("%s", body)
		}
		return nil
	})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	again := startKedge(t, dir) // the deployment and the features are there after a restart
	testenv.Eventually(t, 20*time.Second, func() error {
		if status, body := post(t, again.http+"/v2/models/elec/infer", strings.Replace(ask, "p1", "p2", 1)); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		if _, body := post(t, again.http+"/get-online-features", `{"features":["drivers:trips"],"entities":{"driver_id":[1001]}}`); !strings.Contains(body, `"values":[7]`) {
			return fmt.Errorf("%s", body)
		}
		return nil
	})
}

// plantedMarket is a small file with the columns of elec.csv, whose class follows
// the price: what wants a model and no market runs without real data, too.
func plantedMarket(t *testing.T) string {
	t.Helper()
	rows := "period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n"
	for i := range 400 {
		price := float64(i*37%101) / 100
		class := 0
		if price > 0.5 {
			class = 1
		}
		rows += fmt.Sprintf("%v,%v,%v,%v,%v,%v,%d\n", float64(i%48)/48, price, float64(i*13%97)/100, price/10, float64(i*29%89)/100, float64(i*7%53)/100, class)
	}
	path := filepath.Join(t.TempDir(), "market.csv")
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// landed is how many rows of a stream the freshness frame counts for a subject.
func landed(p *kedgeProcess, stream, subject string) (rows int64) {
	f := p.ask(query.Request{Kind: "freshness"})[0]
	var kinds, subjects []string
	for i := range f.Columns {
		switch c := &f.Columns[i]; c.Name {
		case "kind":
			kinds, _ = c.Values.([]string)
		case "subject":
			subjects, _ = c.Values.([]string)
		}
	}
	for i := range kinds {
		if kinds[i] == stream && subjects[i] == subject {
			return columnAt(f, "rows", i)
		}
	}
	return 0
}

func columnAt(f query.Frame, name string, row int) int64 {
	for i := range f.Columns {
		if f.Columns[i].Name == name {
			switch v := f.Columns[i].Values.(type) {
			case []int64:
				return v[row]
			case []uint64:
				return int64(v[row])
			}
		}
	}
	return -1
}
