package mlflow

import (
	"cmp"
	"slices"
)

type loggedRequest struct {
	ID         string `json:"model_id"`
	Experiment string `json:"experiment_id"`
	Name       string `json:"name"`
	Type       string `json:"model_type"`
	Run        string `json:"source_run_id"`
	Status     string `json:"status"`
	Params     []pair `json:"params"`
	Tags       []pair `json:"tags"`
}

// wire is a logged model as clients read it.
func (l *logged) wire() object {
	return object{"model": object{"info": l, "data": object{"params": l.params, "metrics": l.metrics}}}
}

func (s *Store) loggedModel(id string) (*logged, error) {
	if l := s.logged[id]; l != nil {
		return l, nil
	}
	return nil, missing("Logged model with ID '%s' not found.", id)
}

func createLogged(s *Store, c *change, r *loggedRequest) (any, error) {
	e, err := s.experiment(cmp.Or(r.Experiment, "0"))
	if err != nil {
		return nil, err
	}
	id := "m-" + c.Fresh
	l := &logged{
		ID: id, Experiment: e.ID, Name: cmp.Or(r.Name, "model"), Created: integer(c.At), Updated: integer(c.At),
		Artifacts: e.Location + "/models/" + id + "/artifacts", Status: "LOGGED_MODEL_PENDING", Type: r.Type, Run: r.Run,
		Tags: r.Tags, params: r.Params,
	}
	s.logged[id] = l
	return l.wire(), nil
}

func finishLogged(s *Store, c *change, r *loggedRequest) (any, error) {
	l, err := s.loggedModel(r.ID)
	if err != nil {
		return nil, err
	}
	l.Status, l.Updated = cmp.Or(r.Status, l.Status), integer(c.At)
	return l.wire(), nil
}

func tagLogged(s *Store, c *change, r *loggedRequest) (any, error) {
	l, err := s.loggedModel(r.ID)
	if err != nil {
		return nil, err
	}
	for _, t := range r.Tags {
		l.Tags = setPair(l.Tags, t)
	}
	l.Updated = integer(c.At)
	return l.wire(), nil
}

func paramLogged(s *Store, _ *change, r *loggedRequest) (any, error) {
	l, err := s.loggedModel(r.ID)
	if err == nil {
		l.params = append(l.params, r.Params...)
	}
	return object{}, err
}

func deleteLogged(s *Store, _ *change, r *loggedRequest) (any, error) {
	_, err := s.loggedModel(r.ID)
	delete(s.logged, r.ID)
	return object{}, err
}

func getLogged(s *Store, _ *change, r *loggedRequest) (any, error) {
	l, err := s.loggedModel(r.ID)
	if err != nil {
		return nil, err
	}
	return l.wire(), nil
}

func searchLogged(s *Store, _ *change, r *searchRequest) (any, error) {
	f, err := parseFilter(r.Filter, "attribute")
	if err != nil {
		return nil, err
	}
	var found []*logged
	for _, l := range s.logged {
		if (len(r.Experiments) == 0 || slices.Contains(r.Experiments, l.Experiment)) && f.match(l) {
			found = append(found, l)
		}
	}
	slices.SortFunc(found, func(a, b *logged) int {
		return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID))
	})
	page, next, err := paged(found, r.Page, int(r.Max), 1000)
	out := make([]any, len(page))
	for i, l := range page {
		out[i] = l.wire()["model"]
	}
	return object{"models": out, "next_page_token": next}, err
}

func (l *logged) field(kind, key string) (any, bool) {
	switch kind {
	case "tag":
		return pairOf(l.Tags, key)
	case "param":
		return pairOf(l.params, key)
	}
	switch key {
	case "name":
		return l.Name, true
	case "model_id":
		return l.ID, true
	case "source_run_id":
		return l.Run, true
	case "status":
		return l.Status, true
	case "creation_timestamp", "creation_time":
		return float64(l.Created), true
	}
	return nil, false
}
