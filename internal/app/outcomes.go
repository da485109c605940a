package app

import (
	"context"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// answerServingErrors is what became of a model's requests, as this process
// counted them: a request that was refused leaves no row to ask the store for.
func (a *App) answerServingErrors(_ context.Context, r query.Request) ([]query.Frame, error) {
	var times []time.Time
	var answered, refused, rejected []float64
	f := query.Frame{Name: "requests", Type: query.TimeSeriesWide}
	switch {
	case a.serving == nil || r.Namespace != a.cfg.Namespace:
		f.Notices = []query.Notice{{Severity: "info", Text: "This process serves no models of the namespace: the metric kedge_serving_requests_total of those that do has their errors."}}
	default:
		for _, o := range a.serving.server.Outcomes(r.Model, r.From, r.To) {
			times, answered, refused, rejected = append(times, o.Time.UTC()), append(answered, o.Answered), append(refused, o.Refused), append(rejected, o.Rejected)
		}
	}
	rate := func(name string, v []float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Unit: "reqps", Labels: map[string]string{"outcome": name}, Values: orNone(v)}
	}
	f.Columns = []query.Column{{Name: "time", Type: query.Time, Values: orNone(times)}, rate("answered", answered), rate("refused", refused), rate("rejected", rejected)}
	return []query.Frame{f}, nil
}
