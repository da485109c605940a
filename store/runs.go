package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// TrainingRun is a training run as of one revision; the highest wins. Scores
// are those of Metric; NaN stands for none.
type TrainingRun struct {
	Namespace, ID, Job, Parent, Owner string
	Revision                          uint64
	State, Trigger, Backend, Metric   string
	Created, Started, Finished        time.Time
	Round, Rounds                     int64 // done, planned
	Valid, Test, Baseline, Live       float64
	Rows                              int64
	Device, Requested, Reason         string
	Wall, CPU, GPU, Energy            float64 // s, s, s, kWh
	Artifact, Version                 string
	Passed                            bool
	Refused, Error                    string
	Record                            string // everything, as the trainer's JSON
}

// RunMetric is one number of one round of a run.
type RunMetric struct {
	Run, Job, Set, Metric string
	Step                  int64
	Value                 float64
	Time                  time.Time
}

// RunLine is one line of a run's log. N counts the run's lines.
type RunLine struct {
	Run  string
	N    int64
	Time time.Time
	Text string
}

// runTables hold training runs, every round's metrics and the logs.
func (s *Store) runTables() []string {
	return []string{
		strings.Replace(s.fixed("runs", strings.Join([]string{
			"namespace LowCardinality(String)", "id String", "revision UInt64", "job LowCardinality(String)", "parent String", "owner String",
			"state LowCardinality(String)", "trigger LowCardinality(String)", "backend LowCardinality(String)", "metric LowCardinality(String)",
			micros("created"), micros("started"), micros("finished"), "round Int64", "rounds Int64",
			"valid Float64", "test Float64", "baseline Float64", "live Float64", "rows Int64",
			"device LowCardinality(String)", "requested LowCardinality(String)", "reason String",
			"wall Float64", "cpu Float64", "gpu Float64", "energy Float64", "artifact String", "version String",
			"passed Bool", "refused String CODEC(ZSTD(1))", "error String CODEC(ZSTD(1))", "record String CODEC(ZSTD(3))",
		}, ", "), "namespace, id", ""), "MergeTree", "ReplacingMergeTree(revision)", 1),
		s.fixed("run_metrics", strings.Join([]string{
			"namespace LowCardinality(String)", "run String", "job LowCardinality(String)", "part LowCardinality(String)", "metric LowCardinality(String)",
			"step Int64 CODEC(Delta, ZSTD(1))", "value Float64", micros("time"),
		}, ", "), "namespace, run, part, metric, step", "toYYYYMM(time)"),
		s.fixed("run_logs", strings.Join([]string{
			"namespace LowCardinality(String)", "run String", "n Int64 CODEC(Delta, ZSTD(1))", micros("time"), "line String CODEC(ZSTD(1))",
		}, ", "), "namespace, run, n", "toYYYYMM(time)"),
	}
}

// SaveRun stores newest revisions of runs.
func (s *Store) SaveRun(ctx context.Context, rs ...TrainingRun) error {
	if len(rs) == 0 {
		return nil
	}
	text := func(name string, get func(TrainingRun) string) named { return named{name, texts(collect(rs, get))} }
	at := func(name string, get func(TrainingRun) time.Time) named {
		return named{name, fixed[int64]{timestampType, collect(rs, func(r TrainingRun) int64 { return microsOf(get(r)) })}}
	}
	whole := func(name string, get func(TrainingRun) int64) named {
		return named{name, fixed[int64]{"Int64", collect(rs, get)}}
	}
	number := func(name string, get func(TrainingRun) float64) named {
		return named{name, fixed[float64]{"Float64", collect(rs, get)}}
	}
	type run = TrainingRun
	cols := []named{
		text("namespace", func(r run) string { return r.Namespace }), text("id", func(r run) string { return r.ID }),
		{"revision", fixed[uint64]{"UInt64", collect(rs, func(r run) uint64 { return r.Revision })}},
		text("job", func(r run) string { return r.Job }), text("parent", func(r run) string { return r.Parent }), text("owner", func(r run) string { return r.Owner }),
		text("state", func(r run) string { return r.State }), text("trigger", func(r run) string { return r.Trigger }),
		text("backend", func(r run) string { return r.Backend }), text("metric", func(r run) string { return r.Metric }),
		at("created", func(r run) time.Time { return r.Created }), at("started", func(r run) time.Time { return r.Started }), at("finished", func(r run) time.Time { return r.Finished }),
		whole("round", func(r run) int64 { return r.Round }), whole("rounds", func(r run) int64 { return r.Rounds }),
		number("valid", func(r run) float64 { return r.Valid }), number("test", func(r run) float64 { return r.Test }),
		number("baseline", func(r run) float64 { return r.Baseline }), number("live", func(r run) float64 { return r.Live }), whole("rows", func(r run) int64 { return r.Rows }),
		text("device", func(r run) string { return r.Device }), text("requested", func(r run) string { return r.Requested }), text("reason", func(r run) string { return r.Reason }),
		number("wall", func(r run) float64 { return r.Wall }), number("cpu", func(r run) float64 { return r.CPU }),
		number("gpu", func(r run) float64 { return r.GPU }), number("energy", func(r run) float64 { return r.Energy }),
		text("artifact", func(r run) string { return r.Artifact }), text("version", func(r run) string { return r.Version }),
		{"passed", fixed[bool]{"Bool", collect(rs, func(r run) bool { return r.Passed })}},
		text("refused", func(r run) string { return r.Refused }), text("error", func(r run) string { return r.Error }), text("record", func(r run) string { return r.Record }),
	}
	token := fmt.Sprintf("run/%s/%s/%d", rs[0].Namespace, rs[0].ID, rs[0].Revision)
	if len(rs) > 1 {
		token = rand.Text() // several at once: sent again they are replaced by their revision
	}
	return s.insertRows(ctx, "runs", token, len(rs), cols)
}

