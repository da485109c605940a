package drift

import (
	"context"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

const (
	tidyEvery = 24 * time.Hour
	tidyAfter = time.Hour // what was replaced stays for so long
)

// tidiness is when derived tables were last freed of what newer revisions have
// replaced.
type tidiness struct {
	last  time.Time // zero: not by this holder of the lease
	since time.Time // what was stored before was looked at; zero: nothing was
}

// tidy removes once a day what newer revisions have replaced, the first time an
// hour after this process took the work over: then every day that there is has
// to be looked at.
func (s *Scheduler) tidy(ctx context.Context, now time.Time) {
	if s.tidied.last.IsZero() {
		s.tidied.last = now.Add(tidyAfter - tidyEvery)
	}
	if now.Sub(s.tidied.last) < tidyEvery || ctx.Err() != nil {
		return
	}
	n, err := s.store.DropReplaced(ctx, s.tidied.since, now.Add(-tidyAfter))
	s.tidied.last = now
	if err != nil {
		s.cfg.Scope.Log.Error("replaced verdicts and counts were not removed; tomorrow tries again", telemetry.LogError, err)
		return
	}
	s.tidied.since = now.Add(-2 * tidyAfter) // what was too young is looked at again
	s.cfg.Scope.Log.Info("removed what newer revisions have replaced", "rows", n)
}
