package web

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// Mux is an http.ServeMux that wraps every route that is registered and
// remembers its pattern, so that no route is without what guards it.
type Mux struct {
	mux      http.ServeMux
	guard    func(pattern string, next http.Handler) http.Handler
	patterns []string
}

// NewMux returns a mux without routes. guard is called once for every route
// that is registered and returns what answers it.
func NewMux(guard func(pattern string, next http.Handler) http.Handler) *Mux {
	return &Mux{guard: guard}
}

// Handle registers a route.
func (m *Mux) Handle(pattern string, h http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.mux.Handle(pattern, m.guard(pattern, h))
}

// HandleFunc registers a route.
func (m *Mux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// ServeHTTP answers with the route that matches.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

// Patterns are the routes registered so far.
func (m *Mux) Patterns() []string { return slices.Clone(m.patterns) }

// API is a mux whose typed routes describe themselves at /openapi.json.
type API struct {
	Mux  *Mux
	huma huma.API
	sc   telemetry.Scope
}

// NewAPI returns an API without routes of its own on a mux.
func NewAPI(title, version string, sc telemetry.Scope, mux *Mux) *API {
	a := &API{Mux: mux, sc: sc}
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
