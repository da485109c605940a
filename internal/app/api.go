package app

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/app/page"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/proto"
	"github.com/kedge-ml/kedge/query"
)

// api builds everything that HTTP answers once the parts are open.
func (a *App) api() (http.Handler, error) {
	mux, runs := a.newMux()
	a.mux = mux
	api := web.NewAPI("Kedge", a.version, a.tel.Scope("http"), mux)
	kinds := a.kinds()
	a.operationRoutes(api)
	a.queryRoutes(api, kinds)
	a.eventRoutes(api)
	a.importRoutes(api)
	a.deadLetterRoutes(api, kinds)
	a.definitionRoutes(api)
	a.driftRoutes(api)
	a.reportRoutes(api, kinds)
	a.planRoutes(api)
	a.backupRoutes(api)
	a.sourceRoutes(api)
	a.keyRoutes(api)
	a.journalRoutes(api)
	a.mountRooms(api, runs)
	if err := a.pageRoutes(api.Mux, kinds); err != nil {
		return nil, err
	}
	for _, what := range a.undeclared() {
		a.sc.Log.Error("closed to everybody: it declares no permission in internal/app/permissions.go", "route", what)
	}
	return a.guarded(api.Mux)
}

// guarded is what every door has in front of its routes: who calls, and what
// is counted and traced of it.
func (a *App) guarded(h http.Handler) (http.Handler, error) {
	observed, err := web.Observe(a.tel.Scope("http"), h)
	if err != nil {
		return nil, err
	}
	return a.door.Middleware(observed), nil
}

// operationRoutes are those that operators and their tools ask.
func (a *App) operationRoutes(api *web.API) {
	api.Mux.HandleFunc("GET /livez", livez)
	api.Mux.HandleFunc("GET /readyz", a.readyz)
	api.Mux.Handle("GET /metrics", a.tel.Handler())
	web.Handle(api, huma.Operation{OperationID: "status", Method: http.MethodGet, Path: "/v1/status", Summary: "What runs, and how it is doing", Tags: []string{"operation"}}, webError,
		func(ctx context.Context, _ *struct{}) (*struct{ Body Status }, error) {
			return &struct{ Body Status }{a.status(ctx)}, nil
		})
	web.Handle(api, huma.Operation{
		OperationID: "config", Method: http.MethodGet, Path: "/v1/config", Summary: "The effective configuration, secrets hidden", Tags: []string{"operation"},
		Responses: textResponse("The configuration", "application/yaml", "application/json"),
	}, webError, a.showConfig)
	web.Handle(api, huma.Operation{OperationID: "topics", Method: http.MethodGet, Path: "/v1/topics", Summary: "The topics that this installation needs, with settings and least permissions", Tags: []string{"operation"}}, webError,
		func(context.Context, *struct{}) (*struct{ Body TopicList }, error) {
			return &struct{ Body TopicList }{a.cfg.TopicList()}, nil
		})
}

// raw is an answer whose bytes are made here.
type raw struct {
	ContentType string `header:"Content-Type"`
	Length      int    `header:"Content-Length"` // so that a reader makes room once
	Body        []byte
}

func newRaw(media string, body []byte) *raw { return &raw{media, len(body), body} }

func textResponse(description string, types ...string) map[string]*huma.Response {
	content := map[string]*huma.MediaType{}
	for _, t := range types {
		content[t] = &huma.MediaType{}
	}
	return map[string]*huma.Response{"200": {Description: description, Content: content}}
}

func (a *App) showConfig(_ context.Context, in *struct {
	Accept string `header:"Accept"`
}) (*raw, error) {
	text, err := a.settings().YAML()
	if err != nil {
		return nil, err
	}
	if strings.Contains(in.Accept, "application/json") {
		text, err = yaml.YAMLToJSON(text)
		return newRaw("application/json", text), err
	}
	return newRaw("application/yaml", text), nil
}

type queryInput struct {
	Accept string `header:"Accept" doc:"application/json, application/vnd.apache.arrow.stream or text/csv"`
	Body   query.Request
}

