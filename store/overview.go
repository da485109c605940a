package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
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
// now, and the means of score and label over those that have. Labels find their
// predictions as j says; silence counts as a label once its delay is over. By
// id, a label that is older than the range is not looked for.
func (s *Store) LabelCoverage(ctx context.Context, r query.Request, j LabelJoin) ([]query.Frame, error) {
	tables, err := s.subjectOf(r)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	g, err := gridOf(r, now)
	if err != nil {
		return nil, err
	}
	p := g.params()
	p["tolerance"], p["silence"], p["due"] = fmt.Sprint(j.Tolerance.Microseconds()), j.Silence, micro(now.Add(-j.Delay))
	j.ahead = true
	truth := maybe("mean_label", query.Float, "")
	if j.By == "view" { // whoever may not see the column does not see its mean
		truth.Display, truth.Labels = truth.Name, map[string]string{"column": j.Column}
	}
	var parts []string
	for _, t := range tables {
		part, err := s.labelled(t, j, r.Version, p)
		if errors.Is(err, ErrUnknown) {
			g.notices = append(g.notices, query.Notice{Severity: "warning", Text: err.Error()})
		} else if err != nil {
			return nil, fmt.Errorf("label coverage of %s: %w", r.Model, err)
		}
		parts = append(parts, part)
	}
	sql := "SELECT fromUnixTimestamp64Micro({from:Int64} + n * {step:Int64}, 'UTC'), toInt64(count()), countIf(there) / count(), avgOrNullIf(score, there), avgOrNullIf(label, there) FROM (" +
		strings.Join(parts, " UNION ALL ") + ") GROUP BY n ORDER BY n"
	f, err := s.frame(ctx, "label coverage", query.TimeSeriesWide, []query.Column{
		col("time", query.Time, ""), col("predictions", query.Int, ""), col("coverage", query.Float, "percentunit"), maybe("mean_score", query.Float, ""), truth,
	}, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("label coverage of %s: %w", r.Model, err))
	}
	f.Notices = g.notices
	return []query.Frame{f}, nil
}

// labelled are the predictions in range of one input signature: the number of
// the step, the score, whether there is a label, and the label as a number.
// With [ErrUnknown] comes the statement in which none has one but by silence.
func (s *Store) labelled(t *table, j LabelJoin, version string, p params) (string, error) {
	where := inRange("event_time")
	if version != "" {
		p["version"] = version
		where += " AND version = {version:String}"
	}
	joined, err := s.joinLabels(t, j)
	if errors.Is(err, ErrUnknown) {
		joined = noLabels()
	} else if err != nil {
		return "", err
	}
	silent := "false"
	if j.Silence != "" {
		silent = "p.event_time <= fromUnixTimestamp64Micro({due:Int64}, 'UTC')"
	}
	return fmt.Sprintf("SELECT toInt64(%s) AS n, p.score AS score, %s AND (l.truth != '' OR NOT isNaN(ifNull(l.label, nan))) AS said, said OR %s AS there, if(said, l.label, toFloat64OrNull({silence:String})) AS label "+
		"FROM (SELECT id, key, event_time, score FROM %s WHERE %s) AS p%s", bucket("p.event_time"), joined.there, silent, s.ref(t.name), where, joined.join), err
}
