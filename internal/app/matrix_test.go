package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
)

// leak is in everything that is planted in the namespace alpha, and in no
// request that the matrix sends.
const leak = "leak-"

// attempt is one request of the matrix.
type attempt struct {
	pattern, method, path, body, media string
}

// attempts are the requests for a route: every method that it may take, its
// wildcards filled with names that exist in alpha.
func attempts(pattern string) (out []attempt) {
	method, path, ok := strings.Cut(pattern, " ")
	methods := []string{method}
	if !ok {
		methods, path = []string{"GET", "POST"}, pattern
	}
	path = strings.NewReplacer("{$}", "", "{model}", "oracle", "{verb}", "oracle:predict", "{version}", "1", "{name}", "vault", "{id}", "0", "{path...}", "0", "{model_id}", "0").Replace(path)
	bodies := map[string][]string{
		"/get-online-features":               {`{"features":["vault:secret"],"entities":{"id":["k1"]}}`},
		"/v1/historical-features":            {"id,event_timestamp\nk1,2100-01-01T00:00:00Z\n"},
		"/v1/entities/delete":                {`{"entity":{"id":"k1"}}`},
		"/v1/dead-letters/replay":            {`{}`},
		"/v1/definitions/plan":               {`{"definitions":[],"prune":true}`},
		"/v1/sources/draft":                  {`{"topic":"kedge.alpha.features"}`, `{"topic":"kedge.registry"}`},
		"/v1/sources/check":                  {`{"spec":{"topic":"kedge.alpha.features","format":{"type":"json"},"events":[]}}`},
		"/api/2.0/mlflow/experiments/search": {`{"max_results":100}`},
		"/v1/events":                         {`{"view":"vault","key":{"id":"k9"},"values":{"n":7}}`, `{"namespace":"alpha","view":"vault","key":{"id":"k9"},"values":{"n":7}}`},
	}[path]
	if path == "/v1/query" {
		for _, k := range query.Kinds() {
			for _, namespace := range []string{"", `"namespace":"alpha",`} {
				bodies = append(bodies, queryFor(k, namespace))
			}
		}
	}
	if bodies == nil {
		bodies = []string{"{}"}
	}
	query := map[string]string{
		"/v1/definitions": "?kind=FeatureView&name=vault", "/v1/definitions/history": "?kind=Namespace&name=alpha",
		"/v1/historical-features": "?features=vault:secret", "/api/2.0/mlflow/experiments/get": "?experiment_id=1",
	}[path]
	for _, m := range methods {
		for _, b := range bodies {
			a := attempt{pattern, m, path + query, b, "application/json"}
			switch {
			case m == "GET":
				a.body = ""
			case path == "/v1/historical-features":
				a.media = "text/csv"
			case path == "/v1/events":
				a.media = "application/x-ndjson"
			}
			out = append(out, a)
		}
	}
	return out
}

func queryFor(k query.Kind, namespace string) string {
	subject := ""
	switch k.Subject {
	case query.ViewOnly, query.ViewOrModel:
		subject = `"view":"vault",`
	case query.ModelOnly:
		subject = `"model":"oracle",`
	}
	if slices.Contains(k.Reads, "columns") && k.Name != "rows" {
		subject += `"columns":["n"],`
	}
	if k.Name == "search" {
		subject += `"filter":{"text":"vault"},`
	}
	return fmt.Sprintf(`{%s%s"kind":%q}`, subject, namespace, k.Name)
}

// finding is a request that was answered as it should not be.
type finding struct{ who, what string }

