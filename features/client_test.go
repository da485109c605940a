package features

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestFeastClient runs Feast's own Python client, unmodified, against the
// server; clients/feast/run.sh does the same against a whole kedge.
func TestFeastClient(t *testing.T) {
	python := testenv.Dep(t, "python/feast/bin/python")
	h := openHouse(t, time.Time{})
	driver, customer := fieldsOf("driver_id Int64"), fieldsOf("customer_id String")
	h.view("drv_fv", "1h", driver, fieldsOf("f64 Float64", "i64 Int64", "li List(Int64)", "s String", "b Bool", "f32 Float32", "whole Float64"))
	h.view("pair_fv", "0s", append(driver, customer...), fieldsOf("f64 Float64", "rating Float64"))
	h.define(PushSourceKind, "pair_push", PushSourceSpec{Views: []string{"pair_fv"}})
	h.define(FeatureServiceKind, "svc", ServiceSpec{Features: []string{"drv_fv:f64", "drv_fv:i64", "pair_fv:rating"}})
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	values := `{"f64":0.1,"i64":9007199254740993,"li":[1,2],"s":"a","b":true,"f32":0.5,"whole":7.0}`
	h.write(
		`{"view":"drv_fv","key":{"driver_id":1001},"event_time":"`+at(5*time.Minute)+`","values":`+values+`}`,
		`{"view":"drv_fv","key":{"driver_id":1002},"event_time":"`+at(72*time.Hour)+`","values":`+values+`}`,
		`{"view":"pair_fv","key":{"driver_id":1001,"customer_id":"c1"},"event_time":"`+at(400*24*time.Hour)+`","values":{"f64":7.0,"rating":4.5}}`,
	)
	cmd := exec.CommandContext(t.Context(), python, filepath.Join(testenv.Root(t), "clients/feast/check.py"), h.http.URL)
	cmd.Env = append(cmd.Environ(), "FEAST_USAGE=False", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "OK") {
		t.Fatalf("no verdict:\n%s", out)
	}
}
