// Package plugin is the backend of the Kedge data source for Grafana: a thin
// client of Kedge's query API.
//
// Promises: every frame is typed for Grafana's data plane, so an alert sees
// what the panel sees; the queries of one request run side by side, each with
// its own deadline, and one that fails leaves the others whole.
//
// May not: use SQL, read files or the environment, or import any room but
// query.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/httpclient"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/query"
)

// Datasource is one configured Kedge.
type Datasource struct {
	client  query.Client
	options Options
	uid     string                // by which dashboards choose it
	known   map[string]query.Kind // kinds that this build knows, by name
}

// Options is the data source's jsonData.
type Options struct {
	Namespace      string `json:"namespace"`      // asked when a query names none
	TimeoutSeconds int    `json:"timeoutSeconds"` // deadline of one query; 0 means 30
	TraceURL       string `json:"traceUrl"`       // e.g. https://traces.example/trace/${__value.raw}
	MaxRows        int    `json:"maxRows"`        // of a table; 0 means 10,000
}

// concurrent bounds the queries of one request that are under way at once:
// Grafana sends all panels of a refresh together.
const concurrent = 8

// forwardedIdentity is the header in which Grafana signs who is looking.
const forwardedIdentity = "X-Grafana-Id"

// New makes an instance from its settings; the SDK calls it again when they
// change.
func New(ctx context.Context, s backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	d := &Datasource{uid: s.UID, known: knownKinds()}
	if len(s.JSONData) > 0 {
		if err := json.Unmarshal(s.JSONData, &d.options); err != nil {
			return nil, fmt.Errorf("read the data source's settings: %w", err)
		}
	}
	if s.URL == "" {
		return nil, backend.DownstreamError(errors.New("the data source has no URL: set the address of a Kedge, e.g. http://127.0.0.1:7070"))
	}
	opts, err := s.HTTPClientOptions(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the data source's connection settings: %w", err)
	}
	opts.Middlewares = middlewares()
	hc, err := httpclient.New(opts)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to %s: %w", s.URL, err)
	}
	d.client = query.Client{Server: s.URL, Key: s.DecryptedSecureJSONData["apiKey"], HTTP: hc}
	return d, nil
}

// middlewares are the SDK's for a connection, without its metrics of requests to
// a data source: their labels are checked in a registry made anew for each, which
// costs half as much as sending it. The SDK's metrics of queries stay, and Kedge has its own.
func middlewares() []httpclient.Middleware {
	return slices.DeleteFunc(httpclient.DefaultMiddlewares(), func(m httpclient.Middleware) bool {
		named, ok := m.(httpclient.MiddlewareName)
		return ok && named.MiddlewareName() == httpclient.DataSourceMetricsMiddlewareName
	})
}

// Dispose lets idle connections go.
func (d *Datasource) Dispose() { d.client.HTTP.CloseIdleConnections() }

// panelQuery is what the editor stores: Kedge's own request, beside the
// members that Grafana adds to every query.
type panelQuery struct {
	query.Request
	Adhoc  []adhocFilter `json:"adhoc"`
	Values []string      `json:"values"` // of a series or of numbers, e.g. mean, p95; empty: all
	Format string        `json:"format"` // "numeric": a table as one number for each combination of its texts
	Models []string      `json:"models"` // several, from a variable; each is asked about
	Views  []string      `json:"views"`
}

// each are the requests that a query stands for: one for every chosen subject.
func (p panelQuery) each() []query.Request {
	var out []query.Request
	add := func(names []string, set func(*query.Request, string)) {
		for _, name := range names {
			r := p.Request
			set(&r, name)
			out = append(out, r)
		}
	}
	switch {
	case len(p.Models) > 1 && slices.Contains(p.Models, p.Model): // a filter over all panels names one
		add(p.Models, func(r *query.Request, name string) { r.Model = name })
	case len(p.Views) > 1 && slices.Contains(p.Views, p.View):
		add(p.Views, func(r *query.Request, name string) { r.View = name })
	default:
		out = []query.Request{p.Request}
	}
	return out
}

// QueryData answers all queries of one request.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	answers := make([]backend.DataResponse, len(req.Queries))
	client := d.caller(req.GetHTTPHeader(forwardedIdentity))
	if len(req.Queries) == 1 { // another goroutine's stack would have to grow first
		answers[0] = d.answer(ctx, client, req.Queries[0])
	} else {
		var g errgroup.Group
		g.SetLimit(concurrent)
		for i, q := range req.Queries {
			g.Go(func() error {
				answers[i] = d.answer(ctx, client, q)
				return nil
			})
		}
		g.Wait()
	}
	res := backend.NewQueryDataResponse()
	for i, q := range req.Queries {
		res.Responses[q.RefID] = answers[i]
	}
	return res, nil
}

// caller is the client that speaks for one signed-in user.
func (d *Datasource) caller(identity string) *query.Client {
	c := d.client
	if identity != "" {
		c.Header = http.Header{forwardedIdentity: {identity}}
	}
	return &c
}

