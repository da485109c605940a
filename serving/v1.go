package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/stream"
)

// v1 gives a handler the error form of Kedge's own routes.
func (h *handler) v1(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		var known *web.Error
		if !errors.As(err, &known) {
			status, text := refusal(err)
			known = web.Errorf(status, codeOf(status), "%s", text)
		}
		if known.Status >= http.StatusInternalServerError {
			h.s.log.ErrorContext(r.Context(), "prediction failed", telemetry.LogError, err, "path", r.URL.Path)
		}
		retryAfter(w, known.Status)
		e := *known
		e.TraceID = telemetry.TraceID(r.Context())
		web.WriteError(w, &e)
	})
}

func codeOf(status int) string {
	switch status {
	case http.StatusNotFound:
		return web.CodeNotFound
	case http.StatusBadRequest:
		return web.CodeInvalid
	case http.StatusRequestEntityTooLarge:
		return web.CodeTooLarge
	case http.StatusTooManyRequests:
		return "busy"
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return web.CodeTimeout
	case http.StatusServiceUnavailable:
		return web.CodeUnavailable
	case statusCanceled:
		return web.CodeCanceled
	}
	return web.CodeInternal
}

// predictByKey answers POST /v1/predict/{model}.
func (h *handler) predictByKey(w http.ResponseWriter, r *http.Request) error {
	if err := h.s.tooBusy(r.PathValue("model")); err != nil {
		return err
	}
	sc := h.pool.get()
	defer h.pool.put(sc)
	body, err := h.readEntities(sc, w, r)
	if err != nil {
		h.s.refused(r.PathValue("model"))
		return err
	}
	sc.req.Reset()
	sc.req.ID, sc.req.Timeout = body.ID, body.Timeout
	call := h.call(r, &sc.req)
	call.Version, call.Explain, call.Rows = orElse(body.Version, call.Version), body.Explain, body.Rows
	call.Entity = orElse(body.Entity, orElse(call.Entity, body.Rows[0].KeyText))
	a, err := h.s.predict(r.Context(), sc, call)
	if err != nil {
		return err
	}
	w.Header().Set(variantHeader, a.Variant)
	sc.out = a.appendJSON(sc.out[:0], call.Model, body.Features, h.s.now().UnixMicro(), h.s.hides(r.Context()))
	write(w, http.StatusOK, sc.out)
	return nil
}

func (h *handler) readEntities(sc *scratch, w http.ResponseWriter, r *http.Request) (b entityBody, err error) {
	if sc.body, err = readAll(sc.body[:0], http.MaxBytesReader(w, r.Body, h.s.cfg.MaxBody)); err != nil {
		return b, err
	}
	if sc.entities == nil {
		sc.entities = newEntityReader(h.s.cfg.MaxBody)
	}
	return sc.entities.read(sc.body)
}

func decodeBody(b []byte, v any) error {
	if err := event.DecodeStrict(b, v); err != nil {
		return notTaken(err)
	}
	return nil
}

// hides says what whoever sends a request may not see.
func (s *Server) hides(ctx context.Context) func(string) bool {
	if s.cfg.Hides != nil {
		if hides := s.cfg.Hides(ctx); hides != nil {
			return hides
		}
	}
	return func(string) bool { return false }
}

// hidden reports whether an input, or the column that it is, is hidden.
func hidden(in *model.Input, hides func(string) bool) bool {
	return hides(in.Name) || in.Feature != "" && hides(in.Feature)
}

