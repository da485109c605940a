package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/drift/report"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// Report is a kept report: a page as it was when it was made.
type Report struct {
	ID   string `json:"id" doc:"Digest of the page"`
	Path string `json:"path" doc:"Where it stays, for whoever may ask questions in its namespace"`
}

// reportState is under which name a report is stored, among what monitors
// remember; reportPage the part that holds it.
const (
	reportState = "report:"
	reportPage  = "page"
)

// maxReport bounds a kept page.
const maxReport = 16 << 20

// reportRoutes keep reports and show them again.
func (a *App) reportRoutes(api *web.API, kinds map[string]KindFunc) {
	if a.store == nil {
		return
	}
	web.Handle(api, huma.Operation{OperationID: "keep-report", Method: http.MethodPost, Path: "/v1/reports", Summary: "Make a report and keep it", Tags: []string{"drift"},
		Description: "The page is made here, of what the caller may ask, and stays as it is under the address that the answer names."}, webError,
		func(ctx context.Context, in *struct{ Body report.About }) (*struct{ Body Report }, error) {
			r, err := a.keepReport(ctx, kinds, auth.From(ctx), in.Body)
			return &struct{ Body Report }{r}, err
		})
	api.Mux.HandleFunc("GET /v1/reports/{id}", func(w http.ResponseWriter, r *http.Request) {
		page, err := a.keptReport(r.Context(), auth.From(r.Context()), r.PathValue("id"))
		if err != nil {
			web.WriteError(w, web.From(webError(err)))
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'") // whatever stands in it, nothing runs and nothing is fetched
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "private, no-cache")
		_, _ = w.Write([]byte(page)) // the reader may have gone
	})
	api.OpenAPI().AddOperation(&huma.Operation{OperationID: "report", Method: http.MethodGet, Path: "/v1/reports/{id}", Summary: "A kept report", Tags: []string{"drift"},
		Parameters: []*huma.Param{{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Example: "0123456789abcdef0123456789abcdef"}},
		Responses: map[string]*huma.Response{"200": {Description: "The page", Content: map[string]*huma.MediaType{"text/html": {Schema: &huma.Schema{Type: huma.TypeString}}}},
			"default": api.ErrorResponse()}})
}

func (a *App) keepReport(ctx context.Context, kinds map[string]KindFunc, c auth.Caller, about report.About) (Report, error) {
	if err := about.Validate(); err != nil {
		return Report{}, web.Errorf(http.StatusBadRequest, web.CodeInvalid, "%w", err)
	}
	veil := a.strictVeil(c.Namespace) // whoever may ask questions reads the page
	d, err := report.Gather(ctx, about, func(ctx context.Context, r query.Request) ([]query.Frame, error) {
		return a.answerVeiled(ctx, kinds, c, veil, r)
	})
	if errors.Is(err, report.ErrUnwatched) {
		return Report{}, web.Errorf(http.StatusNotFound, web.CodeNotFound, "%w", err)
	}
	if err != nil {
		return Report{}, err
	}
	var page bytes.Buffer
	if err := report.Write(&page, *d); err != nil {
		return Report{}, err
	}
	if page.Len() > maxReport {
		return Report{}, web.Errorf(http.StatusRequestEntityTooLarge, web.CodeInvalid, "the page has %d bytes, at most %d are kept: ask for a shorter range", page.Len(), maxReport)
	}
	sum := sha256.Sum256(page.Bytes())
	id := hex.EncodeToString(sum[:16])
	if err := a.store.SaveMonitorState(ctx, c.Namespace, reportState+id, map[string]string{reportPage: page.String()}, uint64(time.Now().UnixMicro())); err != nil {
		return Report{}, err
	}
	return Report{ID: id, Path: "/v1/reports/" + id}, nil
}

var reportID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// keptReport reads a page of the caller's namespace.
func (a *App) keptReport(ctx context.Context, c auth.Caller, id string) (string, error) {
	unknown := web.Errorf(http.StatusNotFound, web.CodeNotFound, "no report %.64q in namespace %s: kedge report --keep makes one", id, c.Namespace)
	if !reportID.MatchString(id) {
		return "", unknown
	}
	parts, err := a.store.MonitorState(ctx, c.Namespace, reportState+id)
	if err != nil {
		return "", fmt.Errorf("report %s: %w", id, err)
	}
	if parts[reportPage] == "" {
		return "", unknown
	}
	return parts[reportPage], nil
}
