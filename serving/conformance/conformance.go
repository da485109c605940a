// Package conformance checks whether a server speaks the Open Inference
// Protocol, version 2, over HTTP, as its text and the clients in use want it.
//
// Promises: it knows nothing of Kedge; every check is one sentence that a
// server keeps, breaks, or, where the extension is not claimed, is not asked.
// It sends a handful of requests and changes nothing.
//
// May not: import another room.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Result is what one check found.
type Result struct {
	Check   string
	Broken  string // what the server did instead; empty: it keeps the rule
	Skipped string // why the check was not made
}

// Suite is one run against a server.
type Suite struct {
	Server string // base URL
	Model  string // a model to ask; empty: the first of the repository index
	HTTP   *http.Client

	ctx        context.Context
	extensions []string
	meta       metadata
	results    []Result
}

type metadata struct {
	Name     string   `json:"name"`
	Versions []string `json:"versions"`
	Platform string   `json:"platform"`
	Inputs   []tensor `json:"inputs"`
	Outputs  []tensor `json:"outputs"`
}

type tensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int64         `json:"shape"`
	Data       json.RawMessage `json:"data,omitempty"`
	Parameters map[string]any  `json:"parameters,omitempty"`
}

type inference struct {
	ModelName    string         `json:"model_name,omitempty"`
	ModelVersion string         `json:"model_version,omitempty"`
	ID           string         `json:"id,omitempty"`
	Parameters   map[string]any `json:"parameters,omitempty"`
	Inputs       []tensor       `json:"inputs,omitempty"`
	Outputs      []tensor       `json:"outputs,omitempty"`
}

// answer is a response, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// Run makes every check. The error is for a server that cannot be asked at
// all.
func (s *Suite) Run(ctx context.Context) ([]Result, error) {
	s.ctx, s.results = ctx, nil
	if s.HTTP == nil {
		s.HTTP = http.DefaultClient
	}
	if _, err := s.send(http.MethodGet, "/v2/health/live", nil); err != nil {
		return nil, fmt.Errorf("reach the server: %w", err)
	}
	s.check("GET /v2/health/live answers 200", s.status("/v2/health/live", 200))
	s.check("GET /v2/health/ready answers 200", s.status("/v2/health/ready", 200))
	s.check("GET /v2 has name, version and extensions", s.server)
	if err := s.findModel(); err != nil {
		return s.results, err
	}
	s.check("a model's metadata has name, platform, inputs and outputs with datatypes and shapes", s.metadata)
	s.check("a model's ready route answers 200", s.status(s.model()+"/ready", 200))
	if len(s.meta.Inputs) == 0 || len(s.meta.Outputs) == 0 {
		s.skip("inferences, refusals and extensions", "the metadata does not say what to send")
		return s.results, nil
	}
	s.inferences()
	s.refusals()
	s.extended()
	return s.results, nil
}

func (s *Suite) check(name string, f func() error) {
	r := Result{Check: name}
	if err := f(); err != nil {
		r.Broken = err.Error()
	}
	s.results = append(s.results, r)
}

func (s *Suite) skip(name, why string) {
	s.results = append(s.results, Result{Check: name, Skipped: why})
}

func (s *Suite) model() string { return "/v2/models/" + url.PathEscape(s.Model) }