// appendJSON writes the answer to a request by key. A hidden input is null, and
// its contribution one of the others.
func (a *Answer) appendJSON(dst []byte, name string, withFeatures bool, now int64, hides func(string) bool) []byte {
	dst = oip.AppendString(append(dst, `{"model":`...), name)
	dst = oip.AppendString(append(dst, `,"version":`...), a.Version)
	dst = oip.AppendString(append(dst, `,"variant":`...), a.Variant)
	dst = append(dst, `,"predictions":[`...)
	for row := range a.Rows {
		if row > 0 {
			dst = append(dst, ',')
		}
		dst = oip.AppendString(append(dst, `{"prediction_id":`...), a.rowID(row))
		dst = a.appendOutputs(dst, row)
		if withFeatures {
			dst = a.appendFeatures(dst, row, now, hides)
		}
		if a.why != nil {
			dst = a.why[row].without(a.Model, hides).appendJSON(dst)
		}
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}

func (a *Answer) appendOutputs(dst []byte, row int) []byte {
	at := row * a.Width
	dst = append(dst, `,"outputs":{`...)
	for i, o := range a.Model.Signature.Outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(oip.AppendString(dst, o.Name), ':')
		if o.Width == 1 {
			dst = event.AppendFloat(dst, float64(a.Values[at]))
			at++
			continue
		}
		for k := range o.Width {
			dst = append(dst, "[,"[min(k, 1)])
			dst = event.AppendFloat(dst, float64(a.Values[at+k]))
		}
		dst, at = append(dst, ']'), at+o.Width
	}
	return append(dst, '}')
}

