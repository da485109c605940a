package drift_test

import (
	"encoding/csv"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/dist"
	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/drift/control"
	"github.com/kedge-ml/kedge/drift/stat"
	"github.com/kedge-ml/kedge/internal/testenv"
)

// The New South Wales electricity market, a row per half hour. vicprice,
// vicdemand and transfer are constant until row 17,424, when another market
// joins.
const (
	elecChange = 17_424
	elecWindow = 8 // rows, four hours
	elecWeek   = 7 * 48
)

func elecColumns(t *testing.T) (names []string, columns [][]float64) {
	t.Helper()
	f, err := os.Open(testenv.Shared(t, "data/elec.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	columns = make([][]float64, len(rows[0]))
	for _, row := range rows[1:] {
		for i, s := range row {
			v, _ := strconv.ParseFloat(s, 64)
			columns[i] = append(columns[i], v)
		}
	}
	return rows[0], columns
}

func elecTime(row int) time.Time {
	return time.Date(1996, 5, 7, 0, 0, 0, 0, time.UTC).Add(time.Duration(row) * 30 * time.Minute)
}

// elecSlot is the window's place in the week.
func elecSlot(row int) int { return row % elecWeek / elecWindow }

func elecBaseline(t *testing.T, xs []float64, from, to int) *drift.Baseline {
	t.Helper()
	g, err := dist.NumericGrid(xs[from:to], dist.GridConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var windows []drift.SlotWindow
	for row := from; row+elecWindow <= to; row += elecWindow {
		windows = append(windows, drift.SlotWindow{Slot: elecSlot(row), Summary: dist.Summarize(g, xs[row:row+elecWindow])})
	}
	b, err := drift.LearnBaseline(g, windows, elecWeek/elecWindow)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The reference is everything up to eight weeks before the change.
func TestElectricityChangeIsFoundWithinADayAndEightWeeksBeforeAreQuiet(t *testing.T) {
	names, columns := elecColumns(t)
	start := elecChange - 8*elecWeek
	var watched []drift.Column
	for i, name := range names {
		watched = append(watched, drift.Column{Name: name, Importance: 0.5, Baseline: elecBaseline(t, columns[i], 0, start)})
	}
	w := drift.NewWatch(drift.DefaultOptions(), control.DefaultPolicy())
	naive, windows := 0, 0
	found := map[string]time.Duration{}
	for row := start; row < elecChange+48; row += elecWindow {
		for i := range watched {
			watched[i].Window = dist.Summarize(watched[i].Baseline.Grid, columns[i][row:row+elecWindow])
		}
		for _, f := range w.Take(watched, elecSlot(row), elecTime(row+elecWindow)) {
			opened := f.Change == control.Opened || f.Change == control.Worsened
			if row < elecChange {
				if opened {
					t.Errorf("row %d: %s %s: effect %.3f, floor %.3f, p %.2g, %v", row, f.Column, f.Detector, f.Effect, f.Floor, f.Adjusted, f.Severity)
				}
				continue
			}
			if opened {
				found[f.Column] = f.At.Sub(elecTime(elecChange))
			}
		}
		if row < elecChange {
			l := stat.NewLadder(columns[1][:start], columns[1][row:row+elecWindow])
			if ks, err := stat.KS(l); err == nil && ks.P < 0.05 {
				naive++
			}
			windows++
		}
	}
	for _, name := range []string{"vicprice", "vicdemand", "transfer"} {
		if after, ok := found[name]; !ok || after > 24*time.Hour {
			t.Errorf("%s: found %v after %v", name, ok, after)
		}
	}
	t.Logf("found after %v; a KS test of nswprice alone would have called %d of %d quiet windows", found, naive, windows)
}
