package drift

import (
	"testing"
	"time"
	_ "time/tzdata" // the binary has it too
)

// Deadlines stand where a calendar on the wall has them, on either side of a
// change of the clocks too, and the day of one begins where that of the one before
// ends.
func TestDeadlinesFollowTheWallClock(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ by, zone, now, before, due string }{
		{"06:00", "Europe/Rome", "2026-03-29T03:59:59Z", "2026-03-27T05:00:00Z", "2026-03-28T05:00:00Z"},
		{"06:00", "Europe/Rome", "2026-03-29T04:00:00Z", "2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"}, // 23 hours
		{"06:00", "Europe/Rome", "2026-10-25T04:59:59Z", "2026-10-23T04:00:00Z", "2026-10-24T04:00:00Z"},
		{"06:00", "Europe/Rome", "2026-10-25T05:00:00Z", "2026-10-24T04:00:00Z", "2026-10-25T05:00:00Z"}, // 25 hours
		{"00:00", "Europe/Rome", "2026-03-29T23:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}, // the 29th, from midnight to midnight
		{"00:00", "America/New_York", "2026-01-01T05:00:00Z", "2025-12-31T05:00:00Z", "2026-01-01T05:00:00Z"},
		{"23:59", "UTC", "2026-03-01T00:00:00Z", "2026-02-27T23:59:00Z", "2026-02-28T23:59:00Z"},
		{"06:00", "Asia/Kolkata", "2026-07-01T00:30:00Z", "2026-06-30T00:30:00Z", "2026-07-01T00:30:00Z"},
	} {
		before, due, err := (&Cadence{By: c.by, Zone: c.zone}).due(at(c.now))
		if err != nil || !before.Equal(at(c.before)) || !due.Equal(at(c.due)) {
			t.Errorf("%s %s at %s: %v to %v (%v), want %s to %s", c.by, c.zone, c.now, before.UTC(), due.UTC(), err, c.before, c.due)
		}
	}
	for _, c := range []Cadence{{By: "06:00", Zone: "Europe/Rome"}, {By: "02:30", Zone: "Europe/Rome"}, {By: "00:00", Zone: "America/Havana"}, {By: "23:45", Zone: "Australia/Lord_Howe"}} {
		var last time.Time
		days := 0
		for now := at("2026-01-02T00:00:00Z"); now.Year() == 2026; now = now.Add(20 * time.Minute) {
			before, due, err := c.due(now)
			switch {
			case err != nil || due.After(now) || now.Sub(due) > 26*time.Hour:
				t.Fatalf("%+v at %v: due %v (%v)", c, now, due, err)
			case !last.IsZero() && due.Before(last), !last.IsZero() && due.After(last) && !before.Equal(last):
				t.Fatalf("%+v at %v: %v to %v after a day that ended at %v", c, now, before, due, last)
			case due.After(last):
				days++
			}
			last = due
		}
		if days != 364 && days != 365 {
			t.Errorf("%+v: %d days", c, days)
		}
	}
}
