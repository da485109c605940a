package serving

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/stream"
)

// TestBadBodies sends what clients get wrong to the routes beside the Open
// Inference Protocol's: prediction by key, outcomes, and TensorFlow Serving's and
// KServe v1's predict. Each is refused with its status and a word that helps, in
// JSON's words and not Go's, and the next good request is answered.
func TestBadBodies(t *testing.T) {
	r := newRig(t)
	if err := r.client.EnsureTopics(t.Context(), []stream.TopicSpec{{Name: "kedge.default.labels", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := r.s.Load(sum("1", 1, 10)); err != nil {
		t.Fatal(err)
	}
	const predict, outcome, verb = "/v1/predict/fraud", "/v1/outcome", "/v1/models/fraud:predict"
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{predict, `{}`, 400, "neither key nor data"},
		{predict, ``, 400, "it is empty"},
		{predict, `{"key":`, 400, "ends too early"},
		{predict, `{"data":{"f0":1},"rows":[]}`, 400, "either rows, or one key"},
		{predict, `{"data":{"f0":1,"f1":"x"}}`, 400, `"f1" is not a Float32`},
		{predict, `{"data":{"f0":1,"f1":2},"explain":"all"}`, 400, "takes: explain is a JSON string and not an integer"},
		{predict, `{"data":{"f0":1,"f1":2},"sugar":1}`, 400, `unknown field "sugar"`},
		{predict, `{"data":{"f0":1,"f1":2}} {}`, 400, "bytes follow"},
		{predict, `{"rows":[` + strings.Repeat(`{"data":{}},`, 1024) + `{"data":{}}]}`, 400, "1025 rows"},
		{predict, `{"data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, "nested deeper"},
		{"/v1/predict/nope", `{"data":{"f0":1,"f1":2}}`, 404, "is not found"},
		{"/v1/predict/..%2f..%2fetc%2fpasswd", `{"data":{"f0":1}}`, 404, "is not found"},
		{outcome, `{"prediction_id":"x","label":1}`, 400, "empty"},
		{outcome, `{"model":"fraud","prediction_id":7,"label":1}`, 400, "prediction_id is a JSON number and not a string"},
		{outcome, `"label"`, 400, "JSON string and not an object"},
		{outcome, `{"model":"fraud"`, 400, "unexpected EOF"},
		{verb, `{"instances":[]}`, 400, "at least one row"},
		{verb, `{"instances":[[1]]}`, 400, "instance 0 has 1 values"},
		{verb, `{"instances":[[1,2],[1]]}`, 400, "instance 1 has 1 values"},
		{verb, `{"instances":[["a","b"]]}`, 400, "not a list of numbers"},
		{verb, `{"instances":[{"f0":1}]}`, 400, "f1"},
		{verb, `{"instances":[{"f0":1,"f1":2,"f2":3}]}`, 400, `"f2"`},
		{verb, `{"instances":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, "max depth"},
		{verb, `{"instances":7}`, 400, "instances"},
		{"/v1/models/fraud:explode", `{"instances":[[1,2]]}`, 404, "explode"},
		{"/v1/models/fraud/versions/9:predict", `{"instances":[[1,2]]}`, 404, `no version \"9\"`},
		{predict, `{"id":"` + strings.Repeat("i", maxID+1) + `","data":{"f0":1,"f1":2}}`, 400, "the id has 1025 bytes"},
		{"/v2/models/fraud/infer", `{"id":"` + strings.Repeat("i", maxID+1) + `","inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[1,2]}]}`, 400, "the id has 1025 bytes"},
		{predict, strings.Repeat(" ", 100<<20), 413, "more than"},
		{outcome, strings.Repeat(" ", 100<<20), 413, "more than"},
		{verb, strings.Repeat(" ", 100<<20), 413, "more than"},
		{predict, `{"data":{"f0":1,"f1":2}}`, 200, "21"},
		{outcome, `{"model":"fraud","prediction_id":"x","label":1}`, 200, "accepted"},
		{verb, `{"instances":[[1,2]]}`, 200, "21"},
	} {
		status, body, _ := r.post(c.path, c.body)
		if status != c.status || !json.Valid([]byte(body)) || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), strings.ReplaceAll(c.says, `\"`, `"`)) {
			t.Errorf("%s %.80s: %d %.300s, want %d …%s…", c.path, c.body, status, body, c.status, c.says)
		}
		for _, internal := range []string{"Go ", "struct", "serving.", ".go:"} {
			if strings.Contains(body, internal) {
				t.Errorf("%s %.80s: the answer has %q: %s", c.path, c.body, internal, body)
			}
		}
	}
	if got := fmt.Sprint(len(r.recorded(2))); got != "2" {
		t.Errorf("%s records of 2 good requests", got)
	}
}
