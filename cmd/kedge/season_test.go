package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// week is the season: days differ, and hours of a day do.
const week = 7 * 24 * time.Hour

// seasonal are rows of a view, one every two minutes of event time. x follows the
// hour and the day of the week and wanders a little; y does not change; shift is
// added to x.
func seasonal(rng *rand.Rand, view string, from, to time.Time, shift float64) string {
	var b strings.Builder
	wander := 0.0
	for i, at := 0, from; at.Before(to); i, at = i+1, at.Add(2*time.Minute) {
		if i%90 == 0 {
			wander = 0.6*wander + 0.02*rng.NormFloat64()
		}
		x := 10 + 2*math.Sin(2*math.Pi*float64(at.Hour())/24) + wander + rng.NormFloat64() + shift
		if day := at.Weekday(); day == time.Saturday || day == time.Sunday {
			x--
		}
		fmt.Fprintf(&b, "{\"view\":%q,\"key\":{\"id\":%d},\"event_time\":%q,\"values\":{\"x\":%.4f,\"y\":%.4f}}\n", view, i%50, at.UTC().Format(time.RFC3339), x, rng.NormFloat64())
	}
	return b.String()
}

// TestQuietSeasonalWeeks sends four weeks to learn from, four quiet ones and a
// fifth with a planted shift, in accelerated event time. The committed rules,
// evaluated twice a day of those weeks through the plugin, fire nothing in the
// quiet ones, no incident opens between, and the drift rule fires in the fifth.
func TestQuietSeasonalWeeks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.Skip(t, testenv.Short, "nine weeks of rows are judged")
	}
	k := startKedge(t, t.TempDir())
	p := startPlugin(t, k.http, `{}`, nil)
	rules := provisioned(t)
	rng := rand.New(rand.NewPCG(3, 5))
	end := time.Now().UTC().Truncate(3 * time.Hour)
	at := func(weeks float64) time.Time { return end.Add(-time.Duration((9 - weeks) * float64(week))) }
	k.send(seasonal(rng, "shop", at(0), at(8), 0) + seasonal(rng, "shop", at(8), at(9), 2.5))
	file := filepath.Join(t.TempDir(), "monitor.yaml")
	spec := "kind: Monitor\nname: shop\nspec:\n  view: shop\n  window: 3h\n  season: 168h\n  reference: {from: %s, to: %s}\n"
	if err := os.WriteFile(file, fmt.Appendf(nil, spec, at(0).Format(time.RFC3339), at(4).Format(time.RFC3339)), 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("apply", "-f", file)
	const windows = 5 * 7 * 8
	testenv.Eventually(t, 8*time.Minute, func() error {
		f := k.ask(query.Request{Kind: "drift", View: "shop", Columns: []string{"x"}, Detector: "ks", From: at(4), To: end})
		if len(f) == 0 || f[0].Rows() < windows-1 {
			return fmt.Errorf("%d frames: %v of %d windows are judged", len(f), rowsOf(f), windows)
		}
		return nil
	})
	asked := 0
	for _, uid := range []string{"kedge-drift", "kedge-drift-share", "kedge-data-quality", "kedge-late", "kedge-performance", "kedge-silent-column"} {
		w := p.watch(rules[uid])
		for now := at(4.02); now.Before(at(8)); now = now.Add(12 * time.Hour) {
			o := p.evaluate(rules[uid], now)
			if fired := w.w.Step(o, now); o.Err != nil || len(fired) > 0 {
				t.Fatalf("%s in a quiet week, at %v: %v %v", uid, now, o.Err, fired)
			}
			asked += len(o.Instances)
		}
	}
	if asked == 0 {
		t.Fatal("nothing was judged")
	}
	for _, c := range k.ask(query.Request{Kind: "incidents", View: "shop", From: at(4), To: end, Limit: 100})[0].Columns {
		if c.Name != "opened" {
			continue
		}
		for _, opened := range c.Values.([]time.Time) {
			if opened.Before(at(8)) {
				t.Errorf("an incident opened in a quiet week, at %v", opened)
			}
		}
	}
	w, fired := p.watch(rules["kedge-drift"]), false
	for now := at(8); !now.After(at(9)) && !fired; now = now.Add(6 * time.Hour) {
		for _, l := range w.w.Step(p.evaluate(rules["kedge-drift"], now), now) {
			if l["column"] != "x" || now.Sub(at(8)) > 48*time.Hour {
				t.Errorf("at %v: %v", now, l)
			}
			fired = true
		}
	}
	if !fired {
		t.Error("the planted shift of the fifth week fires nothing")
	}
}

func rowsOf(frames []query.Frame) (out []int) {
	for i := range frames {
		out = append(out, frames[i].Rows())
	}
	return out
}
