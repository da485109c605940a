package features

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/store"
)

// HistoryPath is where [HistoryHandler] is mounted.
const HistoryPath = "/v1/historical-features"

// ReportTrailer names the HTTP trailer that holds the [HistoryReport] as JSON.
const ReportTrailer = "Kedge-Report"

// HistoryHandler answers POST /v1/historical-features. The body is an entity
// frame, its Content-Type text/csv, application/vnd.apache.parquet or
// application/vnd.apache.arrow.stream; Accept chooses the answer's format, by
// default the body's. The query says what is asked for:
//
//	features=view:feature (repeated, or separated by commas) | feature_service=NAME
//	full_feature_names=true   view__feature instead of feature
//	time_column=NAME          default event_timestamp
//	known_at=ignore           join on event_time alone, as Feast does
//	from_predictions=MODEL    no body: the entity frame is the model's predictions
//	with_labels=true          of those, the labelled ones, with label and weight
//	from=TIME  to=TIME        of those, from ≤ event_time < to
//	all_entities=true         no body: every key that the views have rows of,
//	at=TIME                   at each of these times (repeated); default now
//
// The answer is streamed; what the join counted follows in the trailer
// Kedge-Report. An answer that breaks off midway ends without its last chunk.
type HistoryHandler struct {
	History *History
	Spool   string                                   // folder for Parquet bodies; empty: the system's
	MaxBody int64                                    // bytes; 0: no bound
	Hides   func(context.Context, auth.Caller) Hides // what a caller may not see; nil: nothing
	Scope   telemetry.Scope
}

// ServeHTTP answers one request.
func (h *HistoryHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		web.WriteError(w, web.Errorf(http.StatusMethodNotAllowed, web.CodeBadRequest, "%s takes POST", HistoryPath))
		return
	}
	started, err := h.answer(w, r)
	switch {
	case err == nil:
	case started:
		h.Scope.Log.WarnContext(r.Context(), "historical features broke off", telemetry.LogError, err)
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	default:
		web.WriteError(w, h.webError(r, err))
	}
}

// webError maps the room's errors to those of the API.
func (h *HistoryHandler) webError(r *http.Request, err error) *web.Error {
	var api *apiError
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return web.Errorf(http.StatusRequestEntityTooLarge, web.CodeTooLarge, "the entity frame is larger than %d bytes: send it in parts", big.Limit)
	case errors.As(err, &api) && api.status == http.StatusNotFound:
		return web.Errorf(api.status, web.CodeNotFound, "%s", api.message)
	case errors.As(err, &api) && api.status == http.StatusForbidden:
		return web.Errorf(api.status, auth.CodeForbidden, "%s", api.message)
	case errors.As(err, &api):
		return web.Errorf(api.status, web.CodeBadRequest, "%s", api.message)
	case errors.Is(err, store.ErrOutside):
		return web.Errorf(http.StatusConflict, web.CodeOutside, "%w", err)
	case r.Context().Err() != nil:
		return web.Errorf(499, web.CodeCanceled, "the client went away")
	}
	h.Scope.Log.ErrorContext(r.Context(), "historical features failed", telemetry.LogError, err)
	return web.Errorf(http.StatusInternalServerError, web.CodeInternal, "the join failed; the server's log has the cause")
}

func (h *HistoryHandler) answer(w http.ResponseWriter, r *http.Request) (started bool, err error) {
	req, err := historyRequest(r.URL.Query())
	if err != nil {
		return false, err
	}
	c := auth.From(r.Context())
	if req.Namespace = c.Namespace; h.Hides != nil {
		req.Hides = h.Hides(r.Context(), c)
	}
	stored := req.FromPredictions != "" || req.AllEntities
	from, to, err := formatsOf(r, stored)
	if err != nil {
		return false, err
	}
	join := h.History.JoinStored
	if !stored {
		in, err := h.openBody(r, w, from)
		if err != nil {
			return false, err
		}
		defer in.Close()
		join = func(ctx context.Context, req HistoryRequest, out FrameWriter) (*HistoryReport, error) {
			return h.History.Join(ctx, req, in, out)
		}
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false, err
	}
	w.Header().Set("Content-Type", to.MediaType())
	w.Header().Set("Trailer", ReportTrailer)
	answer := &startedWriter{w: w}
	out, err := CreateFrame(to, answer)
	if err != nil {
		return false, err
	}
	report, err := join(r.Context(), req, out)
	if err != nil {
		w.Header().Del("Trailer")
		return answer.started, err
	}
	text, err := json.Marshal(report)
	w.Header().Set(ReportTrailer, string(text))
	return true, err
}

