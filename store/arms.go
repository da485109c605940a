package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/query"
)

// ArmOutcome is what the predictions of one version and variant turned out to be.
type ArmOutcome struct {
	Version, Variant  string
	Units             uint64 // predictions, or entities
	Labelled          uint64 // of them, those with a label and a loss
	Loss, LossSquared float64
}

// ArmQuery says which predictions count and how they are judged.
type ArmQuery struct {
	Namespace, Model string
	Loss             string    // error, brier, log_loss, absolute_error, squared_error; empty: counts only
	Since            time.Time // when the broker appended the prediction
	ByEntity         bool      // a unit is an entity key, with the mean loss of its predictions
	Labels           LabelJoin // how labels find the predictions
}

// lossOf is a loss as an expression over a prediction and its label: y is the
// label as a number, truth as text. It is NULL where there is none.
func lossOf(name string) (string, error) {
	const y, truth = "coalesce(y, toFloat64OrNull(yc))", "coalesce(yc, toString(y))"
	switch name {
	case "":
		return "CAST(NULL, 'Nullable(Float64)')", nil
	case "error":
		const best = "mapKeys(scores)[indexOf(mapValues(scores), arrayMax(mapValues(scores)))]"
		return fmt.Sprintf("multiIf(isNotNull(`class`), toFloat64(`class` != %s), notEmpty(scores), toFloat64(%s != %s), isNotNull(score), toFloat64((score >= coalesce(threshold, 0.5)) != (%s >= 0.5)), NULL)", truth, best, truth, y), nil
	case "brier":
		return fmt.Sprintf("pow(score - %s, 2)", y), nil
	case "log_loss":
		return fmt.Sprintf("if(%s >= 0.5, -log(greatest(score, 1e-15)), -log(greatest(1 - score, 1e-15)))", y), nil
	case "absolute_error":
		return fmt.Sprintf("abs(coalesce(value, score) - %s)", y), nil
	case "squared_error":
		return fmt.Sprintf("pow(coalesce(value, score) - %s, 2)", y), nil
	}
	return "", invalid("loss %q: want error, brier, log_loss, absolute_error or squared_error", name)
}

// Arms counts predictions per version and variant and sums the losses of
// those whose label has come, or whose silence means one; the newest label
// counts, a withdrawn one does not. By id a shadow's predictions meet the labels
// of the answers that they stood beside; by key and by view they have a key and
// a time, a little later, of their own. Order: by version and variant.
func (s *Store) Arms(ctx context.Context, q ArmQuery) ([]ArmOutcome, error) {
	loss, err := lossOf(q.Loss)
	if err != nil {
		return nil, err
	}
	tables, err := s.subjectOf(query.Request{Namespace: q.Namespace, Model: q.Model})
	if errors.Is(err, ErrUnknown) {
		return nil, nil // nothing was predicted yet
	}
	if err != nil {
		return nil, err
	}
	predictions := s.predictionsSince(tables)
	p := params{"since": micro(q.Since), "silence": q.Labels.Silence, "due": micro(time.Now().Add(-q.Labels.Delay))}
	joined, err := s.armLabels(ctx, tables[0], q, predictions, p)
	if err != nil {
		return nil, fmt.Errorf("outcomes of %s: %w", q.Model, err)
	}
	unit, silent := "id", "false"
	if q.ByEntity {
		unit = "if(key != '', key, id)"
	}
	if q.Labels.Silence != "" {
		silent = "p.event_time <= fromUnixTimestamp64Micro({due:Int64}, 'UTC')"
	}
	labelled := fmt.Sprintf("SELECT p.id AS id, p.key AS key, p.version AS version, p.variant AS variant, p.score AS score, p.`class` AS `class`, p.value AS value, p.scores AS scores, p.threshold AS threshold, "+
		"%s AS said, said OR %s AS there, if(said, l.label, toFloat64OrNull({silence:String})) AS y, if(said, nullIf(l.truth, ''), nullIf({silence:String}, '')) AS yc FROM (%s) AS p%s", joined.there, silent, predictions, joined.join)
	sql := fmt.Sprintf(`SELECT toString(version), toString(variant), count(), countIf(isFinite(l)), sumIf(l, isFinite(l)), sumIf(l * l, isFinite(l))
FROM (SELECT version, variant, unit, ifNull(avg(loss), nan) AS l
FROM (SELECT version, variant, %s AS unit, if(there, %s, NULL) AS loss FROM (%s))
GROUP BY version, variant, unit) GROUP BY version, variant ORDER BY version, variant`, unit, loss, labelled)
	rows, err := s.query(ctx, sql, p)
	if err != nil {
		return nil, fmt.Errorf("outcomes of %s: %w", q.Model, err)
	}
	defer rows.Close()
	var out []ArmOutcome
	for rows.Next() {
		var o ArmOutcome
		if err := rows.Scan(&o.Version, &o.Variant, &o.Units, &o.Labelled, &o.Loss, &o.LossSquared); err != nil {
			return nil, fmt.Errorf("outcomes of %s: %w", q.Model, err)
		}
		out = append(out, o)
	}
	return out, rows.Err()
}

