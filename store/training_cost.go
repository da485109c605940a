package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// heldLong is how long a GPU must have been held before its idle time says
// anything, in seconds: loading rows takes its time.
const heldLong = 300

// TrainingCost is what the runs of each job took in a range (default: the last
// day), by the newest revision of each run. idle_share is the part of the time a
// GPU was held in which nothing ran on it; null where none was, or for less than
// five minutes. energy is null where no GPU was held. triggered counts runs that no person started, not the trials of their searches.
func (s *Store) TrainingCost(ctx context.Context, r query.Request) (query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return query.Frame{}, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "job": r.Model}
	where := "namespace = {namespace:String} AND " + inRange("created")
	if r.Model != "" {
		where += " AND job = {job:String}"
	}
	cols := []query.Column{col("job", query.Text, ""), col("runs", query.Float, "short"), col("failed", query.Float, "short"), col("triggered", query.Float, "short"),
		col("wall", query.Float, "s"), col("cpu", query.Float, "s"), col("gpu", query.Float, "s"), col("gpu_idle", query.Float, "s"), maybe("idle_share", query.Float, "percentunit"), maybe("energy", query.Float, "kwatth")}
	sql := fmt.Sprintf("SELECT job, toFloat64(count()), toFloat64(countIf(state = 'failed')), toFloat64(countIf(started)), sum(wall), sum(cpu), sum(gpu) AS held, sum(idle) AS unused, "+
		"if(held >= %d, unused / held, NULL), if(held > 0, sum(energy), NULL) FROM (SELECT toString(job) AS job, toString(state) AS state, trigger IN ('schedule', 'alert') AND parent = '' AS started, wall, cpu, gpu, energy, JSONExtractFloat(record, 'cost', 'gpu_idle_seconds') AS idle FROM ", heldLong) +
		s.ref("runs") + " WHERE " + where + " ORDER BY revision DESC LIMIT 1 BY id) GROUP BY job ORDER BY job"
	f, err := s.frame(ctx, "training cost", query.NumericLong, cols, sql, p)
	if err != nil {
		return f, requestError(fmt.Errorf("cost of training: %w", err))
	}
	return f, nil
}
