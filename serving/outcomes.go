package serving

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Outcomes count a model's requests by what became of them.
type Outcomes struct {
	Answered uint64
	Refused  uint64 // bad requests, missing features, a model's own fault
	Rejected uint64 // for want of a place: too many at once
}

// OutcomesAt are the rates, per second, of the time since the sample before.
type OutcomesAt struct {
	Time                        time.Time
	Answered, Refused, Rejected float64
}

// Outcomes are counted every fifteen seconds, for a day.
const (
	outcomesEvery = 15 * time.Second
	outcomesKept  = int(24 * time.Hour / outcomesEvery)
)

// outcomeLog keeps samples of the counters, oldest first; safe for concurrent use.
type outcomeLog struct {
	mu      sync.Mutex
	samples []outcomeSample
}

type outcomeSample struct {
	at     time.Time
	counts map[string]Outcomes // by model
}

// RunOutcomes samples until ctx ends what became of requests.
func (s *Server) RunOutcomes(ctx context.Context) error {
	tick := time.NewTicker(outcomesEvery)
	defer tick.Stop()
	for s.sampleOutcomes(s.now()); ; s.sampleOutcomes(s.now()) {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Server) sampleOutcomes(now time.Time) {
	counts := map[string]Outcomes{}
	for name, d := range *s.models.Load() {
		rejected := d.stats.rejected.Load()
		counts[name] = Outcomes{Answered: d.stats.success.Load(), Rejected: rejected, Refused: d.stats.failure.Load() - rejected}
	}
	s.outcomes.add(outcomeSample{now, counts})
}

func (l *outcomeLog) add(s outcomeSample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.samples); n > 0 && !s.at.After(l.samples[n-1].at) {
		return // a clock that was set back
	}
	if len(l.samples) == outcomesKept {
		l.samples = slices.Delete(l.samples, 0, outcomesKept/10) // seldom, so that it costs nothing
	}
	l.samples = append(l.samples, s)
}

// Outcomes are the rates of what became of a model's requests in a range, as this
// process counted them since it started. The counters are read once more now, so
// that the newest requests are in it.
func (s *Server) Outcomes(model string, from, to time.Time) []OutcomesAt {
	s.sampleOutcomes(s.now())
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	var out []OutcomesAt
	for i := 1; i < len(s.outcomes.samples); i++ {
		was, is := s.outcomes.samples[i-1], s.outcomes.samples[i]
		if is.at.Before(from) || !to.IsZero() && !is.at.Before(to) {
			continue
		}
		seconds, a, b := is.at.Sub(was.at).Seconds(), was.counts[model], is.counts[model]
		out = append(out, OutcomesAt{is.at, grown(a.Answered, b.Answered) / seconds, grown(a.Refused, b.Refused) / seconds, grown(a.Rejected, b.Rejected) / seconds})
	}
	return out
}

// grown is by how much a counter rose; one that is smaller began anew, with
// another deployment of the model.
func grown(was, is uint64) float64 {
	if is < was {
		return float64(is)
	}
	return float64(is - was)
}
