package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/serving/ort"
)

// Route is one route of the Open Inference Protocol, as net/http's mux spells
// it, and its handler.
type Route struct {
	Pattern string
	Summary string
	Example string // a body that the route takes; empty where it takes none
	Handler http.Handler
}

// headerLength is where the binary extension says how long the JSON part is.
const headerLength = "Inference-Header-Content-Length"

// Headers that pin a version, or the one behind a variant, and name the entity;
// variantHeader of an answer tells who answered. Parameters of the same names,
// version, variant and entity, go before them.
const (
	versionHeader = "Kedge-Version"
	variantHeader = "Kedge-Variant"
	entityHeader  = "Kedge-Entity"
)

// Routes returns the protocol's routes over s.
func Routes(s *Server) []Route {
	h := &handler{s: s, pool: &pool{}}
	route := func(pattern, summary string, f func(http.ResponseWriter, *http.Request) error) Route {
		return Route{pattern, summary, "", h.answering(f)}
	}
	return append(h.ownRoutes(), []Route{
		route("GET /v2", "Server metadata", h.server),
		route("GET /v2/health/live", "Liveness", h.live),
		route("GET /v2/health/ready", "Readiness", h.ready),
		route("GET /v2/models/{model}", "Model metadata", h.metadata),
		route("GET /v2/models/{model}/versions/{version}", "Model metadata of a version", h.metadata),
		route("GET /v2/models/{model}/ready", "Model readiness", h.modelReady),
		route("GET /v2/models/{model}/versions/{version}/ready", "Readiness of a version", h.modelReady),
		route("GET /v2/models/{model}/config", "Model configuration", h.config),
		route("GET /v2/models/{model}/versions/{version}/config", "Configuration of a version", h.config),
		route("GET /v2/models/{model}/stats", "Inference statistics", h.statistics),
		route("GET /v2/models/{model}/versions/{version}/stats", "Statistics of a version", h.statistics),
		route("GET /v2/models/stats", "Statistics of all models", h.allStatistics),
		{"POST /v2/models/{model}/infer", "Inference", exampleInfer, h.answering(h.infer)},
		{"POST /v2/models/{model}/versions/{version}/infer", "Inference by a version", exampleInfer, h.answering(h.infer)},
		{"POST /v2/repository/index", "Models that are known", "{}", h.answering(h.index)},
		{"POST /v2/repository/models/{model}/load", "Load a model's deployment anew", "{}", h.answering(h.load)},
		{"POST /v2/repository/models/{model}/unload", "Stop serving a model until it is loaded", "{}", h.answering(h.unload)},
	}...)
}

// PlainPaths are those of the paths that predictions come by, for [web.Limits].
func PlainPaths() []string {
	return []string{
		"/v1/predict/{model}", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer",
		"/v1/models/{verb}", "/v1/models/{model}/versions/{verb}",
	}
}

const exampleInfer = `{"id":"p1","inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[0.5,0.1]}]}`

// ownRoutes are Kedge's own, and those that TensorFlow Serving and KServe's
// first protocol have in common.
func (h *handler) ownRoutes() []Route {
	return []Route{
		{"POST /v1/predict/{model}", "Prediction by entity key", `{"key":{"customer":1001},"data":{"income":5.2,"debt":1.5},"features":true,"explain":2}`, h.v1(h.predictByKey)},
		{"POST /v1/outcome", "What turned out true of a prediction", `{"model":"elec","prediction_id":"p1","label":1}`, h.v1(h.outcome)},
		{"GET /v1/models", "Names of the models (KServe v1)", "", h.answering(h.names)},
		{"GET /v1/models/{model}", "A model's state (TensorFlow Serving, KServe v1)", "", h.answering(h.modelState)},
		{"GET /v1/models/{model}/versions/{version}", "A version's state (TensorFlow Serving)", "", h.answering(h.modelState)},
		{"POST /v1/models/{verb}", "Prediction, NAME:predict (TensorFlow Serving, KServe v1)", `{"instances":[[0.5,0.1]]}`, h.answering(h.predictVerb)},
		{"POST /v1/models/{model}/versions/{verb}", "Prediction by a version, VERSION:predict (TensorFlow Serving)", `{"instances":[[0.5,0.1]]}`, h.answering(h.predictVerb)},
	}
}

type handler struct {
	s    *Server
	pool *pool
}

// statusCanceled is nginx's word for a client that went away.
const statusCanceled = 499

