package serving

import (
	"testing"
	"time"
)

// TestOutcomeLog holds the rates between samples, of counters that begin anew, in
// a range, and that what is kept is bounded.
func TestOutcomeLog(t *testing.T) {
	t0 := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	s := NewServer(Config{}, nil, nil)
	at := func(sec int) time.Time { return t0.Add(time.Duration(sec) * time.Second) }
	for i, c := range []Outcomes{{10, 1, 0}, {30, 1, 5}, {4, 2, 1}} {
		s.outcomes.add(outcomeSample{at(10 * i), map[string]Outcomes{"m": c}})
	}
	s.outcomes.add(outcomeSample{at(5), nil}) // a clock that was set back
	s.now = func() time.Time { return at(20) }
	got := s.Outcomes("m", t0, time.Time{})
	want := []OutcomesAt{{at(10), 2, 0, .5}, {at(20), .4, .1, .1}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("rates %v, want %v", got, want)
	}
	if got := s.Outcomes("m", at(15), at(20)); len(got) != 0 {
		t.Errorf("between two samples: %v", got)
	}
	if got := s.Outcomes("other", t0, time.Time{}); len(got) != 2 || got[0].Answered != 0 {
		t.Errorf("a model without requests: %v", got)
	}
	for i := range 2 * outcomesKept {
		s.outcomes.add(outcomeSample{at(100 + i), nil})
	}
	if n := len(s.outcomes.samples); n > outcomesKept || n < outcomesKept*8/10 {
		t.Errorf("%d samples are kept, of at most %d", n, outcomesKept)
	}
}
