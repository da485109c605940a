package serving

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// Triton's names appear as Triton spells them, with what happened: two rows in
// one request, one request refused.
func TestTritonNames(t *testing.T) {
	r := newRig(t)
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "kedge", LogTo: &strings.Builder{}, LogFormat: "text", LogLevel: "error"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.s.ObserveAsTriton(tel.Scope("serving").Meter); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]int{
		`{"inputs":[{"name":"input","shape":[2,2],"datatype":"FP32","data":[1,0,2,0]}]}`: 200,
		`{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,0,2]}]}`:   400,
	} {
		if status, text, _ := r.post("/v2/models/fraud/infer", body); status != want {
			t.Fatalf("%d %s", status, text)
		}
	}
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for name, want := range map[string]int{
		`nv_inference_request_success{model="fraud",version="1"}`:                   1,
		`nv_inference_request_failure{model="fraud",reason="OTHER",version="1"}`:    1,
		`nv_inference_request_failure{model="fraud",reason="REJECTED",version="1"}`: 0,
		`nv_inference_count{model="fraud",version="1"}`:                             2,
		`nv_inference_exec_count{model="fraud",version="1"}`:                        1,
		`nv_inference_pending_request_count{model="fraud",version="1"}`:             0,
	} {
		if line := fmt.Sprintf("%s %d\n", name, want); !strings.Contains(w.Body.String(), line) {
			t.Errorf("no line %q in\n%s", line, w.Body)
		}
	}
}
