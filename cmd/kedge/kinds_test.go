package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/query"
)

// ordered says for every kind which of its answer's rows come first, by the names of
// fields whose values fall from row to row, the first the weightiest. None: the
// kind goes by names or forward in time. A heat map's rows are its fields, of
// which the last is drawn on top.
func ordered() map[string][]string {
	byName := []string{"catalog", "search", "throughput", "ingest_lag", "ledger", "freshness", "freshness_series", "score_distribution", "label_coverage", "summary",
		"drift", "quality", "consistency", "distribution", "performance", "root_cause", "segment_search", "version_compare", "monitors", "reference", "constraints", "backtest",
		"drift_share", "serving_latency", "latency_heatmap", "serving_throughput", "serving_errors", "trace", "rollbacks", "lineage", "usage", "run_metrics", "training_cost", "models"}
	out := map[string][]string{
		"drift_state": {"state"}, "drift_heatmap": {"(worst)"}, "segment_drift": {"time", "times"}, "incidents": {"severity"}, "verdicts": {"time"}, "contributions": {"change"},
		"column_freshness": {"behind"}, "disk": {"bytes"},
		"audit": {"time"}, "rows": {"event_time"}, "dead_letters": {"known_at"}, "dead_letter_log": {"timestamp"}, "deployments": {"time"}, "rollouts": {"time"}, "annotations": {"time"},
		"runs": {"created"}, "run_log": {"timestamp"},
	}
	for _, name := range byName {
		out[name] = nil
	}
	return out
}

// weight is a value as a number that can be compared: severities by their gravity,
// changes by their size.
func weight(f *data.Field, i int) float64 {
	if word, ok := f.ConcreteAt(i); ok {
		switch v := word.(type) {
		case string:
			return float64(slices.Index([]string{"", "notice", "warning", "critical"}, v))
		case time.Time:
			return float64(v.UnixMicro())
		}
	}
	v, err := f.FloatAt(i)
	if err != nil || math.IsNaN(v) {
		return math.Inf(-1)
	}
	return math.Abs(v)
}

// falls holds that the rows of a frame come in the declared order; pairs is how many
// of them differ, without which nothing was held.
func falls(f *data.Frame, by []string) (pairs int, err error) {
	if by[0] == "(worst)" { // of each row of a heat map
		last := math.Inf(-1)
		for _, row := range f.Fields[1:] {
			worst := 0.0
			for i := range row.Len() {
				if v, err := row.FloatAt(i); err == nil && !math.IsNaN(v) {
					worst = max(worst, v)
				}
			}
			if worst < last {
				return pairs, fmt.Errorf("%s (%v) lies above what is worse (%v)", row.Name, worst, last)
			}
			if worst > last {
				pairs++
			}
			last = worst
		}
		return pairs, nil
	}
	for i := 1; i < f.Rows(); i++ {
		for _, name := range by {
			field, _ := f.FieldByName(name)
			if field == nil {
				return pairs, fmt.Errorf("no field %s", name)
			}
			before, after := weight(field, i-1), weight(field, i)
			if after > before {
				return pairs, fmt.Errorf("row %d: %s is %v after %v", i, name, field.At(i), field.At(i-1))
			}
			if after < before {
				pairs++
				break
			}
		}
	}
	return pairs, nil
}

// everyKind are questions of every kind about the demo stream.
func everyKind(from, to time.Time) (out []backend.DataQuery) {
	for _, kind := range query.Kinds() {
		q := query.Request{Kind: kind.Name}
		switch kind.Subject {
		case query.ViewOnly:
			q.View = "driver_stats"
		case query.ModelOnly, query.ViewOrModel:
			q.Model = "ride_cancel"
		}
		out = append(out, panel(kind.Name, q, from, to))
	}
	return out
}

// checkOrdersAndLimits asks every kind of a kedge whose monitors have judged: the
// worst or the newest comes first, and a narrow panel of a data source with few
// rows gets no more points and rows than it takes, and is told what was left out.
func checkOrdersAndLimits(t *testing.T, k *kedgeProcess) {
	t.Helper()
	wide, narrow := startPlugin(t, k.http, `{"timeoutSeconds":120}`, nil), startPlugin(t, k.http, `{"maxRows":3,"timeoutSeconds":120}`, nil)
	orders, to := ordered(), time.Now().UTC()
	all := everyKind(to.Add(-time.Hour), to)
	few := slices.Clone(all)
	for i := range few {
		few[i].MaxDataPoints = 10
	}
	whole, limited := wide.ask(all...), narrow.ask(few...)
	held, bounded := map[string]bool{}, map[string]bool{}
	for _, q := range all {
		by, declared := orders[q.RefID]
		if !declared {
			t.Errorf("%s: say in ordered what comes first", q.RefID)
		}
		full := whole[q.RefID]
		if full.Error != nil || len(full.Frames) == 0 || len(full.Frames[0].Fields) == 0 { // toldOfDemo holds which may
			continue
		}
		if by != nil && full.Frames[0].Rows() > 0 {
			n, err := falls(full.Frames[0], by)
			if err != nil {
				t.Errorf("%s: %v", q.RefID, err)
			}
			held[q.RefID] = n > 0
		}
		if limited[q.RefID].Error == nil {
			bounded[q.RefID] = checkBounded(t, q.RefID, full.Frames, limited[q.RefID].Frames)
		}
	}
	for _, kind := range []string{"drift_state", "drift_heatmap", "segment_drift", "verdicts", "contributions", "rows", "disk"} {
		if !held[kind] {
			t.Errorf("%s: no two rows differ, so their order was not held", kind)
		}
	}
	for _, kind := range []string{"drift", "drift_heatmap", "drift_state", "column_freshness", "verdicts", "rows", "ledger"} {
		if !bounded[kind] {
			t.Errorf("%s: nothing was too much", kind)
		}
	}
}

// checkBounded holds frames against 10 points and 3 rows, and says whether there was
// more to tell. What Kedge itself reckons in longer steps needs no notice.
func checkBounded(t *testing.T, at string, whole, few data.Frames) (was bool) {
	t.Helper()
	kind, _ := query.KindNamed(at)
	for i, f := range few {
		most, series := 3, f.Meta.Type == "heatmap-rows" || strings.HasPrefix(string(f.Meta.Type), "timeseries")
		if series {
			most = 10
		}
		if f.Rows() > most {
			t.Errorf("%s: frame %d of %s has %d rows, a panel takes %d", at, i, f.Meta.Type, f.Rows(), most)
		}
		if i >= len(whole) || whole[i].Rows() <= most {
			continue
		}
		was = true
		if len(f.Meta.Notices) == 0 && !(series && slices.Contains(kind.Reads, "max_points")) {
			t.Errorf("%s: %d of %d rows, and nothing says so", at, f.Rows(), whole[i].Rows())
		}
	}
	return was
}