// answering maps an error to the protocol's status and body, in one place.
func (h *handler) answering(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		status, text := refusal(err)
		if status >= http.StatusInternalServerError {
			h.s.log.ErrorContext(r.Context(), "prediction failed", telemetry.LogError, err, "path", r.URL.Path)
		}
		retryAfter(w, status)
		body := oip.AppendString([]byte(`{"error":`), text)
		write(w, status, append(body, '}'))
	})
}

// retryAfter says when a refused client may try again.
func retryAfter(w http.ResponseWriter, status int) {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
}

func refusal(err error) (status int, text string) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrUnknownModel), errors.Is(err, ErrUnknownVersion):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, oip.ErrInvalid), errors.Is(err, ErrInput), errors.Is(err, errEncoding), errors.Is(err, ErrInUse):
		return http.StatusBadRequest, err.Error()
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout, "the request's body came too slowly: send it faster, or in several requests"
	case errors.Is(err, errBody):
		return http.StatusBadRequest, err.Error()
	case errors.Is(err, ErrBusy):
		return http.StatusTooManyRequests, err.Error()
	case errors.Is(err, ort.ErrWorker):
		return http.StatusServiceUnavailable, ErrRuntime.Error() + ": retry later"
	case errors.Is(err, ErrFeatures), errors.Is(err, ErrRuntime):
		return http.StatusServiceUnavailable, err.Error()
	case errors.Is(err, ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, ErrDeadline.Error()
	case errors.Is(err, context.Canceled):
		return statusCanceled, "the caller went away"
	}
	return http.StatusInternalServerError, "the prediction failed: see the server's log"
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client left; there is nobody to tell
}

func (h *handler) server(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, []byte(`{"name":"kedge","version":"2","extensions":["model_repository","binary_tensor_data","statistics","model_configuration"]}`))
	return nil
}

func (h *handler) live(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, []byte(`{"live":true}`))
	return nil
}

// ready carries both members that editions of the protocol's text ask for.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, []byte(`{"live":true,"ready":true}`))
	return nil
}

func (h *handler) modelReady(w http.ResponseWriter, r *http.Request) error {
	_, _, m, err := h.s.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	body := oip.AppendString([]byte(`{"name":`), m.Name)
	write(w, http.StatusOK, append(body, `,"ready":true}`...))
	return nil
}

// errBody is behind a body that ended early or came too slowly.
var errBody = errors.New("the request's body could not be read whole")

var errEncoding = errors.New("the request's Content-Encoding is not supported: send it as it is")

// infer answers one inference request.
func (h *handler) infer(w http.ResponseWriter, r *http.Request) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		h.s.refused(r.PathValue("model"))
		return errEncoding
	}
	if err := h.s.tooBusy(r.PathValue("model")); err != nil {
		return err
	}
	sc := h.pool.get()
	defer h.pool.put(sc)
	if err := h.read(sc, w, r); err != nil {
		h.s.refused(r.PathValue("model"))
		return err
	}
	call := h.call(r, &sc.req)
	a, err := h.s.predict(r.Context(), sc, call)
	if err != nil {
		return err
	}
	return h.answer(w, sc, &a, call)
}

func (h *handler) read(sc *scratch, w http.ResponseWriter, r *http.Request) error {
	var err error
	if sc.body, err = readAll(sc.body[:0], http.MaxBytesReader(w, r.Body, h.s.cfg.MaxBody)); err != nil {
		return err
	}
	headerLen := -1
	if v := r.Header.Get(headerLength); v != "" {
		if headerLen, err = strconv.Atoi(v); err != nil || headerLen < 0 {
			return fmt.Errorf("%w: %s is %q: want a number of bytes", oip.ErrInvalid, headerLength, v)
		}
	}
	return sc.req.Parse(sc.body, headerLen, oip.DefaultLimits())
}

// readAll is io.ReadAll into memory that is used again.
func readAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, fmt.Errorf("%w: %w", errBody, err)
		}
	}
}

func (h *handler) call(r *http.Request, req *oip.Request) Call {
	c := Call{
		Model:   r.PathValue("model"),
		Version: orElse(r.PathValue("version"), orElse(req.Params["version"], r.Header.Get(versionHeader))),
		Variant: orElse(req.Params["variant"], r.Header.Get(variantHeader)),
		Entity:  orElse(req.Params["entity"], r.Header.Get(entityHeader)),
		ID:      req.ID,
		Parent:  r.Header.Get("Traceparent"),
		Trace:   telemetry.TraceID(r.Context()),
	}
	c.Deadline = until(h.s.now(), req.Timeout)
	return c
}

