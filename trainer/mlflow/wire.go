package mlflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
)

// Error is what a client gets: MLflow's code and a sentence.
type Error struct {
	Code    string `json:"error_code"`
	Message string `json:"message"`
	status  int
}

// Error returns code and sentence.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func missing(format string, args ...any) error {
	return &Error{"RESOURCE_DOES_NOT_EXIST", fmt.Sprintf(format, args...), http.StatusNotFound}
}

func exists(format string, args ...any) error {
	return &Error{"RESOURCE_ALREADY_EXISTS", fmt.Sprintf(format, args...), http.StatusBadRequest}
}

func invalid(format string, args ...any) error {
	return &Error{"INVALID_PARAMETER_VALUE", fmt.Sprintf(format, args...), http.StatusBadRequest}
}

// integer is an int64 that clients write as a number or as a string.
type integer int64

// UnmarshalJSON reads either spelling.
func (n *integer) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(string(bytes.Trim(b, `"`)), 10, 64)
	*n = integer(v)
	return err
}

// number is a float64 that may be NaN or infinite, which JSON writes as texts.
type number float64

// UnmarshalJSON reads a number or its text.
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(bytes.Trim(b, `"`)), 64)
	*n = number(v)
	return err
}

// MarshalJSON writes a text where JSON has no number.
func (n number) MarshalJSON() ([]byte, error) {
	switch v := float64(n); {
	case math.IsNaN(v):
		return []byte(`"NaN"`), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	}
	return json.Marshal(float64(n))
}

// texts is a list that a query string writes as one value when it has one.
type texts []string

// UnmarshalJSON reads a list or a single text.
func (t *texts) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*t = texts{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// pair is a parameter or a tag.
type pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// metric is one number of one step.
type metric struct {
	Key       string  `json:"key"`
	Value     number  `json:"value"`
	Timestamp integer `json:"timestamp"`
	Step      integer `json:"step"`
}

// later reports whether a stands for the latest value of a key beside b.
func (a metric) later(b metric) bool {
	if a.Step != b.Step {
		return a.Step > b.Step
	}
	if a.Timestamp != b.Timestamp {
		return a.Timestamp > b.Timestamp
	}
	return a.Value >= b.Value
}

// experiment is a group of runs.
type experiment struct {
	ID       string  `json:"experiment_id"`
	Name     string  `json:"name"`
	Location string  `json:"artifact_location"`
	Stage    string  `json:"lifecycle_stage"`
	Created  integer `json:"creation_time"`
	Updated  integer `json:"last_update_time"`
	Tags     []pair  `json:"tags,omitempty"`

	runs []*run
}

// runInfo is the part of a run that its status changes.
type runInfo struct {
	ID         string  `json:"run_id"`
	UUID       string  `json:"run_uuid"`
	Name       string  `json:"run_name"`
	Experiment string  `json:"experiment_id"`
	User       string  `json:"user_id"`
	Status     string  `json:"status"`
	Start      integer `json:"start_time"`
	End        integer `json:"end_time,omitempty"`
	Artifacts  string  `json:"artifact_uri"`
	Stage      string  `json:"lifecycle_stage"`
}

// run keeps every metric's latest value, and of its history what ClickHouse
// does not have yet.
type run struct {
	info    runInfo
	params  map[string]string
	tags    map[string]string
	latest  map[string]metric
	history map[string][]metric
	inputs  []json.RawMessage
	models  []json.RawMessage // inputs
	outputs []json.RawMessage

	revision uint64 // of the record that ClickHouse is to have
	waits    bool   // in the parcel
}

// version is one version of a registered model.
type version struct {
	Name        string  `json:"name"`
	Version     string  `json:"version"`
	Created     integer `json:"creation_timestamp"`
	Updated     integer `json:"last_updated_timestamp"`
	User        string  `json:"user_id,omitempty"`
	Stage       string  `json:"current_stage"`
	Description string  `json:"description,omitempty"`
	Source      string  `json:"source"`
	RunID       string  `json:"run_id,omitempty"`
	ModelID     string  `json:"model_id,omitempty"`
	Status      string  `json:"status"`
	Tags        []pair  `json:"tags,omitempty"`
	Aliases     texts   `json:"aliases,omitempty"`
}

// registered is a named model.
type registered struct {
	Name        string    `json:"name"`
	Created     integer   `json:"creation_timestamp"`
	Updated     integer   `json:"last_updated_timestamp"`
	Description string    `json:"description,omitempty"`
	Tags        []pair    `json:"tags,omitempty"`
	Aliases     []aliasOf `json:"aliases,omitempty"`
	Latest      []version `json:"latest_versions,omitempty"`
}

type aliasOf struct {
	Alias   string `json:"alias"`
	Version string `json:"version"`
}

// logged is a model of MLflow 3.
type logged struct {
	ID         string  `json:"model_id"`
	Experiment string  `json:"experiment_id"`
	Name       string  `json:"name"`
	Created    integer `json:"creation_timestamp_ms"`
	Updated    integer `json:"last_updated_timestamp_ms"`
	Artifacts  string  `json:"artifact_uri"`
	Status     string  `json:"status"`
	Type       string  `json:"model_type,omitempty"`
	Run        string  `json:"source_run_id,omitempty"`
	Tags       []pair  `json:"tags,omitempty"`

	params  []pair
	metrics []json.RawMessage
}

// setPair sets a key in a list of pairs.
func setPair(list []pair, p pair) []pair {
	for i := range list {
		if list[i].Key == p.Key {
			list[i].Value = p.Value
			return list
		}
	}
	return append(list, p)
}
