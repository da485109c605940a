package drift_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/drift"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store"
)

// TestImportedWindowsOpenNoIncident: rows that were imported teach a monitor its
// reference and get verdicts, and nobody is told of them; the same rows from a
// topic open an incident, and so do live ones after an import.
func TestImportedWindowsOpenNoIncident(t *testing.T) {
	for _, c := range []struct {
		name, reference, shifted string
		incidents                int
	}{
		{"live", "kedge.test.features", "kedge.test.features", 1},
		{"imported", event.ImportTopicPrefix("test") + "00", event.ImportTopicPrefix("test") + "00", 0},
		{"live after an import", event.ImportTopicPrefix("test") + "00", "kedge.test.features", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStream(t)
			rng := rand.New(rand.NewPCG(1, 2))
			start, length := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), 10*time.Minute
			const windows, rows = 30, 120
			s.topic = c.reference
			s.together(func() {
				for i := range windows {
					s.write(start.Add(length*time.Duration(i)), length, normals(rng, rows, 0), normals(rng, rows, 5))
				}
			})
			end := start.Add(windows * length)
			s.topic = c.shifted
			s.together(func() {
				for i := range 4 {
					s.write(end.Add(length*time.Duration(i)), length, normals(rng, rows, 2), normals(rng, rows, 5))
				}
			})
			cfg := drift.DefaultMonitorConfig()
			cfg.Namespace, cfg.Name, cfg.Subject = "test", "user drift", "user"
			cfg.Table, cfg.Columns = store.Subject{Kind: event.Features, TableID: 7}, drift.Numeric("amount", "calm")
			cfg.From, cfg.To, cfg.Window, cfg.Season = start, end, length, 0
			m, err := drift.NewMonitor(cfg, s.store)
			if err != nil {
				t.Fatal(err)
			}
			now := end.Add(5*length + cfg.Lateness)
			drifted, opened := 0, 0
			for range 2 {
				vs, err := m.Tick(t.Context(), now)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range vs {
					if v.Drifted && v.Detector == "ks" {
						drifted++
					}
					if v.Change == "opened" {
						opened++
					}
				}
				now = now.Add(cfg.Lateness)
			}
			_, told := m.Alert(now)
			if drifted != 4 || opened != c.incidents || told != (c.incidents > 0) {
				t.Errorf("%d windows drifted, %d incidents opened (want %d), told %v", drifted, opened, c.incidents, told)
			}
		})
	}
}
