// Package query holds the words that every reader of Kedge speaks: a Request
// names a kind and what it is about, a Frame answers it in columns.
//
// Promises: a Frame says its columns' types, units and the revision of what it
// shows. Units: times are UTC; a Duration is a Go duration string ("15m").
// May not: know SQL, HTTP servers, or any other room.
package query

import (
	"encoding/json"
	"time"
)

// Request asks one question. Kind decides which of the other members are read;
// docs/contracts.md has the table. Unknown members are refused.
type Request struct {
	Kind      string            `json:"kind"`
	Namespace string            `json:"namespace,omitempty"` // default: the caller's own
	View      string            `json:"view,omitempty"`
	Model     string            `json:"model,omitempty"`
	Version   string            `json:"version,omitempty"`
	Columns   []string          `json:"columns,omitempty"`
	Segment   map[string]string `json:"segment,omitempty"`
	Detector  string            `json:"detector,omitempty"`
	GroupBy   []string          `json:"group_by,omitempty"`
	Filter    map[string]string `json:"filter,omitempty"`
	From      time.Time         `json:"from,omitzero"`
	To        time.Time         `json:"to,omitzero"`
	Step      Duration          `json:"step,omitzero"`
	Limit     int               `json:"limit,omitempty"`
	MaxPoints int               `json:"max_points,omitempty"` // per series; the answer says when it was thinned
	Params    json.RawMessage   `json:"params,omitempty"`     // kind-specific rest
}

// Duration is a time.Duration written as "90s" in JSON.
type Duration time.Duration

// MarshalText writes "1m30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "1m30s".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// FrameType says how a Frame is meant to be read; the names are those of the
// Grafana data plane.
type FrameType string

// Frame types.
const (
	Table           FrameType = "table"
	TimeSeriesLong  FrameType = "timeseries-long"
	TimeSeriesMulti FrameType = "timeseries-multi"
	TimeSeriesWide  FrameType = "timeseries-wide"
	NumericLong     FrameType = "numeric-long"
	HeatmapRows     FrameType = "heatmap-rows"
	LogLines        FrameType = "log-lines"
	NodeGraph       FrameType = "node-graph"
	Spans           FrameType = "spans"
)

// Frame is one answer: equally long columns and what they mean.
type Frame struct {
	Name     string    `json:"name"`
	Type     FrameType `json:"type"`
	Revision uint64    `json:"revision,omitempty"`
	Notices  []Notice  `json:"notices,omitempty"`
	Columns  []Column  `json:"columns"`
}

// Notice is a remark that a reader must see beside the data.
type Notice struct {
	Severity string `json:"severity"` // info, warning, error
	Text     string `json:"text"`
}

// ColumnType names the Go type behind Column.Values.
type ColumnType string

// Column types. A nullable column of type T holds []*T.
const (
	Time    ColumnType = "time"  // []time.Time
	Float   ColumnType = "float" // []float64
	Int     ColumnType = "int"   // []int64
	Uint    ColumnType = "uint"  // []uint64
	Text    ColumnType = "text"  // []string
	Bool    ColumnType = "bool"  // []bool
	RawJSON ColumnType = "json"  // []json.RawMessage
)

// Column is one column of a Frame.
type Column struct {
	Name       string            `json:"name"`
	Type       ColumnType        `json:"type"`
	Nullable   bool              `json:"nullable,omitempty"`
	Unit       string            `json:"unit,omitempty"` // Grafana unit id: "s", "rowsps", "percentunit", …
	Display    string            `json:"display,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Thresholds []Threshold       `json:"thresholds,omitempty"`
	Values     any               `json:"values"`
}

// Threshold marks where a value becomes noteworthy.
type Threshold struct {
	Value float64 `json:"value"`
	State string  `json:"state"` // ok, warning, critical
}

// Rows is the number of rows of the frame.
func (f *Frame) Rows() int {
	if len(f.Columns) == 0 {
		return 0
	}
	return f.Columns[0].Len()
}

// Len is the number of values of the column.
func (c *Column) Len() int {
	switch v := c.Values.(type) {
	case []time.Time:
		return len(v)
	case []*time.Time:
		return len(v)
	case []float64:
		return len(v)
	case []*float64:
		return len(v)
	case []int64:
		return len(v)
	case []*int64:
		return len(v)
	case []uint64:
		return len(v)
	case []*uint64:
		return len(v)
	case []string:
		return len(v)
	case []*string:
		return len(v)
	case []bool:
		return len(v)
	case []*bool:
		return len(v)
	case []json.RawMessage:
		return len(v)
	}
	return 0
}