// until is when a request with a timeout in µs ends; the zero time is never. What
// no duration holds (292 years) is never, too: "no limit" is often said so.
func until(now time.Time, timeout int64) time.Time {
	if timeout <= 0 || timeout > math.MaxInt64/int64(time.Microsecond) {
		return time.Time{}
	}
	return now.Add(time.Duration(timeout) * time.Microsecond)
}

func (h *handler) answer(w http.ResponseWriter, sc *scratch, a *Answer, call Call) error {
	res := oip.Response{Model: call.Model, Version: a.Version, ID: sc.req.ID,
		Params: []oip.Param{{Name: "prediction_id", Value: a.ID}, {Name: "variant", Value: a.Variant}}}
	if err := outputs(&res, &sc.req, a); err != nil {
		return err
	}
	out, headerLen := res.Append(sc.out[:0])
	sc.out = out
	w.Header().Set(variantHeader, a.Variant)
	if headerLen < 0 {
		write(w, http.StatusOK, out)
		return nil
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(headerLength, strconv.Itoa(headerLen))
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.Write(out) //nolint:errcheck // the client left; there is nobody to tell
	return nil
}

// outputs fills the response with the tensors that the caller asked for; all
// of them when none is named.
func outputs(res *oip.Response, req *oip.Request, a *Answer) error {
	t := oip.Tensor{Name: a.Model.output(), Datatype: oip.FP32, Shape: []int64{int64(a.Rows)}, Floats: make([]float64, len(a.Values))}
	if a.Width > 1 {
		t.Shape = append(t.Shape, int64(a.Width))
	}
	for i, v := range a.Values {
		t.Floats[i] = float64(v)
	}
	binary := req.BinaryAll
	for _, o := range req.Outputs {
		if o.Name != t.Name {
			return fmt.Errorf("%w: unexpected output %q: the model has %q", ErrInput, o.Name, t.Name)
		}
		if o.Classification > 0 {
			return fmt.Errorf("%w: output %q: the classification extension is not supported", ErrInput, o.Name)
		}
		binary = o.Binary
	}
	res.Outputs = []oip.Tensor{t}
	if binary {
		res.Binary = []bool{true}
	}
	return nil
}

// datatype of the inputs as metadata tells it: one matrix when all are
// numbers and there is more than one, and always each by its name.
func (h *handler) metadata(w http.ResponseWriter, r *http.Request) error {
	d, st, m, err := h.s.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"name":%s,"versions":[`, quote(d.name))
	for i, v := range versionNames(st) {
		comma(&b, i)
		b.WriteString(quote(v))
	}
	fmt.Fprintf(&b, `],"platform":%s,"inputs":[`, quote(m.platform()))
	for i, in := range m.tensors() {
		comma(&b, i)
		fmt.Fprintf(&b, `{"name":%s,"datatype":%q,"shape":%s}`, quote(in.name), in.datatype, shape(in.dims))
	}
	fmt.Fprintf(&b, `],"outputs":[{"name":%s,"datatype":"FP32","shape":%s}]}`, quote(m.output()), shape(m.outputDims()))
	write(w, http.StatusOK, []byte(b.String()))
	return nil
}

type tensorInfo struct {
	name     string
	datatype oip.Datatype
	dims     []int64 // -1 is free
}

// tensors is how a request carries the inputs: one matrix where that is
// possible, because clients take metadata at its word and send every tensor.
func (m *Model) tensors() []tensorInfo {
	if m.numeric() && len(m.Signature.Inputs) > 1 {
		return []tensorInfo{{matrixName, oip.FP32, []int64{-1, int64(len(m.Signature.Inputs))}}}
	}
	var out []tensorInfo
	for i, in := range m.Signature.Inputs {
		out = append(out, tensorInfo{in.Name, m.datatypes[i], []int64{-1}})
	}
	return out
}

// output is the name of the one output tensor.
func (m *Model) output() string { return m.Signature.Outputs[0].Name }

// outputDims is the shape of the output.
func (m *Model) outputDims() []int64 {
	if m.width() > 1 {
		return []int64{-1, int64(m.width())}
	}
	return []int64{-1}
}

// shape writes dimensions as JSON.
func shape(dims []int64) string {
	return strings.ReplaceAll(fmt.Sprint(dims), " ", ",")
}

func quote(s string) string { return string(oip.AppendString(nil, s)) }

func comma(b *strings.Builder, i int) {
	if i > 0 {
		b.WriteByte(',')
	}
}
