package app

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kedge-ml/kedge/serving"
	"github.com/kedge-ml/kedge/stream"
)

// TestInferenceRoutesAreDocumented holds that the mux answers what the OpenAPI
// document says and nothing else: every route stands in the document once,
// and every operation of the document finds its route.
func TestInferenceRoutesAreDocumented(t *testing.T) {
	s := serving.NewServer(serving.DefaultConfig(), &stream.Producer{}, slog.New(slog.DiscardHandler))
	mux, doc := http.NewServeMux(), &huma.OpenAPI{}
	routes := map[string]bool{}
	for i, r := range serving.Routes(s) {
		mux.Handle(r.Pattern, r.Handler)
		documentRoute(doc, i, r)
		routes[r.Pattern] = true
	}
	described := 0
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "DELETE": item.Delete, "PATCH": item.Patch, "HEAD": item.Head} {
			if op == nil {
				continue
			}
			described++
			if !routes[method+" "+path] {
				t.Errorf("%s %s is in the document and not in the mux", method, path)
			}
			concrete := path
			for _, p := range op.Parameters {
				concrete = strings.ReplaceAll(concrete, "{"+p.Name+"}", p.Example.(string))
			}
			if _, pattern := mux.Handler(&http.Request{Method: method, URL: &url.URL{Path: concrete}, Host: "x"}); pattern != method+" "+path {
				t.Errorf("%s %s is answered by %q", method, concrete, pattern)
			}
			if op.Summary == "" || op.Responses["200"] == nil || op.Responses["default"] == nil || method == "POST" && !strings.HasSuffix(path, "load") && op.RequestBody == nil {
				t.Errorf("%s %s: %+v", method, path, op)
			}
		}
	}
	if described != len(routes) || described < 20 {
		t.Errorf("%d routes, %d in the document", len(routes), described)
	}
}
