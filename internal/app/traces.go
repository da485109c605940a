package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// traceID is the form of a W3C trace id.
var traceID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// answerTrace shows the spans that this process keeps of a trace, the earliest
// first: what a Kedge without a collector can say by itself. Spans are of the
// process's own namespace; nobody else reads them.
func (a *App) answerTrace(_ context.Context, r query.Request) ([]query.Frame, error) {
	for k := range r.Filter {
		if k != "trace_id" {
			return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "kind trace does not filter by %q: it takes trace_id", k)
		}
	}
	id := r.Filter["trace_id"]
	if id == "" {
		f := spansFrame(nil, id)
		f.Notices = []query.Notice{{Severity: "info", Text: "No trace is named: follow the link of a trace_id, or enter one."}}
		return []query.Frame{f}, nil
	}
	if !traceID.MatchString(id) {
		return nil, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "trace %q: want 32 hexadecimal digits in lower case", id)
	}
	var spans []telemetry.Span
	if r.Namespace == a.cfg.Namespace {
		spans = a.tel.Trace(id)
	}
	if len(spans) == 0 {
		return nil, web.Errorf(http.StatusNotFound, web.CodeNotFound, "this process keeps no span of trace %s: it shows the newest of the share %g that is sampled (telemetry.sample_ratio), and those that a caller sampled, until it restarts; older ones are where telemetry.otlp sends them, which the data source's Trace link leads to", id, a.cfg.Telemetry.SampleRatio)
	}
	slices.SortStableFunc(spans, func(a, b telemetry.Span) int { // of two that began together the whole before its part
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(b.Duration, a.Duration))
	})
	return []query.Frame{spansFrame(spans, id)}, nil
}

func spansFrame(spans []telemetry.Span, trace string) query.Frame {
	n := len(spans)
	ids, own, parents, names, rooms, failed := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	starts, took, attributes := make([]time.Time, n), make([]float64, n), make([]json.RawMessage, n)
	for i, s := range spans {
		ids[i], own[i], parents[i], names[i], rooms[i], failed[i] = trace, s.ID, s.Parent, s.Name, s.Room, s.Failed
		starts[i], took[i], attributes[i] = s.Start.UTC(), float64(s.Duration)/float64(time.Millisecond), attributesJSON(s.Attributes)
	}
	text := func(name string, v []string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: v}
	}
	return query.Frame{Name: "trace", Type: query.Spans, Columns: []query.Column{
		text("trace_id", ids), text("span_id", own), text("parent_id", parents), text("name", names), text("room", rooms),
		{Name: "start", Type: query.Time, Values: starts}, {Name: "duration", Type: query.Float, Unit: "ms", Values: took},
		text("failed", failed), {Name: "attributes", Type: query.RawJSON, Values: attributes},
	}}
}

func attributesJSON(list []attribute.KeyValue) json.RawMessage {
	out := map[string]any{}
	for _, kv := range list {
		out[string(kv.Key)] = kv.Value.AsInterface()
	}
	b, err := json.Marshal(out)
	if err != nil { // a number that is none
		return json.RawMessage(fmt.Sprintf(`{"error":%q}`, err))
	}
	return b
}
