package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Error is what a client sees. Code is stable and meant for programs, Message
// for people. Cause is only logged.
type Error struct {
	Status  int      `json:"-"`
	Code    string   `json:"code" doc:"Stable word for programs" example:"unknown_kind"`
	Message string   `json:"message" doc:"What is wrong and what to do about it"`
	Details []Detail `json:"details,omitempty" doc:"Where in the request"`
	TraceID string   `json:"trace_id,omitempty" doc:"Finds the cause in the server's log"`
	Cause   error    `json:"-"`
}

// Detail is one fault of a request.
type Detail struct {
	Location string `json:"location,omitempty" example:"body.from"`
	Message  string `json:"message"`
}

// Codes that more than one room answers with.
const (
	CodeBadRequest  = "bad_request"
	CodeInvalid     = "invalid"
	CodeNotFound    = "not_found"
	CodeOutside     = "outside_table" // a table outside Kedge is not there, not allowed, or of another shape
	CodeConflict    = "conflict"
	CodeTooLarge    = "too_large"
	CodeMediaType   = "unsupported_media_type"
	CodeAccept      = "not_acceptable"
	CodeTimeout     = "timeout"
	CodeUnavailable = "unavailable"
	CodeBusy        = "busy" // what was sent before may still be under way: ask again a little later
	CodeCanceled    = "canceled"
	CodeInternal    = "internal"
)

// Errorf makes an error that a client may read.
func Errorf(status int, code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Status: status, Code: code, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// Error is the message, with the cause for the log.
func (e *Error) Error() string {
	if e.Cause == nil || strings.Contains(e.Message, e.Cause.Error()) {
		return e.Code + ": " + e.Message
	}
	return e.Code + ": " + e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// GetStatus makes the error known to huma.
func (e *Error) GetStatus() int { return e.Status }

// statusCanceled is nginx's word for a client that went away.
const statusCanceled = 499

// From gives any error the form that a client may see. What is not known here
// becomes 500 "internal", and its text stays in the log.
func From(err error) *Error {
	var known *Error
	var tooLarge *http.MaxBytesError
	var model *huma.ErrorModel
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &tooLarge):
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Message: fmt.Sprintf("request body is larger than %d bytes", tooLarge.Limit), Cause: err}
	case errors.As(err, &model):
		return fromModel(model)
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusGatewayTimeout, Code: CodeTimeout, Message: "took longer than the server allows: ask for less", Cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Status: statusCanceled, Code: CodeCanceled, Message: "the request was cancelled", Cause: err}
	}
	return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Message: "internal error: the server's log has the cause", Cause: err}
}

// fromModel turns the framework's own refusals into ours.
func fromModel(m *huma.ErrorModel) *Error {
	e := &Error{Status: m.Status, Code: codeOf(m.Status), Message: m.Detail}
	if e.Message == "" {
		e.Message = http.StatusText(m.Status)
	}
	var said []string
	for _, d := range m.Errors {
		e.Details = append(e.Details, Detail{Location: d.Location, Message: d.Message})
		said = append(said, strings.TrimPrefix(d.Location+": "+d.Message, ": "))
	}
	if len(said) > 0 {
		e.Message += ": " + strings.Join(said, "; ")
	}
	return e
}

func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return CodeBadRequest
	case http.StatusUnprocessableEntity:
		return CodeInvalid
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusConflict:
		return CodeConflict
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeMediaType
	case http.StatusNotAcceptable:
		return CodeAccept
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return CodeTimeout
	case http.StatusServiceUnavailable:
		return CodeUnavailable
	}
	if status < 500 {
		return CodeBadRequest
	}
	return CodeInternal
}

// WriteError answers with the error as JSON.
func WriteError(w http.ResponseWriter, err *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(err.Status)
	_ = json.NewEncoder(w).Encode(err) // the client may have gone; nothing is left to tell it
}