func (a *App) queryRoutes(api *web.API, kinds map[string]KindFunc) {
	web.Handle(api, huma.Operation{
		OperationID: "query", Method: http.MethodPost, Path: "/v1/query", Summary: "Ask a question", Tags: []string{"query"},
		Description:  "Answers with frames: equally long columns with names, types and units. Kinds: " + strings.Join(kindNames(kinds), ", ") + ".",
		MaxBodyBytes: int64(a.cfg.HTTP.MaxBody),
		Responses:    textResponse("Frames", web.TypeJSON, web.TypeArrow, web.TypeCSV),
	}, webError, func(ctx context.Context, in *queryInput) (*raw, error) {
		media, err := web.Negotiate(in.Accept)
		if err != nil {
			return nil, err
		}
		frames, err := a.answer(ctx, kinds, auth.From(ctx), in.Body)
		if err != nil {
			return nil, err
		}
		body, err := web.EncodeFrames(media, frames)
		return newRaw(media, body), err
	})
	web.Handle(api, huma.Operation{OperationID: "kinds", Method: http.MethodGet, Path: "/v1/kinds", Summary: "The kinds of questions that this process answers", Tags: []string{"query"}}, nil,
		func(context.Context, *struct{}) (*struct{ Body []query.Kind }, error) {
			out := []query.Kind{}
			for _, k := range query.Kinds() {
				if kinds[k.Name] != nil {
					out = append(out, k)
				}
			}
			return &struct{ Body []query.Kind }{out}, nil
		})
}

// eventRoutes has the door for events. It reads its body as a stream, which
// the typed handlers do not.
func (a *App) eventRoutes(api *web.API) {
	door := &eventsDoor{producer: a.producer, maxLine: int(a.cfg.Ingest.MaxRecord), maxBody: int64(a.cfg.HTTP.MaxEvents), batchSize: 2000}
	api.Mux.Handle("POST /v1/events", door)
	web.Handle(api, huma.Operation{OperationID: "events-proto", Method: http.MethodGet, Path: "/v1/events.proto", Summary: "The envelopes in Protocol Buffers", Tags: []string{"events"}, Responses: textResponse("The .proto", "text/plain")}, webError,
		func(context.Context, *struct{}) (*raw, error) {
			return newRaw("text/plain; charset=utf-8", []byte(proto.Events())), nil
		})
	doc := api.OpenAPI()
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[EventsAnswer](), true, "EventsAnswer")
	answer := func(description string) *huma.Response {
		return &huma.Response{Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	doc.AddOperation(&huma.Operation{
		OperationID: "events", Method: http.MethodPost, Path: "/v1/events", Summary: "Send feature rows, predictions and labels as JSON lines", Tags: []string{"events"},
		Description: "Each line is one envelope, or, as application/x-protobuf, each length-delimited message one kedge.v1.Event of /v1/events.proto. Lines that are events are produced to Kafka and acknowledged once the broker has them; lines that are not are listed by number. The body may be gzip.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/x-ndjson": {Schema: &huma.Schema{Type: huma.TypeString}}, protobufMedia: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}},
		Responses: map[string]*huma.Response{
			"200": answer("Every line is stored in the broker"), "207": answer("Some lines were rejected, the others are stored"),
			"400": answer("Every line was rejected, or the body cannot be read"), "default": api.ErrorResponse(),
		},
	})
}

// pageRoutes has the overview for people.
func (a *App) pageRoutes(mux *web.Mux, kinds map[string]KindFunc) error {
	p, err := page.New()
	if err != nil {
		return err
	}
	var shared overviews
	mux.Handle("GET /assets/", page.Assets())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		c, now := auth.From(r.Context()), time.Now()
		key := fmt.Sprintf("%s/%s/%v/%d", c.Subject, c.Namespace, c.Roles, a.registry.State().Changed(event.ColumnPolicyKind)) // what the caller sees
		html, err := p.Render(shared.get(key, now, func() *page.Data {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Duration(a.cfg.HTTP.QueryTimeout))
			defer cancel() // others wait for this page too
			return a.overview(ctx, kinds, c, now)
		}))
		if err != nil {
			a.sc.Log.ErrorContext(r.Context(), "page", "error", err)
			web.WriteError(w, web.From(err))
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(html) // the reader may have gone
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		web.WriteError(w, web.Errorf(http.StatusNotFound, web.CodeNotFound, "no route %s %s: /openapi.json lists them", r.Method, r.URL.Path))
	})
	return nil
}