// SaveRunMetrics stores metrics of runs of a namespace. The token stands for
// their content.
func (s *Store) SaveRunMetrics(ctx context.Context, namespace, token string, ms []RunMetric) error {
	if len(ms) == 0 {
		return nil
	}
	cols := []named{
		{"namespace", texts(collect(ms, func(RunMetric) string { return namespace }))},
		{"run", texts(collect(ms, func(m RunMetric) string { return m.Run }))},
		{"job", texts(collect(ms, func(m RunMetric) string { return m.Job }))},
		{"part", texts(collect(ms, func(m RunMetric) string { return m.Set }))},
		{"metric", texts(collect(ms, func(m RunMetric) string { return m.Metric }))},
		{"step", fixed[int64]{"Int64", collect(ms, func(m RunMetric) int64 { return m.Step })}},
		{"value", fixed[float64]{"Float64", collect(ms, func(m RunMetric) float64 { return m.Value })}},
		{"time", fixed[int64]{timestampType, collect(ms, func(m RunMetric) int64 { return microsOf(m.Time) })}},
	}
	return s.insertRows(ctx, "run_metrics", token, len(ms), cols)
}

// RunHistory are the values of one metric of a run that an MLflow client
// logged, each once, in the order of time and step.
func (s *Store) RunHistory(ctx context.Context, namespace, run, metric string) ([]RunMetric, error) {
	rows, err := s.query(ctx, "SELECT DISTINCT step, value, time FROM "+s.ref("run_metrics")+
		" WHERE namespace = {namespace:String} AND run = {run:String} AND part = '' AND metric = {metric:String} ORDER BY time, step",
		params{"namespace": namespace, "run": run, "metric": metric})
	if err != nil {
		return nil, fmt.Errorf("metric of run %s: %w", run, err)
	}
	defer rows.Close()
	var out []RunMetric
	for rows.Next() {
		m := RunMetric{Run: run, Metric: metric}
		if err := rows.Scan(&m.Step, &m.Value, &m.Time); err != nil {
			return nil, fmt.Errorf("metric of run %s: %w", run, err)
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// SaveRunLog stores lines of runs' logs.
func (s *Store) SaveRunLog(ctx context.Context, namespace, token string, ls []RunLine) error {
	if len(ls) == 0 {
		return nil
	}
	cols := []named{
		{"namespace", texts(collect(ls, func(RunLine) string { return namespace }))},
		{"run", texts(collect(ls, func(l RunLine) string { return l.Run }))},
		{"n", fixed[int64]{"Int64", collect(ls, func(l RunLine) int64 { return l.N })}},
		{"time", fixed[int64]{timestampType, collect(ls, func(l RunLine) int64 { return microsOf(l.Time) })}},
		{"line", texts(collect(ls, func(l RunLine) string { return l.Text }))},
	}
	return s.insertRows(ctx, "run_logs", token, len(ls), cols)
}

// AllNamespaces stands for every namespace where that is meant. It is no
// namespace's name, and no name is none of them: a caller without one sees nothing.
const AllNamespaces = "*"

// RunRecords reads the newest record of every run of a namespace, or of
// [AllNamespaces], newest run first; with states, of those that are in one of them, and with an id, of
// that run alone.
func (s *Store) RunRecords(ctx context.Context, namespace, id string, states ...string) ([]string, error) {
	p := params{"namespace": namespace, "id": id, "states": textList(states)}
	where := "1"
	if len(states) > 0 {
		where = "has(arrayMap(h -> unhex(h), {states:Array(String)}), toString(state))"
	}
	one := ""
	if id != "" {
		one = " AND id = {id:String}"
	}
	rows, err := s.query(ctx, "SELECT record FROM (SELECT state, record, created FROM "+s.ref("runs")+" WHERE ({namespace:String} = '"+AllNamespaces+"' OR namespace = {namespace:String})"+one+
		" ORDER BY revision DESC LIMIT 1 BY id) WHERE "+where+" ORDER BY created DESC", p)
	if err != nil {
		return nil, fmt.Errorf("read training runs: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var record string
		if err := rows.Scan(&record); err != nil {
			return nil, fmt.Errorf("read training runs: %w", err)
		}
		out = append(out, record)
	}
	return out, rows.Err()
}

// Runs answers the kind "runs": training runs created in a range (default: the
// last month), newest first. The filter may name run, parent, state, trigger
// and backend; the model is the job's name.
func (s *Store) Runs(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 31*24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "job": r.Model}
	inner := "namespace = {namespace:String} AND " + inRange("created")
	if r.Model != "" {
		inner += " AND job = {job:String}"
	}
	where, err := runFilter(r, p, map[string]string{"run": "id", "parent": "parent", "state": "state", "trigger": "trigger", "backend": "backend"})
	if err != nil {
		return nil, err
	}
	cols, exprs := runColumns()
	sql := "SELECT " + exprs + " FROM (SELECT * FROM " + s.ref("runs") + " WHERE " + inner + " ORDER BY revision DESC LIMIT 1 BY id) WHERE " + where +
		" ORDER BY created DESC, id LIMIT " + limit
	f, err := s.frame(ctx, "runs", query.Table, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("training runs: %w", err))
	}
	return []query.Frame{f}, nil
}

// runFilter is the condition of a request's filter on columns by their name in
// requests.
func runFilter(r query.Request, p params, columns map[string]string) (string, error) {
	conditions := []string{"1"}
	for _, name := range sortedKeys(r.Filter) {
		column, ok := columns[name]
		if !ok {
			return "", invalid("kind %s cannot be filtered by %q: want one of %s", r.Kind, name, strings.Join(sortedKeys(columns), ", "))
		}
		p["f_"+name] = r.Filter[name]
		conditions = append(conditions, column+" = {f_"+name+":String}")
	}
	return strings.Join(conditions, " AND "), nil
}

// runColumns are the columns of the kind "runs" and the expressions that fill
// them.
func runColumns() ([]query.Column, string) {
	time := func(name string) string { return "if(toUnixTimestamp64Micro(" + name + ") = 0, NULL, " + name + ")" }
	score := func(name string) string { return "if(isNaN(" + name + "), NULL, " + name + ")" }
	type c struct {
		col  query.Column
		expr string
	}
	all := []c{
		{col("run", query.Text, ""), "id"}, {col("job", query.Text, ""), "toString(job)"}, {col("state", query.Text, ""), "toString(state)"},
		{col("trigger", query.Text, ""), "toString(trigger)"}, {col("backend", query.Text, ""), "toString(backend)"},
		{col("created", query.Time, ""), "created"}, {maybe("started", query.Time, ""), time("started")}, {maybe("finished", query.Time, ""), time("finished")},
		{col("duration", query.Float, "s"), "wall"}, {col("round", query.Int, ""), "round"}, {col("rounds", query.Int, ""), "rounds"},
		{col("metric", query.Text, ""), "toString(metric)"}, {maybe("valid", query.Float, ""), score("valid")}, {maybe("test", query.Float, ""), score("test")},
		{maybe("baseline", query.Float, ""), score("baseline")}, {maybe("live", query.Float, ""), score("live")}, {col("rows", query.Int, "short"), "rows"},
		{col("device", query.Text, ""), "toString(device)"}, {col("device_requested", query.Text, ""), "toString(requested)"}, {col("device_reason", query.Text, ""), "reason"},
		{col("cpu", query.Float, "s"), "cpu"}, {col("gpu", query.Float, "s"), "gpu"}, {col("energy", query.Float, "kwatth"), "energy"},
		{col("passed", query.Bool, ""), "passed"}, {col("version", query.Text, ""), "version"}, {col("artifact", query.Text, ""), "artifact"},
		{col("refused", query.Text, ""), "refused"}, {col("error", query.Text, ""), "error"}, {col("parent", query.Text, ""), "parent"}, {col("owner", query.Text, ""), "owner"},
	}
	var cols []query.Column
	var exprs []string
	for _, x := range all {
		cols, exprs = append(cols, x.col), append(exprs, x.expr)
	}
	return cols, strings.Join(exprs, ", ")
}

// RunMetrics answers the kind "run_metrics": every round's metrics of runs
// (default: logged in the last day), oldest first; a round that was done again
// after a resumption counts once. Columns choose metrics; the
// filter may name run and set; the model is the job's name.
func (s *Store) RunMetrics(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if r.Limit == 0 {
		r.Limit = maxLimit
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace, "job": r.Model, "metrics": textList(r.Columns)}
	where, err := runFilter(r, p, map[string]string{"run": "run", "set": "part"})
	if err != nil {
		return nil, err
	}
	where += " AND namespace = {namespace:String} AND " + inRange("time")
	if r.Model != "" {
		where += " AND job = {job:String}"
	}
	if len(r.Columns) > 0 {
		where += " AND has(arrayMap(h -> unhex(h), {metrics:Array(String)}), toString(metric))"
	}
	cols := []query.Column{col("time", query.Time, ""), col("step", query.Int, ""), col("value", query.Float, ""), col("run", query.Text, ""),
		col("job", query.Text, ""), col("set", query.Text, ""), col("metric", query.Text, "")}
	sql := "SELECT * FROM (SELECT time, step, value, run, toString(job), toString(part), toString(metric) FROM " + s.ref("run_metrics") + " WHERE " + where +
		" ORDER BY time DESC LIMIT 1 BY run, part, metric, step LIMIT " + limit + ") ORDER BY time, run, step"
	f, err := s.frame(ctx, "run metrics", query.TimeSeriesLong, cols, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("metrics of training runs: %w", err))
	}
	return []query.Frame{f}, nil
}

// RunLog answers the kind "run_log": the lines that runs wrote, newest first.
// The filter may name run.
func (s *Store) RunLog(ctx context.Context, r query.Request) ([]query.Frame, error) {
	from, to, err := timeRange(r, time.Now(), 7*24*time.Hour)
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	p := params{"from": micro(from), "to": micro(to), "namespace": r.Namespace}
	where, err := runFilter(r, p, map[string]string{"run": "run"})
	if err != nil {
		return nil, err
	}
	sql := "SELECT time, line, 'info', concat(run, '/', toString(n)), toJSONString(map('run', run)) FROM " + s.ref("run_logs") + " WHERE namespace = {namespace:String} AND " +
		inRange("time") + " AND " + where + " ORDER BY time DESC, n DESC LIMIT " + limit
	f, err := s.frame(ctx, "run log", query.LogLines, []query.Column{
		col("timestamp", query.Time, ""), col("body", query.Text, ""), col("severity", query.Text, ""), col("id", query.Text, ""), col("labels", query.RawJSON, ""),
	}, sql, p)
	if err != nil {
		return nil, requestError(fmt.Errorf("log of training runs: %w", err))
	}
	return []query.Frame{f}, nil
}

// JobRun is when and why a job's run began, and its state.
type JobRun struct {
	Created        time.Time
	Trigger, State string
}

// JobRuns are a job's runs since a time, newest first; trials, and runs that
// MLflow's clients log, are left out.
func (s *Store) JobRuns(ctx context.Context, namespace, job string, since time.Time) ([]JobRun, error) {
	rows, err := s.query(ctx, "SELECT created, toString(trigger), toString(state) FROM (SELECT * FROM "+s.ref("runs")+
		" WHERE namespace = {namespace:String} AND job = {job:String} AND parent = '' AND trigger != 'mlflow' AND created >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') ORDER BY revision DESC LIMIT 1 BY id) ORDER BY created DESC",
		params{"namespace": namespace, "job": job, "since": micro(since)})
	if err != nil {
		return nil, fmt.Errorf("runs of job %s: %w", job, err)
	}
	defer rows.Close()
	var out []JobRun
	for rows.Next() {
		var r JobRun
		if err := rows.Scan(&r.Created, &r.Trigger, &r.State); err != nil {
			return nil, fmt.Errorf("runs of job %s: %w", job, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// OpenIncidents are the incidents of some subjects that have not ended.
func (s *Store) OpenIncidents(ctx context.Context, namespace string, subjects []string) ([]Incident, error) {
	rows, err := s.query(ctx, "SELECT id, toString(monitor), toString(subject), toString(`column`), toString(detector), opened, toString(state), toString(severity), sentence FROM "+
		s.newestIncidents("toUnixTimestamp64Micro(ended) = 0 AND has(arrayMap(h -> unhex(h), {subjects:Array(String)}), toString(subject))")+" ORDER BY opened DESC",
		params{"namespace": namespace, "subjects": textList(subjects)})
	if err != nil {
		return nil, fmt.Errorf("open incidents: %w", err)
	}
	defer rows.Close()
	var out []Incident
	for rows.Next() {
		i := Incident{Namespace: namespace}
		if err := rows.Scan(&i.ID, &i.Monitor, &i.Subject, &i.Column, &i.Detector, &i.Opened, &i.State, &i.Severity, &i.Sentence); err != nil {
			return nil, fmt.Errorf("open incidents: %w", err)
		}
		out = append(out, i)
	}
	return out, rows.Err()
}
