package mlflow

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
)

type runRequest struct {
	ID         string            `json:"run_id"`
	UUID       string            `json:"run_uuid"`
	Experiment string            `json:"experiment_id"`
	Name       string            `json:"run_name"`
	User       string            `json:"user_id"`
	Status     string            `json:"status"`
	Start      integer           `json:"start_time"`
	End        integer           `json:"end_time"`
	Tags       []pair            `json:"tags"`
	Params     []pair            `json:"params"`
	Metrics    []metric          `json:"metrics"`
	Key        string            `json:"key"`
	MetricKey  string            `json:"metric_key"`
	Value      json.RawMessage   `json:"value"`
	Timestamp  integer           `json:"timestamp"`
	Step       integer           `json:"step"`
	Datasets   []json.RawMessage `json:"datasets"`
	Models     []json.RawMessage `json:"models"`
	Max        integer           `json:"max_results"`
	Page       string            `json:"page_token"`
}

func (r *runRequest) id() string { return cmp.Or(r.ID, r.UUID) }

func (s *Store) run(r *runRequest) (*run, error) {
	if x := s.runs[r.id()]; x != nil {
		return x, nil
	}
	return nil, missing("Run with id=%s not found", r.id())
}

// runTag is where clients keep a run's name.
const runTag = "mlflow.runName"

func createRun(s *Store, c *change, r *runRequest) (any, error) {
	e, err := s.experiment(cmp.Or(r.Experiment, "0"))
	if err != nil {
		return nil, err
	}
	if e.Stage != active {
		return nil, invalid("experiment %s is deleted", e.ID)
	}
	x := &run{params: make(map[string]string), tags: make(map[string]string), latest: make(map[string]metric), history: make(map[string][]metric)}
	x.info = runInfo{
		ID: c.Fresh, UUID: c.Fresh, Name: r.Name, Experiment: e.ID, User: r.User, Status: "RUNNING", Start: r.Start,
		Artifacts: e.Location + "/" + c.Fresh + "/artifacts", Stage: active,
	}
	if x.info.Start == 0 {
		x.info.Start = integer(c.At)
	}
	for _, t := range r.Tags {
		x.tags[t.Key] = t.Value
	}
	x.info.Name = cmp.Or(x.info.Name, x.tags[runTag], "run-"+c.Fresh[:min(8, len(c.Fresh))])
	x.tags[runTag] = x.info.Name
	s.runs[x.info.ID] = x
	e.runs = append(e.runs, x)
	c.run = x
	return object{"run": x.wire()}, nil
}

// wire is a run as clients read it.
func (x *run) wire() object {
	var metrics []metric
	for _, k := range slices.Sorted(maps.Keys(x.latest)) {
		metrics = append(metrics, x.latest[k])
	}
	return object{
		"info":    x.info,
		"data":    object{"metrics": metrics, "params": pairs(x.params), "tags": pairs(x.tags)},
		"inputs":  object{"dataset_inputs": x.inputs, "model_inputs": x.models},
		"outputs": object{"model_outputs": x.outputs},
	}
}

func pairs(m map[string]string) []pair {
	var out []pair
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{k, m[k]})
	}
	return out
}

func updateRun(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	x.info.Status = cmp.Or(r.Status, x.info.Status)
	x.info.End = cmp.Or(r.End, x.info.End)
	if r.Name != "" {
		x.info.Name = r.Name
		x.tags[runTag] = r.Name
	}
	c.run = x
	return object{"run_info": x.info}, nil
}

func deleteRun(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err == nil {
		x.info.Stage, c.run = deleted, x
	}
	return object{}, err
}

func restoreRun(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err == nil {
		x.info.Stage, c.run = active, x
	}
	return object{}, err
}

func logMetric(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	m := metric{Key: r.Key, Timestamp: r.Timestamp, Step: r.Step}
	if err := json.Unmarshal(r.Value, &m.Value); err != nil {
		return nil, invalid("metric %s: %v", r.Key, err)
	}
	c.run, c.metrics = x, []metric{m}
	return object{}, x.log(c.metrics)
}

// lastTime is the latest time of a metric, in ms: the year 2200.
const lastTime = 7_258_118_400_000

func checkMetrics(metrics []metric) error {
	for _, m := range metrics {
		if m.Key == "" {
			return invalid("a metric needs a key")
		}
		if m.Timestamp < 0 || m.Timestamp >= lastTime {
			return invalid("metric %s: timestamp %d ms lies before 1970 or after 2200", m.Key, m.Timestamp)
		}
	}
	return nil
}

// log adds metrics; the request is whole or refused.
func (x *run) log(metrics []metric) error {
	if err := checkMetrics(metrics); err != nil {
		return err
	}
	for _, m := range metrics {
		x.history[m.Key] = append(x.history[m.Key], m)
		if last, ok := x.latest[m.Key]; !ok || m.later(last) {
			x.latest[m.Key] = m
		}
	}
	return nil
}

