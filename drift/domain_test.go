package drift_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/query"
)

// A value that a column may not hold is told with its domain, one row of 250; a
// constraint that nobody holds says so; and what the reference suggests is
// tried on its own windows.
func TestDomainsAreHeldAndLearnt(t *testing.T) {
	s, reg := newStream(t), openRegistry(t)
	rng := rand.New(rand.NewPCG(71, 72))
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	minute := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Minute) }
	define(t, reg, drift.MonitorKind, "ratings", `{"view":"user","window":"1m","constraints":[{"column":"calm","values":[1,2.5,3]},{"column":"speed","max":3}]}`, "")
	s.together(func() {
		for m := range 50 {
			ratings := make([]float64, 250)
			for i := range ratings {
				ratings[i] = []float64{1, 2.5, 3}[rng.IntN(3)]
			}
			if m >= 44 {
				ratings[3] = 2 // no mean, extreme or share of it tells
			}
			s.write(minute(m), time.Minute, normals(rng, 250, 0), ratings)
		}
	})
	sch := newScheduler(t, s, reg)
	for _, m := range []int{51, 54} {
		sch.Look(t.Context(), minute(m))
	}
	got := incidentsOf(t, ask(t, s.store.Incidents, week(begin)), "ratings")
	if said := got["calm domain"]; len(got) != 1 || !strings.Contains(said, `calm leaves its domain: 1 of 250 rows hold none of its 3 values, such as "2"`) {
		t.Errorf("incidents %v", got)
	}
	r := week(begin)
	r.View = "user"
	verdicts := ask(t, s.store.Verdicts, r)
	i := slices.Index(cells(t, verdicts, "column"), "speed")
	if i < 0 || cells(t, verdicts, "reason")[i] != "not watched" || !strings.Contains(cells(t, verdicts, "sentence")[i], "no column of this name is watched") {
		t.Errorf("a constraint of a column that is not there: %v", cells(t, verdicts, "sentence"))
	}
	f := ask(t, sch.Constraints, query.Request{Namespace: "test", View: "user"})
	var learnt []string
	for i, column := range cells(t, f, "column") {
		learnt = append(learnt, column+" "+cells(t, f, "limit")[i])
		if n := values[int64](t, f, "windows")[i]; n < 20 || values[bool](t, f, "withheld")[i] {
			t.Errorf("%s was tried on %d windows, withheld %v", learnt[i], n, values[bool](t, f, "withheld")[i])
		}
	}
	if want := "[amount max_missing amount min amount max calm max_missing calm min calm max]"; fmt.Sprint(learnt) != want {
		t.Errorf("learnt %v, want %s", learnt, want)
	}
}
