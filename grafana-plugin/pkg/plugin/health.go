package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/kedge-ml/kedge/query"
)

var negativeInfinity = math.Inf(-1)

// CheckHealth runs real queries: a probe of an address alone passes while the
// query path is broken, and the catalogue alone while the store is.
func (d *Datasource) CheckHealth(ctx context.Context, req *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := d.caller(req.GetHTTPHeader(forwardedIdentity))
	now := time.Now().UTC()
	subjects := 0
	for _, ask := range []query.Request{
		{Kind: "catalog", Namespace: d.options.Namespace, From: now.Add(-time.Hour), To: now},
		{Kind: "throughput", Namespace: d.options.Namespace, From: now.Add(-time.Minute), To: now},
	} {
		a, err := c.Do(ctx, ask)
		if err != nil {
			return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: explain(d.client.Server, err)}, nil
		}
		if ask.Kind == "catalog" && len(a.Frames) > 0 {
			subjects = a.Frames[0].Rows()
		}
	}
	return &backend.CheckHealthResult{
		Status:  backend.HealthStatusOk,
		Message: fmt.Sprintf("Kedge answers and knows %d models and views.", subjects),
	}, nil
}

func explain(server string, err error) string {
	var refused *query.Error
	switch {
	case errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden):
		return "Kedge refused the key: " + refused.Message
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return server + " answers, but not as a Kedge: check the URL."
	case errors.As(err, &refused) && refused.Code == "unknown_kind":
		return "This Kedge has no store to ask: point the data source at a process with the role query."
	case errors.Is(err, context.DeadlineExceeded):
		return "Kedge at " + server + " did not answer within 10 s."
	case refused == nil:
		return "Cannot reach Kedge at " + server + ": " + err.Error()
	}
	return "Kedge answered with an error: " + refused.Message
}

// CallResource serves the editor: kinds is the table of question kinds,
// catalog answers frames of the catalogue, never the result of a scan.
func (d *Datasource) CallResource(ctx context.Context, req *backend.CallResourceRequest, sender backend.CallResourceResponseSender) error {
	status, body := d.resource(ctx, req)
	return sender.Send(&backend.CallResourceResponse{
		Status:  status,
		Headers: map[string][]string{"Content-Type": {"application/json"}},
		Body:    body,
	})
}

func (d *Datasource) resource(ctx context.Context, req *backend.CallResourceRequest) (int, []byte) {
	switch strings.Trim(req.Path, "/") {
	case "kinds":
		return d.kinds(ctx, req)
	case "catalog":
		return d.catalog(ctx, req)
	}
	return http.StatusNotFound, message("unknown resource " + req.Path + ": this data source has kinds and catalog")
}

// kinds are those that the server answers; a server that cannot be asked leaves
// the editor with those that this build knows.
func (d *Datasource) kinds(ctx context.Context, req *backend.CallResourceRequest) (int, []byte) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	kinds, err := servedKinds(ctx, d.caller(req.GetHTTPHeader(forwardedIdentity)))
	if err != nil {
		kinds = query.Kinds()
	}
	body, err := json.Marshal(kinds)
	if err != nil {
		return http.StatusInternalServerError, message("write the kinds: " + err.Error())
	}
	return http.StatusOK, body
}

func (d *Datasource) catalog(ctx context.Context, req *backend.CallResourceRequest) (int, []byte) {
	ask := query.Request{Kind: "catalog"}
	if len(req.Body) > 0 {
		if err := json.Unmarshal(req.Body, &ask); err != nil {
			return http.StatusBadRequest, message("read the catalogue request: " + err.Error())
		}
		ask.Kind = "catalog"
	}
	if ask.Namespace == "" {
		ask.Namespace = d.options.Namespace
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	a, err := d.caller(req.GetHTTPHeader(forwardedIdentity)).Do(ctx, ask)
	var refused *query.Error
	switch {
	case errors.As(err, &refused):
		return refused.Status, message(refused.Message)
	case err != nil:
		return http.StatusBadGateway, message(explain(d.client.Server, err))
	}
	body, err := json.Marshal(a)
	if err != nil {
		return http.StatusInternalServerError, message("write the catalogue: " + err.Error())
	}
	return http.StatusOK, body
}

func message(s string) []byte {
	b, _ := json.Marshal(map[string]string{"message": s}) // a string always has a JSON form
	return b
}
