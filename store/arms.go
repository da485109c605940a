package store

import (
	"context"
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
// those whose label has come; the newest label counts, a withdrawn one does
// not. A shadow's predictions meet the labels of the answers that they stood
// beside. Order: by version and variant.
func (s *Store) Arms(ctx context.Context, q ArmQuery) ([]ArmOutcome, error) {
	loss, err := lossOf(q.Loss)
	if err != nil {
		return nil, err
	}
	predictions := s.predictionsSince(q)
	if predictions == "" {
		return nil, nil // nothing was predicted yet
	}
	unit := "id"
	if q.ByEntity {
		unit = "if(key != '', key, id)"
	}
	sql := fmt.Sprintf(`SELECT toString(version), toString(variant), count(), countIf(isFinite(l)), sumIf(l, isFinite(l)), sumIf(l * l, isFinite(l))
FROM (SELECT version, variant, unit, ifNull(avg(loss), nan) AS l
FROM (SELECT version, variant, %s AS unit, if(there, %s, NULL) AS loss FROM (%s) AS p LEFT ANY JOIN (%s) AS t ON p.label_id = t.prediction_id)
GROUP BY version, variant, unit) GROUP BY version, variant ORDER BY version, variant`, unit, loss, predictions, s.truths(q))
	rows, err := s.query(ctx, sql, params{"since": strconv.FormatInt(q.Since.UnixMicro(), 10)})
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

const sinceAppended = "appended_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"

func (s *Store) predictionsSince(q ArmQuery) string {
	tables, err := s.subjectOf(query.Request{Namespace: q.Namespace, Model: q.Model})
	if err != nil {
		return ""
	}
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT id, version, variant, key, score, `class`, value, scores, threshold, "+
			"if(variant = 'shadow', substring(id, 1, length(id) - length(version) - 1), id) AS label_id FROM "+s.ref(t.name)+" WHERE "+sinceAppended)
	}
	return strings.Join(parts, " UNION ALL ")
}

// truths are the newest labels by prediction.
func (s *Store) truths(q ArmQuery) string {
	const newest = "(event_time, created, _epoch, _partition, _offset)"
	for name, t := range s.tables() {
		if t.schema.Kind == event.Labels && t.schema.Subject == q.Model && t.schema.Namespace == q.Namespace {
			return fmt.Sprintf("SELECT prediction_id, argMax(tuple(`label`), %s).1 AS y, argMax(tuple(label_class), %s).1 AS yc, NOT argMax(withdrawn, %s) AS there FROM %s WHERE prediction_id != '' AND %s GROUP BY prediction_id",
				newest, newest, newest, s.ref(name), sinceAppended)
		}
	}
	return "SELECT '' AS prediction_id, CAST(NULL, 'Nullable(Float64)') AS y, CAST(NULL, 'Nullable(String)') AS yc, false AS there WHERE 0"
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
