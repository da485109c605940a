package mlflow

import (
	"cmp"
	"slices"
	"strconv"
)

type experimentRequest struct {
	ID       string `json:"experiment_id"`
	Name     string `json:"name"`
	ByName   string `json:"experiment_name"`
	NewName  string `json:"new_name"`
	Location string `json:"artifact_location"`
	Tags     []pair `json:"tags"`
	Key      string `json:"key"`
	Value    string `json:"value"`
}

type object map[string]any

const (
	active  = "active"
	deleted = "deleted"
)

func createExperiment(s *Store, c *change, r *experimentRequest) (any, error) {
	if r.Name == "" {
		return nil, invalid("an experiment needs a name")
	}
	if e := s.experimentNamed(r.Name); e != nil {
		return nil, exists("Experiment '%s' already exists.", r.Name)
	}
	e := &experiment{ID: strconv.Itoa(len(s.order)), Name: r.Name, Location: r.Location, Stage: active, Created: integer(c.At), Updated: integer(c.At), Tags: r.Tags}
	if e.Location == "" {
		e.Location = "mlflow-artifacts:/" + e.ID
	}
	s.experiments[e.ID] = e
	s.order = append(s.order, e)
	return object{"experiment_id": e.ID}, nil
}

func (s *Store) experimentNamed(name string) *experiment {
	for _, e := range s.order {
		if e.Name == name {
			return e
		}
	}
	return nil
}

func (s *Store) experiment(id string) (*experiment, error) {
	if e := s.experiments[id]; e != nil {
		return e, nil
	}
	return nil, missing("No Experiment with id=%s exists", id)
}

func updateExperiment(s *Store, c *change, r *experimentRequest) (any, error) {
	e, err := s.experiment(r.ID)
	if err != nil {
		return nil, err
	}
	if other := s.experimentNamed(r.NewName); other != nil && other != e {
		return nil, exists("Experiment '%s' already exists.", r.NewName)
	}
	if r.NewName != "" {
		e.Name, e.Updated = r.NewName, integer(c.At)
	}
	return object{}, nil
}

func deleteExperiment(s *Store, c *change, r *experimentRequest) (any, error) {
	return object{}, s.stageExperiment(r.ID, deleted, c.At)
}

func restoreExperiment(s *Store, c *change, r *experimentRequest) (any, error) {
	return object{}, s.stageExperiment(r.ID, active, c.At)
}

func (s *Store) stageExperiment(id, stage string, at int64) error {
	e, err := s.experiment(id)
	if err == nil {
		e.Stage, e.Updated = stage, integer(at)
	}
	return err
}

func tagExperiment(s *Store, c *change, r *experimentRequest) (any, error) {
	e, err := s.experiment(r.ID)
	if err != nil {
		return nil, err
	}
	e.Tags = setPair(e.Tags, pair{r.Key, r.Value})
	return object{}, nil
}

func getExperiment(s *Store, _ *change, r *experimentRequest) (any, error) {
	e, err := s.experiment(r.ID)
	return object{"experiment": e}, err
}

func getExperimentByName(s *Store, _ *change, r *experimentRequest) (any, error) {
	if e := s.experimentNamed(r.ByName); e != nil {
		return object{"experiment": e}, nil
	}
	return nil, missing("Could not find experiment with name '%s'", r.ByName)
}

// searchRequest is what all searches have in common.
type searchRequest struct {
	Filter      string  `json:"filter"`
	Max         integer `json:"max_results"`
	Page        string  `json:"page_token"`
	Order       texts   `json:"order_by"`
	View        string  `json:"view_type"`
	RunView     string  `json:"run_view_type"`
	Experiments texts   `json:"experiment_ids"`
}

// viewed reports whether a stage is asked for.
func viewed(view, stage string) bool {
	switch view {
	case "DELETED_ONLY":
		return stage == deleted
	case "ALL":
		return true
	}
	return stage == active
}

func searchExperiments(s *Store, _ *change, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	var found []*experiment
	for _, e := range s.order {
		if viewed(r.View, e.Stage) && f.match(e) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b *experiment) int { return cmp.Compare(b.Created, a.Created) })
	if err := sortBy(found, r.Order, "attribute"); err != nil {
		return nil, err
	}
	page, next, err := paged(found, r.Page, int(r.Max), 1000)
	return object{"experiments": page, "next_page_token": next}, err
}

// field is one searchable value of an experiment.
func (e *experiment) field(kind, key string) (any, bool) {
	if kind == "tag" {
		return pairOf(e.Tags, key)
	}
	switch key {
	case "name":
		return e.Name, true
	case "experiment_id":
		return e.ID, true
	case "creation_time":
		return float64(e.Created), true
	case "last_update_time":
		return float64(e.Updated), true
	}
	return nil, false
}

func pairOf(list []pair, key string) (any, bool) {
	for _, p := range list {
		if p.Key == key {
			return p.Value, true
		}
	}
	return nil, false
}