// appendFeatures writes what the model saw: each input's value and, of those
// from a view, where it is from and its age in seconds.
func (a *Answer) appendFeatures(dst []byte, row int, now int64, hides func(string) bool) []byte {
	m := a.Model
	view := make([]int, len(m.Signature.Inputs))
	for v := range m.views {
		for _, i := range m.views[v].inputs {
			view[i] = v + 1
		}
	}
	dst = append(dst, `,"features":{`...)
	for i, in := range m.Signature.Inputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(oip.AppendString(dst, in.Name), `:{"value":`...)
		if hidden(&m.Signature.Inputs[i], hides) {
			dst = append(dst, "null"...)
		} else {
			dst = event.AppendValue(dst, a.fetched.cols[i].Value(row))
		}
		if view[i] > 0 {
			dst = a.fetched.appendOrigin(dst, row, view[i]-1, m.views[view[i]-1].name, orElse(in.Feature, in.Name), now)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

func (got *fetched) appendOrigin(dst []byte, row, view int, name, column string, now int64) []byte {
	dst = oip.AppendString(append(dst, `,"from":`...), name+":"+column)
	at := slices.IndexFunc(got.times[row], func(t event.NamedTime) bool { return t.Name == name })
	if at < 0 {
		return append(dst, `,"status":"NOT_FOUND"`...)
	}
	status := "PRESENT"
	if got.late[row][view] {
		status = "OUTSIDE_MAX_AGE"
	}
	dst = append(dst, `,"status":"`+status+`","event_time":"`...)
	dst = append(event.AppendTime(dst, got.times[row][at].Time), `","age":`...)
	return strconv.AppendFloat(dst, float64(now-got.times[row][at].Time)/1e6, 'f', 3, 64)
}

func (e *explanation) appendJSON(dst []byte) []byte {
	dst = append(dst, `,"contributions":[`...)
	for i, c := range e.top {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = oip.AppendString(append(dst, `{"input":`...), c.Name)
		dst = append(event.AppendFloat(append(dst, `,"value":`...), c.Value), '}')
	}
	dst = event.AppendFloat(append(dst, `],"others":`...), e.rest)
	return event.AppendFloat(append(dst, `,"base":`...), e.base)
}

// outcomeBody is what turned out true of one prediction.
type outcomeBody struct {
	Model        string          `json:"model"`
	PredictionID string          `json:"prediction_id"`
	Label        json.RawMessage `json:"label"`
	EventTime    string          `json:"event_time"`
	Weight       *float64        `json:"weight"`
}

// outcome answers POST /v1/outcome: the label goes to Kafka as any label does,
// and the answer comes when the broker has it.
func (h *handler) outcome(w http.ResponseWriter, r *http.Request) error {
	b, err := readAll(nil, http.MaxBytesReader(w, r.Body, h.s.cfg.MaxBody))
	if err != nil {
		return err
	}
	var in []outcomeBody
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '[' {
		err = decodeBody(b, &in)
	} else {
		in = make([]outcomeBody, 1)
		err = decodeBody(b, &in[0])
	}
	if err != nil {
		return err
	}
	msgs := make([]stream.Message, len(in))
	parent := telemetry.Traceparent(r.Context())
	for i := range in {
		if msgs[i], err = in[i].message(h.s.now(), parent); err != nil {
			return fmt.Errorf("%w: outcome %d: %w", ErrInput, i, err)
		}
	}
	if err := h.s.label(r.Context(), msgs); err != nil {
		return err
	}
	write(w, http.StatusOK, fmt.Appendf(nil, `{"accepted":%d}`, len(msgs)))
	return nil
}

// label sends labels to the stream of the caller's namespace.
func (s *Server) label(ctx context.Context, msgs []stream.Message) error {
	if s.send == nil {
		return fmt.Errorf("outcome: %w: this process sends nothing", ErrRuntime)
	}
	if len(msgs) == 0 {
		return nil
	}
	if ns := auth.From(ctx).Namespace; ns != "" && ns != s.cfg.Namespace {
		if s.cfg.Denied != nil {
			s.cfg.Denied(ctx, "outcome", "labels of namespace "+s.cfg.Namespace)
		}
		return web.Errorf(http.StatusForbidden, "forbidden", "namespace %q: this server labels predictions of %q", ns, s.cfg.Namespace)
	}
	if err := s.send(ctx, "kedge."+s.cfg.Namespace+".labels", msgs...); err != nil {
		return web.Errorf(http.StatusServiceUnavailable, web.CodeUnavailable, "the broker did not take the outcome: send it again: %w", err)
	}
	return nil
}

func (o *outcomeBody) message(now time.Time, parent string) (stream.Message, error) {
	l := event.Label{Model: o.Model, PredictionID: o.PredictionID, EventTime: now.UnixMicro(), Weight: 1}
	if err := errors.Join(event.CheckName(o.Model), checkID(o.PredictionID)); err != nil {
		return stream.Message{}, err
	}
	if o.EventTime != "" {
		at, err := event.ParseTime([]byte(o.EventTime))
		if err != nil {
			return stream.Message{}, fmt.Errorf("event_time: %w", err)
		}
		l.EventTime = at
	}
	if o.Weight != nil && *o.Weight < 0 {
		return stream.Message{}, fmt.Errorf("weight %v: want 0 or more", *o.Weight)
	}
	if o.Weight != nil {
		l.Weight = *o.Weight
	}
	if err := o.truth(&l); err != nil {
		return stream.Message{}, err
	}
	m := stream.Message{Key: []byte(o.PredictionID), Value: event.AppendLabelJSON(nil, l)}
	if parent != "" {
		m.Headers = []stream.Header{{Name: "traceparent", Value: []byte(parent)}}
	}
	return m, nil
}

func checkID(id string) error {
	if id == "" || len(id) > 1000 {
		return errors.New("prediction_id is empty or longer than 1000 bytes: send the one of the answer")
	}
	return nil
}

// truth reads a number, a class, true or false (1 or 0), or null, which
// withdraws an earlier label.
func (o *outcomeBody) truth(l *event.Label) error {
	switch text := string(o.Label); {
	case text == "":
		return errors.New("label is missing; null withdraws an earlier one")
	case text == "null":
	case text == "true", text == "false":
		v := flag(text == "true")
		l.Number = &v
	case text[0] == '"':
		var s string
		if err := json.Unmarshal(o.Label, &s); err != nil {
			return err
		}
		l.Class = &s
	default:
		var v float64
		if err := json.Unmarshal(o.Label, &v); err != nil {
			return fmt.Errorf("label %.40s: want a number, a text, true, false or null", text)
		}
		l.Number = &v
	}
	return nil
}
