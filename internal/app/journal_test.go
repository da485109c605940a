package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// TestAuditTellsWhoDidWhat: a change with before and after, a refusal, nothing
// of another namespace; and a forged entry is found.
func TestAuditTellsWhoDidWhat(t *testing.T) {
	r := startApp(t, func(c *Config) { c.Auth.Enabled = true })
	admin := r.adminKey()
	viewer, other := r.makeKey(admin, "default:viewer"), r.makeKey(admin, "other:admin")
	scientist, owner := r.makeKey(admin, "default:scientist"), r.makeKey(admin, "default:admin")
	for _, unit := range []string{"rides", "trips"} {
		body := fmt.Sprintf(`{"kind":"Entity","name":"driver","version":%d,"spec":{"join_key":"driver_id","description":%q}}`, map[string]int{"rides": 0, "trips": 1}[unit], unit)
		if status, text := r.call("POST", "/v1/definitions", body, "Authorization", "Bearer "+admin); status != 200 {
			t.Fatalf("apply: %d %s", status, text)
		}
	}
	if status, _ := r.call("DELETE", "/v1/definitions?kind=Entity&name=driver", "", "Authorization", "Bearer "+viewer, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); status != 403 {
		t.Errorf("a viewer deletes: %d", status)
	}
	for _, c := range []struct{ key, path, body string }{ // what the routes let in and their handlers refuse
		{scientist, "/v1/definitions", `{"kind":"ColumnPolicy","name":"people","spec":{"columns":["name"],"action":"mask"}}`},
		{scientist, "/v1/definitions", `{"kind":"Entity","name":"rider","namespace":"other","spec":{"join_key":"rider_id"}}`},
		{owner, "/v1/keys", `{"subject":"mallory","grants":["other:admin"]}`},
		{viewer, "/v1/query", `{"kind":"catalog","namespace":"other"}`},
	} {
		if status, text := r.call("POST", c.path, c.body, "Authorization", "Bearer "+c.key); status != 403 {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, text)
		}
	}
	const trace = "1af7651916cd43dd8448eb211c80319c"
	label := []string{"Authorization", "Bearer " + other, "Traceparent", "00-" + trace + "-b7ad6b7169203331-01"}
	if status, text := r.call("POST", "/v1/outcome", `{"model":"m","prediction_id":"p","label":1}`, label...); status != 403 {
		t.Errorf("a label for another namespace: %d %s", status, text)
	}
	if status, text := r.call("POST", "/v1/query", `{"kind":"catalog"}`, "Authorization", "Bearer "+viewer, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); status != 403 {
		t.Errorf("a page of another origin: %d %s", status, text)
	}
	for range 30 { // on, with a path that is no text: neither breaks the chain nor fills the log
		if status, text := r.call("POST", "/%ff"+strings.Repeat("x", 195)+"é", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); status != 403 {
			t.Fatalf("a page of another origin, again: %d %s", status, text)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		if n := len(r.journal.Newest("", 1, func(e *auth.Entry) bool {
			return !e.Allowed && e.Subject == "key:other-admin" && e.What == "outcome" && e.Target == "labels of namespace default" && e.TraceID == trace
		})); n != 1 {
			return errors.New("no denial of a label for another namespace")
		}
		if n := len(r.journal.Newest("", 1, func(e *auth.Entry) bool {
			return !e.Allowed && e.Reason == "cross_origin" && strings.Contains(e.Target, "evil.example") && e.Remote == "127.0.0.1"
		})); n != 1 {
			return errors.New("no denial of a page of another origin")
		}
		if n := len(r.journal.Newest("", 100, func(e *auth.Entry) bool { return e.Reason == "cross_origin" })); n < 10 || n > 12 {
			return fmt.Errorf("%d entries of 31 that a page sent", n)
		}
		denied := r.journal.Newest("", 1000, func(e *auth.Entry) bool { return !e.Allowed && e.Status == 403 && e.Reason == auth.CodeForbidden })
		for _, want := range [][2]string{{"key:default-scientist", "ColumnPolicy people"}, {"key:default-scientist", "Entity rider"}, {"key:default-admin", ""}, {"key:default-viewer", "namespace other"}} {
			if !slices.ContainsFunc(denied, func(e auth.Entry) bool { return e.Subject == want[0] && e.Target == want[1] }) {
				return fmt.Errorf("no denial of %s for %q: %+v", want[0], want[1], denied)
			}
		}
		if n := len(r.journal.Newest("", 1, func(e *auth.Entry) bool { return e.Allowed && e.Status == 403 })); n > 0 {
			return errors.New("a refusal is written down as allowed")
		}
		return nil
	})
	ask := func(key string) (string, int) {
		status, text := r.call("POST", "/v1/query", `{"kind":"audit"}`, "Authorization", "Bearer "+key)
		return text, status
	}
	testenv.Eventually(t, time.Minute, func() error {
		text, _ := ask(admin)
		for _, want := range []string{"Entity driver", `\"rides\"`, `\"trips\"`, "key:default-viewer", "DELETE /v1/definitions", "denied", "key:first-admin", "0af7651916cd43dd8448eb211c80319c"} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%q is missing: %s", want, text)
			}
		}
		return nil
	})
	if text, status := ask(other); status != 200 || strings.Contains(text, "driver") {
		t.Errorf("another namespace's administrator sees %d %s", status, text)
	}
	if text, status := ask(viewer); status != 403 {
		t.Errorf("a viewer reads the audit: %d %s", status, text)
	}
	if status, text := r.call("POST", "/v1/query", `{"kind":"audit","filter":{"allowed":"no"}}`, "Authorization", "Bearer "+admin); status != 400 || !strings.Contains(text, "true or false") {
		t.Errorf("allowed=no: %d %s", status, text)
	}
	verify := func() (v auth.AuditReport) {
		status, text := r.call("GET", "/v1/audit/verify", "", "Authorization", "Bearer "+admin)
		if err := json.Unmarshal([]byte(text), &v); err != nil || status != 200 {
			t.Fatalf("verify: %d %s", status, text)
		}
		return v
	}
	if v := verify(); len(v.Faults) > 0 || v.Entries < 5 {
		t.Errorf("as it was written: %+v", v)
	}
	forged := r.journal.Newest("", 1, func(e *auth.Entry) bool { return !e.Allowed })[0]
	forged.Subject = "key:somebody-else"
	text, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.producer.Produce(t.Context(), AuditTopic, stream.Message{Value: text}); err != nil {
		t.Fatal(err)
	}
	if v := verify(); len(v.Faults) == 0 {
		t.Errorf("a forged entry is not found: %+v", v)
	}
}
