package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// cancelled is an hour of a model of rides, from a time on: two versions, two
// districts, and labels half a minute later. After 50 minutes its scores say
// nothing, and waiting times have doubled.
func cancelled(begin time.Time) string {
	rng, b := rand.New(rand.NewPCG(4, 7)), &strings.Builder{}
	for i := range 3600 {
		at, score, wait := begin.Add(time.Duration(i)*time.Second), rng.Float64(), 5+rng.NormFloat64()
		chance := score
		if i >= 3000 {
			chance, wait = 0.5, 2*wait
		}
		truth := map[bool]int{true: 1}[rng.Float64() < chance]
		fmt.Fprintf(b, `{"model":"ride_cancel","version":"%d","id":"r%d","event_time":%q,"inputs":{"wait":%.3f},"output":{"score":%.4f},"segments":{"district":%q}}`+"\n",
			1+i%2, i, at.Format(time.RFC3339), wait, score, []string{"harbour", "hills"}[i/7%2])
		fmt.Fprintf(b, `{"model":"ride_cancel","prediction_id":"r%d","label":%d,"event_time":%q}`+"\n", i, truth, at.Add(30*time.Second).Format(time.RFC3339))
	}
	return b.String()
}

// TestPerformanceAndDriftFlags runs every flag of kedge performance, kedge drift
// and kedge report beside a server, right and wrong.
func TestPerformanceAndDriftFlags(t *testing.T) {
	t.Parallel() // it waits for most of its time
	p := startKedge(t, t.TempDir())
	begin := time.Now().UTC().Add(-90 * time.Minute).Truncate(15 * time.Minute)
	p.send(cancelled(begin))
	p.caughtUp(7200)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	model := p.must("get", "Model", "ride_cancel", "--bare")
	p.must("apply", "-f", file("model.yaml", strings.Replace(model, "spec:\n", "spec:\n  labels: {by: id, delay: 1m}\n", 1)))
	p.must("apply", "-f", file("monitor.yaml", fmt.Sprintf("kind: Monitor\nname: rides\nspec:\n  model: ride_cancel\n  window: 1m\n  season: 1ns\n  segments: [district]\n  reference: {from: %s, to: %s}\n",
		begin.Format(time.RFC3339), begin.Add(30*time.Minute).Format(time.RFC3339))))
	testenv.Eventually(t, 2*time.Minute, func() error {
		out, errs, _ := p.kedge("performance", "--model", "ride_cancel", "--metrics", "roc_auc", "-o", "csv")
		if strings.Count(out, ",true,") < 3 {
			return errors.New(out + errs + p.must("monitor", "list"))
		}
		return nil
	})
	at := func(minute int) string { return begin.Add(time.Duration(minute) * time.Minute).Format(time.RFC3339) }
	page := filepath.Join(dir, "page.html")
	for _, c := range []struct {
		args   string // @30: the 30th minute of the rides
		status int
		says   string // of standard output, or of the error output; several, by |
		never  string
	}{
		{"performance --model ride_cancel", 0, "roc_auc|brier|true_positive|calibration_error|business_value", ""},
		{"performance --model ride_cancel --metrics roc_auc,accuracy --from @30 --to @40", 0, "roc_auc\n|accuracy\n|" + at(35), at(40) + "|brier"},
		{"performance --model ride_cancel --metrics roc_auc --group-by version", 0, "{segment=version=1}|{segment=version=2}", "district"},
		{"performance --model ride_cancel --metrics roc_auc --group-by district -o csv", 0, "metric,segment,time,value|\nroc_auc,district=hills," + at(30) + ",0.|\nroc_auc,district=harbour,", "version"},
		{"performance --model ride_cancel --metrics roc_auc --segment district=hills -o csv", 0, "\nroc_auc,district=hills," + at(30) + ",0.", "harbour"},
		{"performance --model ride_cancel --segment district= -o csv", 0, "\nselection_gap,district," + at(30) + ",|\ntpr_gap,|\nfpr_gap,| against ", "roc_auc"},
		{"performance --model ride_cancel --metrics roc_auc -o json", 0, `"name":"roc_auc"`, "accuracy"},
		{"performance --model ride_cancel --metrics roc_auc --output arrow", 0, "\xff\xff\xff\xff|timeseries-multi", ""},
		{"performance --model ride_cancel --metrics auc", 0, "no such metric or segment|(no rows)", ""},
		{"performance --model ride_cancel --group-by colour", 0, "no such metric or segment", ""},
		{"performance --model ride_cancel --segment colour=red", 0, "no such metric or segment", ""},
		{"performance --model ride_cancel --from @0 --to @10", 0, "no window of this time was measured", ""},
		{"performance --model nobody", 1, `there is no model "nobody" here`, ""},
		{"performance", 2, "want --model", ""},
		{"performance ride_cancel", 2, "unknown command", ""},
		{"performance --view rides", 2, "unknown flag: --view", ""},
		{"performance --model ride_cancel -o xml", 2, "want table, json, csv or arrow", ""},
		{"performance --model ride_cancel --segment district", 2, "key=value", ""},
		{"performance --model ride_cancel --segment district=hills --group-by version", 1, "one segment at a time", ""},
		{"performance --model ride_cancel --group-by version,district", 1, "one segment at a time", ""},
		{"performance --model ride_cancel --from yesterday", 2, "--from|or how long ago", ""},
		{"performance --model ride_cancel --from 1h30d", 2, "--from|or how long ago", ""},
		{"performance --model ride_cancel --to soon", 2, "--to|or how long ago", ""},
		{"performance --model ride_cancel --from @40 --to @30", 1, "does not lie before", ""},

		{"drift", 0, "monitor  subject|watching|wait moved", "change"},
		{"drift --model ride_cancel", 0, "wait    ≥ |change", ""},
		{"drift --model ride_cancel --from @30 --to @49", 0, "wait    ≥ ", ""},
		{"drift --model ride_cancel --segments --from @50", 0, "segment_drift\n|root_cause\n|segment_search\n", ""},
		{"drift --segments", 2, "want --view or --model", "watching"},
		{"drift --view a --model b", 2, "one of them", "watching"},
		{"drift --view nothing", 1, `no monitor watches "nothing"`, ""},
		{"drift --model nobody", 1, `no monitor watches "nobody"`, ""},
		{"drift --from x", 2, "--from", ""},
		{"drift --to x", 2, "--to", ""},
		{"drift x", 2, "unknown command", ""},
		{"drift --model ride_cancel --from @40 --to @30", 1, "does not lie before", ""},

		{"report --model ride_cancel --from @0 --out " + page, 0, "", ""},
		{"report --model ride_cancel --version 1 --against 2 --out -", 0, "<title>ride_cancel: version 1 against 2</title>|</html>", ""},
		{"report --model ride_cancel --keep", 0, "/v1/reports/", ""},
		{"report", 2, "want --view or --model", ""},
		{"report --model ride_cancel --version 1", 2, "missing [against]", ""},
		{"report --model ride_cancel --version 1 --against 1", 1, "want two versions", ""},
		{"report --model ride_cancel --keep --out x.html", 2, "[keep out]", ""},
		{"report --model nobody --out -", 1, "nobody", ""},
		{"report --model ride_cancel --to x", 2, "--to", ""},
		{"report --model ride_cancel --out " + filepath.Join(dir, "no", "page.html"), 1, "no such file or directory", ""},
	} {
		args := strings.Fields(c.args)
		for i, a := range args {
			if minute, ok := strings.CutPrefix(a, "@"); ok {
				n, err := strconv.Atoi(minute)
				if err != nil {
					t.Fatal(err)
				}
				args[i] = at(n)
			}
		}
		out, errs, status := p.kedge(args...)
		wrong := status != c.status
		for _, part := range strings.Split(c.says, "|") {
			wrong = wrong || !strings.Contains(out+errs, part)
		}
		for _, part := range strings.Split(c.never, "|") {
			wrong = wrong || part != "" && strings.Contains(out+errs, part)
		}
		if wrong || (status == 2) != strings.Contains(errs, "Try: kedge") {
			t.Errorf("kedge %s: status %d, want %d, %q and not %q\n%.3000s\n%s", strings.Join(args, " "), status, c.status, c.says, c.never, out, errs)
		}
	}
	// the last bin is a tenth of the reference, and nearly everything once the waits have doubled
	still, moved := lastBin(t, p.must("drift", "--model", "ride_cancel", "--from", at(30), "--to", at(49))), lastBin(t, p.must("drift", "--model", "ride_cancel"))
	if still > 0.3 || moved < 0.7 {
		t.Errorf("%v of the waits in the last bin until minute 49, %v in the end; want about 0.1 and 0.9", still, moved)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "roc_auc") {
		t.Errorf("the page: %v", err)
	}
}

// lastBin is the share of a window's waits in the bin without an upper end, as
// kedge drift writes it.
func lastBin(t *testing.T, out string) float64 {
	t.Helper()
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 6 && f[0] == "wait" && f[1] == "≥" {
			share, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				t.Fatal(err)
			}
			return share
		}
	}
	t.Fatalf("no last bin of wait in\n%s", out)
	return 0
}