func (d *Datasource) answer(ctx context.Context, c *query.Client, q backend.DataQuery) backend.DataResponse {
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	p, notices, err := d.request(ctx, c, q)
	if err != nil {
		return backend.ErrDataResponseWithSource(backend.StatusBadRequest, backend.ErrorSourceDownstream, err.Error())
	}
	var res backend.DataResponse
	for _, r := range p.each() {
		frames, err := d.frames(ctx, c, q, r, p)
		if err != nil {
			return failed(r, err)
		}
		if len(frames) > 0 && len(notices) > 0 { // said once
			for _, n := range notices {
				frames[0].AppendNotices(data.Notice{Severity: severity(n.Severity), Text: n.Text})
			}
			notices = nil
		}
		res.Frames = append(res.Frames, frames...)
	}
	return res
}

// frames asks one question and gives its answer Grafana's form.
func (d *Datasource) frames(ctx context.Context, c *query.Client, q backend.DataQuery, r query.Request, p panelQuery) (data.Frames, error) {
	asked, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write query %s: %w", r.Kind, err)
	}
	frames, err := ask(ctx, c, r.Kind, asked)
	if err != nil {
		return nil, err
	}
	if len(frames) == 0 { // nothing to say still has a type
		frames = []query.Frame{{Name: r.Kind, Type: d.kindOf(ctx, c, r.Kind).Frame}}
	}
	text := string(asked)
	var out data.Frames
	for _, kf := range shape(frames, r, limits{points: int(q.MaxDataPoints), rows: d.maxRows(), values: p.Values, numeric: p.Format == "numeric"}) {
		f, err := toGrafana(&kf, leads{traces: d.options.TraceURL, source: d.uid, model: r.Model})
		if err != nil {
			return nil, err
		}
		f.RefID, f.Meta.ExecutedQueryString = q.RefID, text
		out = append(out, f)
	}
	return out, nil
}

// request turns a panel's query into Kedge's, with the dashboard's time range
// and filters: the backend does it, so an alert rule asks the same question as
// the panel. What the kind does not read stays out, because Kedge refuses it.
func (d *Datasource) request(ctx context.Context, c *query.Client, q backend.DataQuery) (panelQuery, []query.Notice, error) {
	var p panelQuery
	if err := json.Unmarshal(q.JSON, &p); err != nil {
		return p, nil, fmt.Errorf("query %s: %w", q.RefID, err)
	}
	r := p.Request
	if r.Kind == "" {
		return p, nil, fmt.Errorf("query %s: no kind is chosen", q.RefID)
	}
	k := d.kindOf(ctx, c, r.Kind)
	r, notices, err := applyFilters(r, k, p.Adhoc)
	if err != nil {
		return p, nil, fmt.Errorf("query %s: %w", q.RefID, err)
	}
	if r.Namespace == "" {
		r.Namespace = d.options.Namespace
	}
	r.From, r.To = q.TimeRange.From.UTC(), q.TimeRange.To.UTC()
	if r.Step == 0 && q.Interval > 0 && slices.Contains(k.Reads, "step") {
		r.Step = query.Duration(q.Interval)
	}
	if r.MaxPoints == 0 && slices.Contains(k.Reads, "max_points") {
		r.MaxPoints = int(q.MaxDataPoints)
	}
	p.Request = r
	return p, notices, nil
}

// kindOf describes a kind: as this build knows it, else as the server does,
// which may be newer.
func (d *Datasource) kindOf(ctx context.Context, c *query.Client, name string) query.Kind {
	if k, ok := d.known[name]; ok {
		return k
	}
	served, err := servedKinds(ctx, c)
	if i := slices.IndexFunc(served, func(k query.Kind) bool { return k.Name == name }); err == nil && i >= 0 {
		return served[i]
	}
	return query.Kind{Name: name, Title: name} // the server will say what it thinks of it
}

// knownKinds is this build's table of kinds by name.
func knownKinds() map[string]query.Kind {
	out := map[string]query.Kind{}
	for _, k := range query.Kinds() {
		out[k.Name] = k
	}
	return out
}

func servedKinds(ctx context.Context, c *query.Client) ([]query.Kind, error) {
	body, err := c.Send(ctx, http.MethodGet, "/v1/kinds", "application/json", nil)
	if err != nil {
		return nil, err
	}
	var kinds []query.Kind
	if err := json.Unmarshal(body, &kinds); err != nil {
		return nil, fmt.Errorf("read the kinds of %s: %w", c.Server, err)
	}
	return kinds, nil
}

func (d *Datasource) maxRows() int {
	if d.options.MaxRows > 0 {
		return d.options.MaxRows
	}
	return 10_000
}

func (d *Datasource) timeout() time.Duration {
	if d.options.TimeoutSeconds > 0 {
		return time.Duration(d.options.TimeoutSeconds) * time.Second
	}
	return 30 * time.Second
}

// failed says what went wrong and whose fault it is.
func failed(r query.Request, err error) backend.DataResponse {
	status := backend.StatusBadGateway
	var refused *query.Error
	switch {
	case errors.As(err, &refused):
		status = backend.Status(refused.Status)
	case errors.Is(err, context.DeadlineExceeded):
		status = backend.StatusTimeout
		err = fmt.Errorf("query %s took longer than its deadline: narrow the time range or raise the data source's timeout", r.Kind)
	}
	return backend.ErrDataResponseWithSource(status, backend.ErrorSourceDownstream, err.Error())
}