// sweep sends every attempt as somebody, and finds what should not have been
// answered: something planted, or a status that the declared permission does
// not give. roles is nil for nobody.
func sweep(r *running, base, who, key string, roles []auth.Role) (found []finding, sent int) {
	for _, pattern := range r.mux.Patterns() {
		need := r.permissionOf(pattern)
		for _, a := range attempts(pattern) {
			status, text := sendAttempt(r, base, key, a)
			sent++
			if strings.Contains(text, leak) {
				found = append(found, finding{who, fmt.Sprintf("%s %s %s: %d shows %.300s", a.method, a.path, a.body, status, text[max(0, strings.Index(text, leak)-40):])})
			}
			may := need == auth.Public || need == auth.Anyone && roles != nil || slices.ContainsFunc(auth.RolesWith(need), func(x auth.Role) bool {
				return slices.Contains(roles, x) && !need.OfInstallation()
			})
			refused := status == http.StatusUnauthorized || status == http.StatusForbidden
			if !may && !refused || status >= 500 && status != http.StatusServiceUnavailable {
				found = append(found, finding{who, fmt.Sprintf("%s %s %s: %d %.200s; it takes %s", a.method, a.path, a.body, status, text, need)})
			}
		}
	}
	return found, sent
}

func sendAttempt(r *running, base, key string, a attempt) (int, string) {
	headers := []string{"Content-Type", a.media}
	if key != "" {
		headers = append(headers, "Authorization", "Bearer "+key)
	}
	return r.callAt(base, a.method, a.path, a.body, headers...)
}

// plant fills alpha with what nobody else may see.
func plant(t *testing.T, r *running, admin string) {
	t.Helper()
	now := time.Now().UTC().Format(time.RFC3339)
	as := []string{"Authorization", "Bearer " + admin}
	events := fmt.Sprintf(`{"view":"vault","key":{"id":"k1"},"event_time":%[1]q,"values":{"secret":"leak-value","n":1}}
{"view":"vault","key":{"id":"k2"},"event_time":%[1]q,"values":{"secret":"leak-other","n":"leak-dead"}}
{"model":"oracle","version":"1","id":"p1","event_time":%[1]q,"inputs":{"n":1,"why":"leak-input"},"output":{"score":0.5}}
`, now)
	if status, text := r.call("POST", "/v1/events", events, append(as, "Content-Type", "application/x-ndjson")...); status != 200 {
		t.Fatalf("plant events: %d %s", status, text)
	}
	for _, c := range []struct{ path, body string }{
		{"/v1/definitions", `{"kind":"Namespace","name":"alpha","spec":{"owner":"leak-owner"}}`},
		{"/v1/definitions", `{"kind":"Namespace","name":"beta","spec":{"owner":"beta"}}`},
		{"/api/2.0/mlflow/experiments/create", `{"name":"leak-experiment"}`},
		{"/v1/keys", `{"subject":"leak-subject","grants":["alpha:viewer"]}`},
	} {
		if status, text := r.call("POST", c.path, c.body, as...); status != 200 {
			t.Fatalf("plant %s: %d %s", c.path, status, text)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		for _, body := range []string{`{"kind":"rows","view":"vault"}`, `{"kind":"rows","model":"oracle"}`, `{"kind":"dead_letters"}`} {
			if status, text := r.call("POST", "/v1/query", body, as...); !strings.Contains(text, leak) {
				return fmt.Errorf("%s: %d %s", body, status, text)
			}
		}
		if status, text := r.call("POST", "/get-online-features", `{"features":["vault:secret"],"entities":{"id":["k1"]}}`, as...); !strings.Contains(text, "leak-value") {
			return fmt.Errorf("online: %d %s", status, text)
		}
		return nil
	})
}