func (h *HistoryHandler) openBody(r *http.Request, w http.ResponseWriter, f Format) (*FileFrame, error) {
	body := r.Body
	if h.MaxBody > 0 {
		body = http.MaxBytesReader(w, body, h.MaxBody)
	}
	return OpenFrame(r.Context(), f, body, h.Spool)
}

// formatsOf are the body's format and the answer's.
func formatsOf(r *http.Request, stored bool) (from, to Format, err error) {
	from, ok := FormatOf(r.Header.Get("Content-Type"))
	if stored {
		from, ok = CSV, true
	}
	if !ok {
		return "", "", badRequest("Content-Type %q: want text/csv, application/vnd.apache.parquet or application/vnd.apache.arrow.stream", r.Header.Get("Content-Type"))
	}
	to = from
	if accept := r.Header.Get("Accept"); accept != "" && !strings.Contains(accept, "*/*") {
		if to, ok = FormatOf(accept); !ok {
			return "", "", badRequest("Accept %q: want text/csv, application/vnd.apache.parquet or application/vnd.apache.arrow.stream", accept)
		}
	}
	return from, to, nil
}

// startedWriter remembers whether the client was told anything.
type startedWriter struct {
	w       http.ResponseWriter
	started bool
}

func (s *startedWriter) Write(b []byte) (int, error) {
	s.started = true
	return s.w.Write(b)
}

func historyRequest(q url.Values) (HistoryRequest, error) {
	req := HistoryRequest{Service: q.Get("feature_service"), TimeColumn: q.Get("time_column"), FromPredictions: q.Get("from_predictions")}
	flags := map[string]*bool{"full_feature_names": &req.FullNames, "with_labels": &req.WithLabels, "all_entities": &req.AllEntities}
	for name, values := range q {
		var err error
		switch name {
		case "features":
			for _, v := range values {
				req.Features = append(req.Features, strings.Split(v, ",")...)
			}
		case "feature_service", "time_column", "from_predictions":
		case "full_feature_names", "with_labels", "all_entities":
			on, ok := flagValue(&node{kind: kindString, text: values[0]})
			if !ok {
				return req, badRequest("%s=%s: want true or false", name, values[0])
			}
			*flags[name] = on
		case "from":
			req.From, err = looseTime(values[0])
		case "to":
			req.To, err = looseTime(values[0])
		case "at":
			req.At, err = looseTimes(values)
		case "known_at":
			if values[0] != "ignore" && values[0] != "respect" {
				return req, badRequest("known_at=%s: want respect (the default) or ignore", values[0])
			}
			req.IgnoreKnownAt = values[0] == "ignore"
		default:
			return req, badRequest("unknown parameter %q: want features, feature_service, full_feature_names, time_column, known_at, from_predictions, with_labels, from, to, all_entities, at", name)
		}
		if err != nil {
			return req, err
		}
	}
	return req, checkStored(&req)
}

// checkStored settles what the parameters about stored entities leave open.
func checkStored(req *HistoryRequest) error {
	switch {
	case req.FromPredictions != "" && req.AllEntities:
		return badRequest("from_predictions and all_entities: choose one")
	case req.FromPredictions == "" && (req.WithLabels || req.From != 0 || req.To != 0):
		return badRequest("with_labels, from and to go with from_predictions")
	case !req.AllEntities && req.At != nil:
		return badRequest("at goes with all_entities")
	case req.AllEntities && req.At == nil:
		req.At = []int64{time.Now().UnixMicro()}
	}
	return nil
}

func looseTimes(texts []string) (out []int64, err error) {
	for _, s := range texts {
		t, err := looseTime(s)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}