func (s *Suite) send(method, path string, body []byte, header ...string) (*answer, error) {
	req, err := http.NewRequestWithContext(s.ctx, method, strings.TrimSuffix(s.Server, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return &answer{res.StatusCode, res.Header, b}, err
}

func (s *Suite) status(path string, want int) func() error {
	return func() error {
		a, err := s.send(http.MethodGet, path, nil)
		if err == nil && a.status != want {
			err = fmt.Errorf("status %d: %.200s", a.status, a.body)
		}
		return err
	}
}

// read decodes an answer of 200.
func (s *Suite) read(method, path string, body []byte, v any) error {
	a, err := s.send(method, path, body)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d: %.200s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("not the JSON that is wanted: %w: %.200s", err, a.body)
	}
	return nil
}

func (s *Suite) server() error {
	var m struct {
		Name, Version string
		Extensions    []string
	}
	if err := s.read(http.MethodGet, "/v2", nil, &m); err != nil {
		return err
	}
	s.extensions = m.Extensions
	if m.Name == "" || m.Version == "" || m.Extensions == nil {
		return errors.New("name, version or extensions is missing")
	}
	return nil
}

func (s *Suite) findModel() error {
	if s.Model != "" {
		return nil
	}
	var index []struct{ Name, State string }
	if err := s.read(http.MethodPost, "/v2/repository/index", []byte("{}"), &index); err != nil {
		return fmt.Errorf("name a model: the server has no repository index: %w", err)
	}
	for _, m := range index {
		if m.State == "READY" || m.State == "" {
			s.Model = m.Name
			return nil
		}
	}
	return errors.New("no model is ready: name one")
}

func (s *Suite) metadata() error {
	if err := s.read(http.MethodGet, s.model(), nil, &s.meta); err != nil {
		return err
	}
	if s.meta.Name != s.Model || s.meta.Platform == "" || len(s.meta.Inputs) == 0 || len(s.meta.Outputs) == 0 {
		return fmt.Errorf("name %q, platform %q, %d inputs, %d outputs", s.meta.Name, s.meta.Platform, len(s.meta.Inputs), len(s.meta.Outputs))
	}
	for _, t := range slices.Concat(s.meta.Inputs, s.meta.Outputs) {
		if t.Name == "" || t.Shape == nil || !slices.Contains(datatypes(), t.Datatype) {
			return fmt.Errorf("tensor %+v", t)
		}
	}
	return nil
}

func datatypes() []string {
	return []string{"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16"}
}

// request is an inference that fits the metadata: ones, free dimensions 1.
func (s *Suite) request() inference {
	r := inference{ID: "conformance-1"}
	for _, t := range s.meta.Inputs {
		in := tensor{Name: t.Name, Datatype: t.Datatype, Shape: slices.Clone(t.Shape)}
		n := int64(1)
		for i, d := range in.Shape {
			in.Shape[i] = max(d, 1)
			n *= in.Shape[i]
		}
		value := map[string]string{"BOOL": "true", "BYTES": `"a"`, "FP32": "1.0", "FP64": "1.0"}[t.Datatype]
		if value == "" {
			value = "1"
		}
		in.Data = json.RawMessage("[" + strings.TrimSuffix(strings.Repeat(value+",", int(n)), ",") + "]")
		r.Inputs = append(r.Inputs, in)
	}
	return r
}

func (s *Suite) infer(r inference) (*inference, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var out inference
	if err := s.read(http.MethodPost, s.model()+"/infer", b, &out); err != nil {
		return nil, err
	}
	return &out, out.fits(s)
}

// fits checks an answer against the metadata.
func (a *inference) fits(s *Suite) error {
	if a.ModelName != s.Model || len(a.Outputs) == 0 {
		return fmt.Errorf("model_name %q and %d outputs", a.ModelName, len(a.Outputs))
	}
	for _, o := range a.Outputs {
		at := slices.IndexFunc(s.meta.Outputs, func(t tensor) bool { return t.Name == o.Name })
		if at < 0 || s.meta.Outputs[at].Datatype != o.Datatype {
			return fmt.Errorf("output %q of %s is not in the metadata", o.Name, o.Datatype)
		}
		n := int64(1)
		for _, d := range o.Shape {
			n *= d
		}
		var data []any
		if err := json.Unmarshal(o.Data, &data); err != nil || flat(data) != n {
			return fmt.Errorf("output %q of shape %v has data %.80s", o.Name, o.Shape, o.Data)
		}
	}
	return nil
}

func flat(v []any) (n int64) {
	for _, x := range v {
		if inner, ok := x.([]any); ok {
			n += flat(inner)
		} else {
			n++
		}
	}
	return n
}

func (s *Suite) inferences() {
	s.check("an inference answers with the metadata's outputs, and data as many as the shape says", func() error { _, err := s.infer(s.request()); return err })
	s.check("id is echoed", func() error {
		a, err := s.infer(s.request())
		if err == nil && a.ID != "conformance-1" {
			err = fmt.Errorf("id %q", a.ID)
		}
		return err
	})
	s.check("nested data is taken like flat data", func() error {
		r := s.request()
		for i := range r.Inputs {
			for range len(r.Inputs[i].Shape) - 1 {
				if r.Inputs[i].Shape[0] == 1 {
					r.Inputs[i].Data = json.RawMessage("[" + string(r.Inputs[i].Data) + "]")
				}
			}
		}
		_, err := s.infer(r)
		return err
	})
	s.check("an output that is asked for by name comes alone", func() error {
		r := s.request()
		r.Outputs = []tensor{{Name: s.meta.Outputs[0].Name}}
		b := []byte(strings.Replace(string(must(json.Marshal(r))), `,"datatype":"","shape":null`, "", 1))
		var out inference
		if err := s.read(http.MethodPost, s.model()+"/infer", b, &out); err != nil {
			return err
		}
		if len(out.Outputs) != 1 || out.Outputs[0].Name != s.meta.Outputs[0].Name {
			return fmt.Errorf("outputs %+v", out.Outputs)
		}
		return nil
	})
	if len(s.meta.Versions) == 0 {
		s.skip("a version's own routes answer", "the model has no versions")
		return
	}
	s.check("a version's own routes answer", func() error {
		path := s.model() + "/versions/" + url.PathEscape(s.meta.Versions[0])
		var out inference
		if err := s.read(http.MethodPost, path+"/infer", must(json.Marshal(s.request())), &out); err != nil {
			return err
		}
		return s.status(path+"/ready", 200)()
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		return nil
	}
	return b
}

// refused wants a client's error, in the protocol's form.
func (s *Suite) refused(path string, body []byte, header ...string) error {
	a, err := s.send(http.MethodPost, path, body, header...)
	if err != nil {
		return err
	}
	var e struct{ Error *string }
	if a.status < 400 || a.status >= 500 {
		return fmt.Errorf("status %d: %.200s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &e); err != nil || e.Error == nil || *e.Error == "" {
		return fmt.Errorf(`status %d without {"error": text}: %.200s`, a.status, a.body)
	}
	return nil
}

func (s *Suite) refusals() {
	edit := func(name string, change func(*inference)) {
		s.check(name, func() error {
			r := s.request()
			change(&r)
			return s.refused(s.model()+"/infer", must(json.Marshal(r)))
		})
	}
	s.check("an unknown model is a 4xx with an error text", func() error {
		return s.refused("/v2/models/there-is-no-such-model/infer", must(json.Marshal(s.request())))
	})
	s.check("an unknown version is a 4xx with an error text", func() error {
		return s.refused(s.model()+"/versions/987654321/infer", must(json.Marshal(s.request())))
	})
	s.check("a body that is no JSON is a 4xx with an error text", func() error { return s.refused(s.model()+"/infer", []byte(`{"inputs":[`)) })
	edit("a request without inputs is refused", func(r *inference) { r.Inputs = nil })
	edit("an input that the model does not have is refused", func(r *inference) { r.Inputs[0].Name = "there-is-no-such-input" })
	edit("an unknown datatype is refused", func(r *inference) { r.Inputs[0].Datatype = "FP31" })
	edit("another datatype is an error, not a cast", func(r *inference) {
		r.Inputs[0].Datatype, r.Inputs[0].Data = "BOOL", json.RawMessage(strings.NewReplacer("1.0", "true", "1", "true", `"a"`, "true").Replace(string(r.Inputs[0].Data)))
		if s.meta.Inputs[0].Datatype == "BOOL" {
			r.Inputs[0].Datatype = "INT64"
		}
	})
	edit("fewer values than the shape says are refused", func(r *inference) { r.Inputs[0].Data = json.RawMessage("[]") })
	edit("a negative dimension is refused", func(r *inference) { r.Inputs[0].Shape[0] = -1 })
	edit("a rank that the model does not have is refused", func(r *inference) { r.Inputs[0].Shape = []int64{1, 1, 1, 1, 1} })
	edit("an output that the model does not have is refused", func(r *inference) {
		r.Outputs = []tensor{{Name: "there-is-no-such-output"}}
	})
}