// TestNothingLeaksBetweenNamespaces sends every route, by every method, as
// every role of another namespace and as nobody. The same sweep must find what
// is planted behind a handler that lets everybody in.
func TestNothingLeaksBetweenNamespaces(t *testing.T) {
	r := startApp(t, func(c *Config) { c.Auth.Enabled, c.Namespace = true, "alpha" })
	admin := r.adminKey()
	plant(t, r, admin)
	before := r.everything(admin)

	total, home := 0, "http://"+r.Addr()
	people := map[string][]auth.Role{"nobody": nil}
	for _, role := range auth.Roles() {
		people["beta's "+string(role)] = []auth.Role{role}
	}
	viewer := ""
	for who, roles := range people {
		key := ""
		if roles != nil {
			key = r.makeKey(admin, "beta:"+string(roles[0]))
		}
		if slices.Contains(roles, auth.Viewer) {
			viewer = key
		}
		found, sent := sweep(r, home, who, key, roles)
		for _, f := range found {
			t.Errorf("%s: %s", f.who, f.what)
		}
		total += sent + sweepRPCs(t, r, who, key, roles, false)
	}
	for _, namespace := range []string{"alpha", "*", "../alpha", "Alpha", "alpha "} {
		if status, text := r.call("POST", "/v1/query", `{"kind":"rows","view":"vault"}`, "Authorization", "Bearer "+viewer, auth.NamespaceHeader, namespace); status < 400 || strings.Contains(text, leak) {
			t.Errorf("beta's viewer names the namespace %q: %d %s", namespace, status, text)
		}
	}
	if after := r.everything(admin); after != before {
		t.Errorf("something of alpha has changed:\n%s\n%s", before, after)
	}
	t.Logf("%d requests over %d routes", total, len(r.mux.Patterns()))

	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { // lets everybody in, as alpha's administrator
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		if q.Method == "DELETE" || q.Method != "GET" && (strings.Contains(q.URL.Path, "delete") || strings.HasPrefix(q.URL.Path, "/v1/keys") || q.URL.Path == "/v1/backup") {
			return
		}
		status, text := r.call(q.Method, q.URL.RequestURI(), string(body), "Authorization", "Bearer "+admin, "Content-Type", q.Header.Get("Content-Type"))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}))
	defer open.Close()
	seen := map[string]bool{}
	found, _ := sweep(r, open.URL, "viewer through the open handler", viewer, []auth.Role{auth.Viewer})
	for _, f := range found {
		if strings.Contains(f.what, "shows") {
			seen[strings.Join(strings.Fields(f.what)[:2], " ")] = true
		}
	}
	for _, want := range []string{"POST /v1/query", "GET /v1/keys", "GET /v1/dead-letters", "GET /v1/definitions/history?kind=Namespace&name=alpha", "POST /api/2.0/mlflow/experiments/search"} {
		if !seen[want] {
			t.Errorf("the sweep is blind: it does not see the leak of %s behind an open handler; it sees %v", want, seen)
		}
	}
	own := 0
	for _, role := range auth.Roles() {
		key := r.makeKey(admin, "alpha:"+string(role))
		own += sweepRPCs(t, r, "alpha's "+string(role), key, []auth.Role{role}, true)
		own += sweepOwn(t, r, key, role)
		assertLetters(t, r, key, role, "leak-dead")
	}
	assertLettersAudited(t, r, admin)
	t.Logf("%d requests in the own namespace: whoever may is let in", own)
}

// everything is what alpha has, as its administrator sees it.
func (r *running) everything(admin string) string {
	var out strings.Builder
	for _, c := range [][3]string{
		{"GET", "/v1/definitions", ""}, {"POST", "/v1/query", `{"kind":"rows","view":"vault"}`}, {"POST", "/v1/query", `{"kind":"rows","model":"oracle"}`},
		{"POST", "/get-online-features", `{"features":["vault:secret"],"entities":{"id":["k1"]}}`}, {"POST", "/api/2.0/mlflow/experiments/search", `{"max_results":100}`},
	} {
		_, text := r.call(c[0], c[1], c[2], "Authorization", "Bearer "+admin)
		out.WriteString(text + "\n")
	}
	return out.String()
}

func (r *running) makeKey(admin, grant string) string {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"subject": strings.ReplaceAll(grant, ":", "-"), "grants": []string{grant}})
	if err != nil {
		r.t.Fatal(err)
	}
	status, text := r.call("POST", "/v1/keys", string(body), "Authorization", "Bearer "+admin)
	var made MadeKey
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 200 {
		r.t.Fatalf("make a key: %d %s", status, text)
	}
	return made.Key
}
