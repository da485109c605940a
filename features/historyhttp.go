package features

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
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
//
// The answer is streamed; what the join counted follows in the trailer
// Kedge-Report. An answer that breaks off midway ends without its last chunk.
type HistoryHandler struct {
	History *History
	Spool   string // folder for Parquet bodies; empty: the system's
	MaxBody int64  // bytes; 0: no bound
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
	case errors.As(err, &api):
		return web.Errorf(api.status, web.CodeBadRequest, "%s", api.message)
	case r.Context().Err() != nil:
		return web.Errorf(499, web.CodeCanceled, "the client went away")
	}
	h.Scope.Log.ErrorContext(r.Context(), "historical features failed", telemetry.LogError, err)
	return web.Errorf(http.StatusInternalServerError, web.CodeInternal, "the join failed; the server's log has the cause")
}

func (h *HistoryHandler) answer(w http.ResponseWriter, r *http.Request) (started bool, err error) {
	from, ok := FormatOf(r.Header.Get("Content-Type"))
	if !ok {
		return false, badRequest("Content-Type %q: want text/csv, application/vnd.apache.parquet or application/vnd.apache.arrow.stream", r.Header.Get("Content-Type"))
	}
	to := from
	if accept := r.Header.Get("Accept"); accept != "" && !strings.Contains(accept, "*/*") {
		if to, ok = FormatOf(accept); !ok {
			return false, badRequest("Accept %q: want text/csv, application/vnd.apache.parquet or application/vnd.apache.arrow.stream", accept)
		}
	}
	req, err := historyRequest(r.URL.Query())
	if err != nil {
		return false, err
	}
	req.Namespace = auth.From(r.Context()).Namespace
	body := r.Body
	if h.MaxBody > 0 {
		body = http.MaxBytesReader(w, body, h.MaxBody)
	}
	in, err := OpenFrame(r.Context(), from, body, h.Spool)
	if err != nil {
		return false, err
	}
	defer in.Close()
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
	report, err := h.History.Join(r.Context(), req, in, out)
	if err != nil {
		w.Header().Del("Trailer")
		return answer.started, err
	}
	text, err := json.Marshal(report)
	w.Header().Set(ReportTrailer, string(text))
	return true, err
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
	req := HistoryRequest{Service: q.Get("feature_service"), TimeColumn: q.Get("time_column")}
	for name, values := range q {
		switch name {
		case "features":
			for _, v := range values {
				req.Features = append(req.Features, strings.Split(v, ",")...)
			}
		case "feature_service", "time_column":
		case "full_feature_names":
			on, ok := flagValue(&node{kind: kindString, text: values[0]})
			if !ok {
				return req, badRequest("full_feature_names=%s: want true or false", values[0])
			}
			req.FullNames = on
		case "known_at":
			if values[0] != "ignore" && values[0] != "respect" {
				return req, badRequest("known_at=%s: want respect (the default) or ignore", values[0])
			}
			req.IgnoreKnownAt = values[0] == "ignore"
		default:
			return req, badRequest("unknown parameter %q: want features, feature_service, full_feature_names, time_column, known_at", name)
		}
	}
	return req, nil
}
