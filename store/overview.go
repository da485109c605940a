package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store/chdb"
)

// scoreCells is how finely a score's distribution is shown.
const scoreCells = 20

// ScoreDistribution answers the kind "score_distribution": per step of
// event_time, how many scores of a model fell into each of twenty equal cells
// of [0, 1]. There is a column per cell, named after its upper end; scores
// outside lie in the outermost. Steps without predictions are absent.
func (s *Store) ScoreDistribution(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	p := g.params()
	from, err := s.union(tables, r, []string{"score"}, p)
	if err != nil {
		return nil, err
	}
	cols := []query.Column{col("time", query.Time, "")}
	exprs := []string{"fromUnixTimestamp64Micro({from:Int64} + n * {step:Int64}, 'UTC')"}
	for i := range scoreCells {
		cols = append(cols, col(fmt.Sprintf("%.2f", float64(i+1)/scoreCells), query.Int, ""))
		exprs = append(exprs, fmt.Sprintf("toInt64(countIf(cell = %d))", i))
	}
	sql := fmt.Sprintf("SELECT %s FROM (SELECT n, toInt64(greatest(0, least(%d, floor(c0 * %d)))) AS cell FROM (%s) WHERE isNotNull(c0) AND isFinite(c0)) GROUP BY n ORDER BY n",
		strings.Join(exprs, ", "), scoreCells-1, scoreCells, from)
	f, err := s.frame(ctx, "score distribution", query.HeatmapRows, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("score distribution of %s: %w", r.Model, err))
	}
	f.Notices = g.notices
	return []query.Frame{f}, nil
}

// LabelCoverage answers the kind "label_coverage": per step of a prediction's
// event_time how many predictions there are, the share that has its label by
// now, and the means of score and label over those that have. A withdrawn
// label counts as none; the newest of several is taken.
func (s *Store) LabelCoverage(ctx context.Context, r query.Request) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	g, err := gridOf(r, time.Now())
	if err != nil {
		return nil, err
	}
	p := g.params()
	sql := fmt.Sprintf(`SELECT fromUnixTimestamp64Micro({from:Int64} + n * {step:Int64}, 'UTC'), toInt64(count()), countIf(there) / count(), avgOrNullIf(score, there), avgOrNullIf(label, there)
FROM (SELECT toInt64(%s) AS n, id, score FROM (%s)) AS p LEFT ANY JOIN (%s) AS l ON p.id = l.prediction_id GROUP BY n ORDER BY n`,
		bucket("event_time"), s.predicted(tables, r, p), s.labelled(r))
	f, err := s.frame(ctx, "label coverage", query.TimeSeriesWide, []query.Column{
		col("time", query.Time, ""), col("predictions", query.Int, ""), col("coverage", query.Float, "percentunit"), maybe("mean_score", query.Float, ""), maybe("mean_label", query.Float, ""),
	}, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("label coverage of %s: %w", r.Model, err))
	}
	f.Notices = g.notices
	return []query.Frame{f}, nil
}

// predicted are the predictions in range, of all input signatures.
func (s *Store) predicted(tables []*table, r query.Request, p params) string {
	where := inRange("event_time")
	if r.Version != "" {
		p["version"] = r.Version
		where += " AND version = {version:String}"
	}
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT id, event_time, score FROM "+s.ref(t.name)+" WHERE "+where)
	}
	return strings.Join(parts, " UNION ALL ")
}

// labelled are the newest labels of the model's predictions by id.
func (s *Store) labelled(r query.Request) string {
	for name, t := range s.tables() {
		if t.schema.Kind == event.Labels && t.schema.Subject == r.Model && (r.Namespace == "" || t.schema.Namespace == r.Namespace) {
			newest := "(event_time, created, _epoch, _partition, _offset)"
			return fmt.Sprintf("SELECT prediction_id, argMax(tuple(%s), %s).1 AS label, NOT argMax(withdrawn, %s) AS there FROM %s WHERE prediction_id != '' AND event_time >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') GROUP BY prediction_id",
				chdb.QuoteIdent("label"), newest, newest, s.ref(name))
		}
	}
	return "SELECT '' AS prediction_id, CAST(NULL, 'Nullable(Float64)') AS label, false AS there WHERE 0"
}
