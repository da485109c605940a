package plugin

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/kedge-ml/kedge/query"
)

// dataPlane is the version of Grafana's data plane contract that our frame
// types follow; without a version that is not zero, alerting guesses by shape.
var dataPlane = data.FrameTypeVersion{0, 1}

// exemplarFrame is the name by which Grafana's panels know exemplars.
const exemplarFrame = "exemplar"

// toGrafana turns one of Kedge's frames into Grafana's.
func toGrafana(f *query.Frame, to leads) (*data.Frame, error) {
	out := data.NewFrame(f.Name)
	out.Meta = &data.FrameMeta{Type: data.FrameType(f.Type), TypeVersion: dataPlane}
	switch {
	case f.Type == query.NodeGraph: // not a type of the data plane
		out.Meta.Type, out.Meta.PreferredVisualization = data.FrameTypeTable, data.VisTypeNodeGraph
	case f.Type == query.Spans:
		out.Meta.Type, out.Meta.PreferredVisualization = data.FrameTypeTable, data.VisTypeTrace
	case f.Type == query.LogLines:
		out.Meta.PreferredVisualization = data.VisTypeLogs
	case f.Name == exemplarFrame:
		out.Meta.DataTopic = data.DataTopicAnnotations
	}
	for _, n := range f.Notices {
		out.Meta.Notices = append(out.Meta.Notices, data.Notice{Severity: severity(n.Severity), Text: n.Text})
	}
	if f.Type == query.Spans {
		return spansToGrafana(f, out)
	}
	for i := range f.Columns {
		c := &f.Columns[i]
		values, err := fieldValues(c)
		if err != nil {
			return nil, fmt.Errorf("frame %q: %w", f.Name, err)
		}
		field := data.NewField(c.Name, c.Labels, values)
		field.Config = fieldConfig(c, f.Type, to)
		out.Fields = append(out.Fields, field)
	}
	if _, err := out.RowLen(); err != nil { // in the protocol's hands it would fail every query of the request
		return nil, fmt.Errorf("frame %q: %w", f.Name, err)
	}
	return out, nil
}

func severity(s string) data.NoticeSeverity {
	switch s {
	case "error":
		return data.NoticeSeverityError
	case "warning":
		return data.NoticeSeverityWarning
	}
	return data.NoticeSeverityInfo
}

// fieldValues returns the values in a type that Grafana's fields take; an
// empty column still has its type.
func fieldValues(c *query.Column) (any, error) {
	if c.Values != nil {
		switch v := c.Values.(type) {
		case []json.RawMessage, []time.Time, []*time.Time, []float64, []*float64, []int64, []*int64,
			[]uint64, []*uint64, []string, []*string, []bool, []*bool:
			return v, nil
		}
		return nil, fmt.Errorf("column %q holds %T, which no field takes", c.Name, c.Values)
	}
	switch c.Type {
	case query.Time:
		return []time.Time{}, nil
	case query.Float:
		return []float64{}, nil
	case query.Int:
		return []int64{}, nil
	case query.Uint:
		return []uint64{}, nil
	case query.Bool:
		return []bool{}, nil
	case query.RawJSON:
		return []json.RawMessage{}, nil
	}
	return []string{}, nil
}
