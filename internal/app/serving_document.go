package app

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/serving"
)

// documentRoute puts a route of the inference protocols into the OpenAPI
// document.
func documentRoute(doc *huma.OpenAPI, i int, r serving.Route) {
	method, path := splitPattern(r.Pattern)
	object := map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject}}}
	op := &huma.Operation{
		OperationID: fmt.Sprintf("inference-%d", i), Method: method, Path: path, Summary: r.Summary, Tags: []string{"inference"},
		Parameters: pathParameters(path),
		Responses: map[string]*huma.Response{
			"200":     {Description: "Answered", Content: object},
			"default": {Description: "Refused, with the reason", Content: object},
		},
	}
	if strings.HasSuffix(path, "load") {
		op.Responses["200"] = &huma.Response{Description: "Done"}
	}
	if r.Example != "" {
		op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}, Example: json.RawMessage(r.Example)},
		}}
	}
	doc.AddOperation(op)
}

// splitPattern divides "GET /v2" as net/http's mux writes it.
func splitPattern(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, path
}

// pathParameters lists the {names} of a path.
func pathParameters(path string) (out []*huma.Param) {
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			out = append(out, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Example: exampleOf(path, name)})
		}
	}
	return out
}

// exampleOf is a value of a path's parameter, about the model of all examples.
func exampleOf(path, name string) string {
	switch {
	case name == "version":
		return "1"
	case name == "verb" && strings.Contains(path, "/versions/"):
		return "1:predict"
	case name == "verb":
		return "elec:predict"
	}
	return "elec"
}
