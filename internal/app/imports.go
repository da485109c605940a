package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
)

// ImportRequest begins an import, or finds where it stands.
type ImportRequest struct {
	ID   string `json:"id" doc:"SHA-256, in hexadecimal, of whatever decides the import's events: the same id is the same import"`
	File string `json:"file,omitempty" doc:"What people call it"`
}

// ImportState and ImportResult are what imports answer.
type (
	ImportState  = ingest.ImportState
	ImportResult = ingest.ImportResult
)

// importRoutes take history that never was in Kafka.
func (a *App) importRoutes(api *web.API) {
	if a.consumer == nil {
		return
	}
	door := &importDoor{importer: a.consumer.Importer(), log: a.tel.Scope("ingest").Log, maxLine: int(a.cfg.Ingest.MaxRecord), maxBody: int64(a.cfg.Ingest.MaxBytes)}
	web.Handle(api, huma.Operation{OperationID: "begin-import", Method: http.MethodPost, Path: "/v1/imports", Summary: "Begin an import of history, or find where it stands", Tags: []string{"events"},
		Description: "An import goes straight to the store, in an epoch of its own, in units that are sent one after the other. One that is begun again goes on where it stood."}, importError,
		func(ctx context.Context, in *struct{ Body ImportRequest }) (*struct{ Body ingest.ImportState }, error) {
			c := auth.From(ctx)
			s, err := door.importer.Begin(ctx, c.Namespace, in.Body.ID, in.Body.File, c.Subject)
			return &struct{ Body ingest.ImportState }{s}, err
		})
	api.Mux.Handle("POST /v1/imports/{id}/events", door)
	door.document(api)
}

// importDoor takes the events of imports. It reads its body as a stream, which
// the typed handlers do not.
type importDoor struct {
	importer *ingest.Importer
	log      *slog.Logger
	maxLine  int
	maxBody  int64
}

func (d *importDoor) document(api *web.API) {
	doc := api.OpenAPI()
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[ingest.ImportResult](), true, "ImportResult")
	doc.AddOperation(&huma.Operation{
		OperationID: "import-events", Method: http.MethodPost, Path: "/v1/imports/{id}/events", Summary: "Store the next events of an import", Tags: []string{"events"},
		Description: "Each line is one envelope. The request is one unit: after an error nothing of it counts as stored, and the import is to be begun again, which says from where.",
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "from", In: "query", Required: true, Description: "The number of the first event: how many are stored", Schema: &huma.Schema{Type: huma.TypeInteger}},
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-ndjson": {Schema: &huma.Schema{Type: huma.TypeString}}}},
		Responses: map[string]*huma.Response{
			"200":     {Description: "All lines are accounted for", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}},
			"default": api.ErrorResponse(),
		},
	})
}

func (d *importDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := d.take(r)
	if err != nil {
		e := *web.From(importError(err))
		d.log.WarnContext(r.Context(), "events of an import were not stored", telemetry.LogError, err)
		e.TraceID = telemetry.TraceID(r.Context())
		web.WriteError(w, &e)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client may have gone
}

func (d *importDoor) take(r *http.Request) (ingest.ImportResult, error) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil || from < 0 {
		return ingest.ImportResult{}, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "from: %.40q: want the number of the first event", r.URL.Query().Get("from"))
	}
	lines, err := readLines(&capped{r: r.Body, left: d.maxBody, limit: d.maxBody}, d.maxLine)
	if err != nil {
		return ingest.ImportResult{}, err
	}
	return d.importer.Add(r.Context(), auth.From(r.Context()).Namespace, r.PathValue("id"), from, lines)
}

// readLines reads a whole body of JSON lines; empty ones are none.
func readLines(body io.Reader, maxLine int) ([][]byte, error) {
	var out [][]byte
	in := bufio.NewReaderSize(body, 64<<10)
	for n := 1; ; n++ {
		line, tooLong, err := readLine(in, maxLine)
		if tooLong {
			return nil, web.Errorf(http.StatusRequestEntityTooLarge, web.CodeTooLarge, "line %d is longer than %d bytes", n, maxLine)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, bodyError(n, err)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, line)
		}
		if err != nil {
			return out, nil
		}
	}
}

func importError(err error) error {
	var known *web.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, ingest.ErrImportInvalid):
		return web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	case errors.Is(err, ingest.ErrQuota):
		return web.Errorf(http.StatusTooManyRequests, web.CodeUnavailable, "%w", err)
	case errors.Is(err, ingest.ErrImportBusy):
		return web.Errorf(http.StatusServiceUnavailable, web.CodeBusy, "%w", err)
	case errors.Is(err, ingest.ErrImportPosition):
		return web.Errorf(http.StatusConflict, web.CodeConflict, "%w", err)
	}
	if mapped := webError(err); mapped != err {
		return mapped
	}
	return &web.Error{Status: http.StatusServiceUnavailable, Code: web.CodeUnavailable, Message: "the events were not stored: begin the import again, which says from where", Cause: err}
}
