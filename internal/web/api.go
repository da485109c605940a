package web

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// API is a mux whose typed routes describe themselves at /openapi.json.
type API struct {
	Mux  *http.ServeMux
	huma huma.API
	sc   telemetry.Scope
}

// NewAPI returns an API without routes.
func NewAPI(title, version string, sc telemetry.Scope) *API {
	a := &API{Mux: http.NewServeMux(), sc: sc}
	cfg := huma.DefaultConfig(title, version)
	cfg.CreateHooks = nil // no $schema members in answers
	cfg.DocsPath = ""     // its pages load scripts from elsewhere
	cfg.SchemasPath = ""
	cfg.Transformers = []huma.Transformer{a.shapeError}
	a.huma = humago.New(a.Mux, cfg)
	return a
}

// OpenAPI is the document, for additions.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// Handle registers a typed operation. The handler's errors are answered in the
// form of [Error]; mapErr, which may be nil, gives a room's own errors theirs.
func Handle[I, O any](a *API, op huma.Operation, mapErr func(error) error, handler func(context.Context, *I) (*O, error)) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = a.ErrorResponse()
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err == nil {
			return out, nil
		}
		if mapErr != nil {
			err = mapErr(err)
		}
		return nil, a.refuse(ctx, err)
	})
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} { // the framework's form, never sent
		delete(a.huma.OpenAPI().Components.Schemas.Map(), unused)
	}
}

// ErrorResponse describes [Error] to readers of the OpenAPI document.
func (a *API) ErrorResponse() *huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Error](), true, "Error")
	return &huma.Response{
		Description: "Refused, or failed",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}
}

// refuse logs what the client may not see, and marks the answer with the trace.
func (a *API) refuse(ctx context.Context, err error) *Error {
	e := *From(err)
	e.TraceID = telemetry.TraceID(ctx)
	if e.Status >= http.StatusInternalServerError {
		a.sc.Log.ErrorContext(ctx, "request failed", telemetry.LogError, err, "code", e.Code)
	}
	return &e
}

// shapeError gives the framework's own refusals the form of [Error].
func (a *API) shapeError(ctx huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	ctx.SetHeader("Content-Type", "application/json")
	return a.refuse(ctx.Context(), model), nil
}