func logParameter(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	var value string
	if err := json.Unmarshal(r.Value, &value); err != nil && len(r.Value) > 0 {
		return nil, invalid("parameter %s: %v", r.Key, err)
	}
	c.run = x
	return object{}, x.setParams([]pair{{r.Key, value}})
}

// setParams refuses to change a parameter that was logged before.
func (x *run) setParams(params []pair) error {
	for _, p := range params {
		if old, ok := x.params[p.Key]; ok && old != p.Value {
			return invalid("Changing param values is not allowed. Param with key='%s' was already logged with value='%s' for run ID='%s'. Attempted logging new value '%s'.", p.Key, old, x.info.ID, p.Value)
		}
		if p.Key == "" {
			return invalid("a parameter needs a key")
		}
	}
	for _, p := range params {
		x.params[p.Key] = p.Value
	}
	return nil
}

func setTag(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	var value string
	if err := json.Unmarshal(r.Value, &value); err != nil && len(r.Value) > 0 {
		return nil, invalid("tag %s: %v", r.Key, err)
	}
	x.setTags([]pair{{r.Key, value}})
	c.run = x
	return object{}, nil
}

func (x *run) setTags(tags []pair) {
	for _, t := range tags {
		x.tags[t.Key] = t.Value
		if t.Key == runTag {
			x.info.Name = t.Value
		}
	}
}

func deleteTag(s *Store, _ *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	if _, ok := x.tags[r.Key]; !ok {
		return nil, missing("No tag with name: %s in run with id %s", r.Key, r.id())
	}
	delete(x.tags, r.Key)
	return object{}, nil
}

func logBatch(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	if err := checkMetrics(r.Metrics); err != nil {
		return nil, err
	}
	if err := x.setParams(r.Params); err != nil {
		return nil, err
	}
	x.setTags(r.Tags)
	c.run, c.metrics = x, r.Metrics
	return object{}, x.log(r.Metrics)
}

func logInputs(s *Store, _ *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err == nil {
		x.inputs = append(x.inputs, r.Datasets...)
		x.models = append(x.models, r.Models...)
	}
	return object{}, err
}

func logOutputs(s *Store, _ *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err == nil {
		x.outputs = append(x.outputs, r.Models...)
	}
	return object{}, err
}

// logModel keeps the description that MLflow 2 clients send as a tag.
func logModel(s *Store, c *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	var body struct {
		Model string `json:"model_json"`
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		return nil, invalid("%v", err)
	}
	history := []json.RawMessage{}
	_ = json.Unmarshal([]byte(x.tags["mlflow.log-model.history"]), &history) // absent at first
	if !json.Valid([]byte(body.Model)) {
		return nil, invalid("model_json is not JSON")
	}
	text, err := json.Marshal(append(history, json.RawMessage(body.Model)))
	x.tags["mlflow.log-model.history"] = string(text)
	return object{}, err
}

func getRun(s *Store, _ *change, r *runRequest) (any, error) {
	x, err := s.run(r)
	if err != nil {
		return nil, err
	}
	return object{"run": x.wire()}, nil
}

func searchRuns(s *Store, _ *change, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	var found []*run
	for _, id := range r.Experiments {
		e := s.experiments[id]
		if e == nil {
			continue
		}
		for _, x := range e.runs {
			if viewed(r.RunView, x.info.Stage) && f.match(x) {
				found = append(found, x)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *run) int {
		return cmp.Or(cmp.Compare(b.info.Start, a.info.Start), cmp.Compare(a.info.ID, b.info.ID))
	})
	if err := sortBy(found, r.Order, "attribute"); err != nil {
		return nil, err
	}
	page, next, err := paged(found, r.Page, int(r.Max), 50_000)
	if err != nil {
		return nil, err
	}
	out := make([]object, len(page))
	for i, x := range page {
		out[i] = x.wire()
	}
	return object{"runs": out, "next_page_token": next}, nil
}

// field is one searchable value of a run.
func (x *run) field(kind, key string) (any, bool) {
	switch kind {
	case "metric":
		m, ok := x.latest[key]
		return float64(m.Value), ok
	case "param":
		v, ok := x.params[key]
		return v, ok
	case "tag":
		v, ok := x.tags[key]
		return v, ok
	}
	switch key {
	case "run_id":
		return x.info.ID, true
	case "run_name", "Run name":
		return x.info.Name, true
	case "status":
		return x.info.Status, true
	case "user_id":
		return x.info.User, true
	case "artifact_uri":
		return x.info.Artifacts, true
	case "start_time", "Created":
		return float64(x.info.Start), true
	case "end_time":
		return float64(x.info.End), x.info.End != 0
	}
	return nil, false
}