// armLabels joins the labels of predictions that were appended since a time. By
// key and by view, labels are looked for from the first of them on.
func (s *Store) armLabels(ctx context.Context, t *table, q ArmQuery, predictions string, p params) (labelJoin, error) {
	switch {
	case q.Loss == "":
		return noLabels(), nil
	case q.Labels.By == "" || q.Labels.By == "id":
		return s.truths(q), nil
	}
	var from, to int64
	if err := s.queryRow(ctx, "SELECT toUnixTimestamp64Micro(min(event_time)), toUnixTimestamp64Micro(max(event_time)) + 1 FROM ("+predictions+")", p).Scan(&from, &to); err != nil {
		return labelJoin{}, err
	}
	p["from"], p["to"], p["tolerance"] = strconv.FormatInt(from, 10), strconv.FormatInt(to, 10), strconv.FormatInt(q.Labels.Tolerance.Microseconds(), 10)
	return s.joinLabels(t, q.Labels)
}

const sinceAppended = "appended_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"

func (s *Store) predictionsSince(tables []*table) string {
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT id, key, event_time, version, variant, score, `class`, value, scores, threshold, "+
			"if(variant = 'shadow', substring(id, 1, length(id) - length(version) - 1), id) AS label_id FROM "+s.ref(t.name)+" WHERE "+sinceAppended)
	}
	return strings.Join(parts, " UNION ALL ")
}

// truths are the newest labels by prediction, of those that were appended since
// a time.
func (s *Store) truths(q ArmQuery) labelJoin {
	t := s.tableFor(event.Labels, q.Namespace, q.Model)
	if t == nil {
		return noLabels()
	}
	return labelJoin{fmt.Sprintf(" LEFT ANY JOIN (SELECT x.prediction_id AS id, argMax(tuple(x.label), %[1]s).1 AS label, argMax(ifNull(x.label_class, ''), %[1]s) AS truth, NOT argMax(x.withdrawn, %[1]s) AS there "+
		"FROM %[2]s AS x WHERE x.prediction_id != '' AND x.%[3]s GROUP BY id) AS l ON p.label_id = l.id", newestLabel, s.ref(t.name), sinceAppended), "l.there"}
}

// Drifted lists the columns of a view or model about which a window that ended
// after a time has a verdict of drift, newest revisions only.
func (s *Store) Drifted(ctx context.Context, namespace, subject string, since time.Time) ([]string, error) {
	sql := "SELECT DISTINCT toString(`column`) AS c FROM (SELECT `column`, drifted FROM " + s.ref("verdicts") +
		" WHERE namespace = {namespace:String} AND subject = {subject:String} AND end >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')" +
		" ORDER BY start, monitor, `column`, detector, revision DESC LIMIT 1 BY start, monitor, `column`, detector) WHERE drifted ORDER BY c"
	rows, err := s.query(ctx, sql, params{"namespace": namespace, "subject": subject, "since": strconv.FormatInt(since.UnixMicro(), 10)})
	if err != nil {
		return nil, fmt.Errorf("drift verdicts of %s: %w", subject, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			return nil, fmt.Errorf("drift verdicts of %s: %w", subject, err)
		}
		out = append(out, c)
	}
	return out, rows.Err()
}
