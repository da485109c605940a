package app

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
)

// canaries are the values that TestColumnPolicies plants in protected columns:
// in a view's, a key's, a model's input and a record that became no row.
func canaries() []string { return []string{"canary-", "918273", "+39-555"} }

// plantPersonal fills alpha with rows of people, and defines what computes from
// them.
func plantPersonal(t *testing.T, r *running, as []string) {
	t.Helper()
	now := time.Now().UTC().Format(time.RFC3339)
	events := fmt.Sprintf(`{"view":"person","key":{"id":"k1","tax":"canary-key"},"event_time":%[1]q,"values":{"name":"canary-name","pay":918273,"n":1}}
{"view":"person","key":{"id":"k2","tax":"canary-other"},"event_time":%[1]q,"values":{"name":"canary-2","pay":918274,"n":"canary-dead"}}
{"model":"scorer","version":"1","id":"p1","key":{"id":"k1","tax":"canary-key"},"event_time":%[1]q,"inputs":{"n":1,"name":"canary-input","pay":918275},"output":{"score":0.5,"class":"yes"},"attributions":{"pay":0.918273,"n":0.1}}
`, now)
	if status, text := r.call("POST", "/v1/events", events, append(as, "Content-Type", "application/x-ndjson")...); status != 200 {
		t.Fatalf("plant: %d %s", status, text)
	}
	testenv.Eventually(t, time.Minute, func() error {
		for _, q := range []string{`{"kind":"rows","view":"person"}`, `{"kind":"rows","model":"scorer"}`, `{"kind":"dead_letters"}`} {
			if status, text := r.call("POST", "/v1/query", q, as...); !strings.Contains(text, "canary-") {
				return fmt.Errorf("%s: %d %s", q, status, text)
			}
		}
		return nil
	})
	d, _ := r.registry.State().Get(event.ModelKind, "alpha", "scorer")
	labels := `"labels":{"by":"view","view":"person","column":"pay","tolerance":"1h"},` // what the model foretells is personal, too
	spec := strings.Replace(string(d.Spec), "{", "{"+labels, 1)
	if _, err := r.registry.Apply(t.Context(), registry.Entry{Kind: d.Kind, Namespace: "alpha", Name: "scorer", Op: registry.Put, Expect: d.Version, Spec: json.RawMessage(spec), Who: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{
		`{"kind":"WindowView","name":"paid","spec":{"source":"person","features":[{"name":"most","function":"max","column":"pay","window":"1h"},{"name":"seen","function":"count","window":"1h"}]}}`,
		`{"kind":"OnDemandView","name":"made","spec":{"features":[{"name":"twice","type":"Float64","expr":"person.pay * 1.0"},{"name":"one","type":"Float64","expr":"person.n * 1.0"}]}}`,
	} {
		if status, text := r.call("POST", "/v1/definitions", d, as...); status != 200 {
			t.Fatalf("%s: %d %s", d, status, text)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		for _, f := range []string{"person:pay", "paid:most", "made:twice"} {
			if status, text := r.call("POST", "/get-online-features", `{"features":["`+f+`"],"entities":{"id":["k1"],"tax":["a"]}}`, as...); status != 200 {
				return fmt.Errorf("%s: %d %s", f, status, text)
			}
		}
		return nil
	})
}

// asking is one request of the sweep, under the name of its way out.
type asking struct {
	way, method, path, body string
	headers                 []string
}

// askings ask for what is protected by every way there is: by name, by its
// derivatives, without a name, in every form of an answer.
func askings() (out []asking) {
	post := func(way, path, body string, headers ...string) {
		out = append(out, asking{way, "POST", path, body, headers})
	}
	for _, k := range query.Kinds() {
		subjects := map[query.Subject][]string{query.ViewOnly: {`"view":"person",`}, query.ModelOnly: {`"model":"scorer",`}, query.ViewOrModel: {`"view":"person",`, `"model":"scorer",`}, query.Optional: {""}, query.NoSubject: {""}}[k.Subject]
		asks := []string{""}
		for member, with := range map[string][]string{"columns": {`"columns":["pay"],`, `"columns":["name","n"],`}, "filter": {`"filter":{"name":"canary-name"},`}, "group_by": {`"group_by":["name"],`}, "segment": {`"segment":{"name":""},`}} {
			if slices.Contains(k.Reads, member) {
				asks = append(asks, with...)
			}
		}
		for _, subject := range subjects {
			for _, more := range asks {
				post("query "+k.Name, "/v1/query", fmt.Sprintf(`{%s%s"kind":%q}`, subject, more, k.Name))
			}
		}
	}
	for _, media := range []string{"text/csv", "application/vnd.apache.arrow.stream"} {
		post("query rows "+media, "/v1/query", `{"kind":"rows","view":"person"}`, "Accept", media)
		post("online "+media, "/get-online-features", `{"features":["person:name"],"entities":{"id":["k1"],"tax":["canary-key"]}}`, "Accept", media)
	}
	for _, f := range []string{"person:name", "person:pay", "made:twice", "paid:most"} {
		post("online "+f, "/get-online-features", `{"features":["`+f+`","person:n"],"entities":{"id":["k1"],"tax":["canary-key"]}}`)
		post("history "+f, "/v1/historical-features?features="+f, "id,tax,event_timestamp\nk1,canary-key,2100-01-01T00:00:00Z\n", "Content-Type", "text/csv")
		post("entities "+f, "/v1/historical-features?all_entities=true&features="+f, "", "Accept", "text/csv")
	}
	post("predictions", "/v1/historical-features?from_predictions=scorer", "", "Accept", "text/csv")
	out = append(out, asking{"dead letters", "GET", "/v1/dead-letters", "", nil}, asking{"page", "GET", "/", "", nil})
	post("report", "/v1/reports", `{"view":"person"}`)
	post("report", "/v1/reports", `{"model":"scorer"}`)
	return out
}

// canariesShown are the ways by which a caller sees a canary that it did not send.
func canariesShown(t *testing.T, r *running, key string) (ways []string, sent int) {
	t.Helper()
	for _, a := range askings() {
		status, text := r.call(a.method, a.path, a.body, append([]string{"Authorization", "Bearer " + key}, a.headers...)...)
		sent++
		if status >= 500 && status != 503 {
			t.Errorf("%s %s: %d %.300s", a.way, a.body, status, text)
		}
		for _, sentence := range []string{"canary-key"} { // keys that the question itself has
			if strings.Contains(a.body, sentence) {
				text = strings.ReplaceAll(text, sentence, "")
			}
		}
		if slices.ContainsFunc(canaries(), func(c string) bool { return strings.Contains(text, c) }) && !slices.Contains(ways, a.way) {
			ways = append(ways, a.way)
		}
	}
	return ways, sent
}

// TestColumnPolicies plants values in columns and looks for them in every answer
// of every role: without a policy they are there, with one they are not, but for
// roles that it names and administrators.
func TestColumnPolicies(t *testing.T) {
	cert, certKey, pool := certificate(t)
	r := startApp(t, func(c *Config) {
		c.Auth.Enabled, c.HTTP.TLS.CertFile, c.HTTP.TLS.KeyFile, c.Namespace = true, cert, certKey, "alpha"
		c.ClickHouse.Listen = "127.0.0.1:0"
	})
	r.trust(pool)
	admin := r.adminKey()
	as := []string{"Authorization", "Bearer " + admin}
	plantPersonal(t, r, as)
	keys := map[auth.Role]string{}
	for _, role := range auth.Roles() {
		keys[role] = r.makeKey(admin, "alpha:"+string(role))
	}
	raw := func(role auth.Role) (ways []string) {
		for _, s := range r.store.Schemas() {
			if got, err := askSQL(t, r, &tls.Config{RootCAs: pool}, keys[role], "SELECT toString(groupArray(tuple(*))) FROM kedge."+s.Table()); err == nil && strings.Contains(got, "canary-") {
				ways = append(ways, "ClickHouse")
			}
		}
		tr := &kafka.Transport{TLS: &tls.Config{RootCAs: pool}, SASL: plain.Mechanism{Username: "kedge", Password: keys[role]}}
		defer tr.CloseIdleConnections()
		c := &kafka.Client{Addr: kafka.TCP(r.Brokers()...), Transport: tr, Timeout: 20 * time.Second}
		res, err := c.Fetch(t.Context(), &kafka.FetchRequest{Topic: "kedge.alpha.features", MaxBytes: 1 << 20, MaxWait: time.Second})
		if err == nil && res.Error == nil {
			ways = append(ways, "Kafka")
		}
		return ways
	}

	open, _ := canariesShown(t, r, keys[auth.Operator]) // the positive control
	for _, want := range []string{"query rows", "query dead_letters", "query dead_letter_log", "query summary", "query label_coverage", "query rows text/csv", "online person:name", "online text/csv", "online application/vnd.apache.arrow.stream",
		"online made:twice", "online paid:most", "history person:pay", "history made:twice", "entities person:name", "predictions", "dead letters", "page"} {
		if !slices.Contains(open, want) {
			t.Errorf("the sweep is blind: without a policy it sees nothing by way of %s; it sees %v", want, open)
		}
	}
	if got := raw(auth.Operator); !slices.Contains(got, "ClickHouse") || !slices.Contains(got, "Kafka") {
		t.Errorf("the raw ports show nothing without a policy: %v", got)
	}

	policy := func(action string, roles ...string) {
		t.Helper()
		spec, err := json.Marshal(event.ColumnPolicySpec{Columns: []string{"name", "pay", "tax"}, Action: action, ShownTo: roles})
		if err != nil {
			t.Fatal(err)
		}
		version := uint64(0)
		if d, ok := r.registry.State().Get(event.ColumnPolicyKind, "alpha", "people"); ok {
			version = d.Version
		}
		if status, text := r.call("POST", "/v1/definitions", fmt.Sprintf(`{"kind":"ColumnPolicy","name":"people","version":%d,"spec":%s}`, version, spec), as...); status != 200 {
			t.Fatalf("policy: %d %s", status, text)
		}
	}
	total := 0
	for action, roles := range map[string][]auth.Role{event.MaskColumn: auth.Roles(), event.DenyColumn: {auth.Operator}} {
		policy(action)
		for _, role := range roles {
			ways, sent := canariesShown(t, r, keys[role])
			total += sent
			ways = append(ways, raw(role)...)
			if role == auth.Admin {
				for _, want := range []string{"query rows", "online person:name", "ClickHouse", "Kafka"} {
					if !slices.Contains(ways, want) {
						t.Errorf("%s: an administrator sees nothing by way of %s", action, want)
					}
				}
			} else if len(ways) > 0 {
				t.Errorf("%s: %s sees what is protected by way of %v", action, role, ways)
			}
		}
	}
	policy(event.DenyColumn)
	t.Logf("%d requests", total)
	assertMasks(t, r, keys, policy)
	if status, _ := r.call("POST", "/v1/definitions", `{"kind":"ColumnPolicy","name":"mine","spec":{"columns":["n"],"action":"mask"}}`, "Authorization", "Bearer "+keys[auth.Operator]); status != 403 {
		t.Errorf("an operator makes a policy: %d", status)
	}
	if status, _ := r.call("DELETE", "/v1/definitions?kind=ColumnPolicy&name=people", "", "Authorization", "Bearer "+keys[auth.Operator]); status != 403 {
		t.Errorf("an operator deletes a policy: %d", status)
	}
	if status, text := r.call("DELETE", "/v1/definitions?kind=ColumnPolicy&name=people", "", as...); status != 200 {
		t.Fatalf("delete: %d %s", status, text)
	}
	if _, text := r.call("POST", "/v1/query", `{"kind":"rows","view":"person"}`, "Authorization", "Bearer "+keys[auth.Operator]); !strings.Contains(text, "canary-name") {
		t.Errorf("without the policy: %.300s", text)
	}
}

// assertMasks says how an answer looks from which something is hidden.
func assertMasks(t *testing.T, r *running, keys map[auth.Role]string, policy func(string, ...string)) {
	t.Helper()
	viewer := []string{"Authorization", "Bearer " + keys[auth.Viewer]}
	online := `{"features":["person:name","person:n"],"entities":{"id":["k1"],"tax":["canary-key"]}}`
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/get-online-features", online, 403, "FeastPermissionError"},
		{"/v1/query", `{"kind":"rows","view":"person","columns":["name"]}`, 403, codeProtected},
		{"/v1/query", `{"kind":"rows","view":"person","filter":{"pay":"1"}}`, 403, codeProtected},
		{"/v1/query", `{"kind":"rows","view":"person"}`, 200, `"n"`},
		{"/v1/sources/check", `{"spec":{"topic":"rides","format":{"type":"json"},"events":[]}}`, 403, codeProtected},
		{"/v1/sources/draft", `{"topic":"rides"}`, 403, codeProtected},
		{"/api/2.0/mlflow-artifacts/artifacts/0/a", "", 403, codeProtected},
		{"/v1/registry/models/scorer/bundle", "", 403, codeProtected},
	} {
		method, as := "POST", viewer
		if c.body == "" {
			method = "GET"
		} else if strings.Contains(c.path, "sources") {
			as = []string{"Authorization", "Bearer " + keys[auth.Operator]}
		}
		if status, text := r.call(method, c.path, c.body, as...); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("denied: %s: %d %s", c.body, status, text)
		}
	}
	testenv.Eventually(t, time.Minute, func() error {
		_, text := r.call("POST", "/v1/query", `{"kind":"audit","filter":{"allowed":"false","subject":"alpha-viewer"}}`, "Authorization", "Bearer "+keys[auth.Admin])
		if !strings.Contains(text, codeProtected) || !strings.Contains(text, "column pay") {
			return fmt.Errorf("the audit has no refusal: %.300s", text)
		}
		return nil
	})
	policy(event.MaskColumn, "producer")
	if status, text := r.call("POST", "/get-online-features", online, viewer...); status != 200 || !strings.Contains(text, `{"values":[null],"statuses":["NULL_VALUE"]`) || !strings.Contains(text, `{"values":[1]`) {
		t.Errorf("masked: %d %s", status, text)
	}
	if status, text := r.call("POST", "/get-online-features", online, "Authorization", "Bearer "+keys[auth.Producer]); status != 200 || !strings.Contains(text, "canary-name") {
		t.Errorf("a role that the policy names: %d %s", status, text)
	}
	if status, text := r.call("POST", "/v1/query", `{"kind":"rows","view":"person"}`, viewer...); status != 200 || !strings.Contains(text, "A column policy hides") {
		t.Errorf("masked rows: %d %s", status, text)
	}
}

// askSQL asks the read-only ClickHouse port.
func askSQL(t *testing.T, r *running, cfg *tls.Config, password, sql string) (out string, err error) {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{r.ports[0].ln.Addr().String()}, TLS: cfg, Auth: clickhouse.Auth{Username: "reader", Password: password}})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return out, conn.QueryRow(t.Context(), sql).Scan(&out)
}

// TestVeiledFindings: of statements about columns, those about hidden ones are
// left out, wherever they say which it is.
func TestVeiledFindings(t *testing.T) {
	v := newVeil(map[string]string{"pay": event.MaskColumn, "home.city": event.DenyColumn}, false)
	text := func(name string, values ...string) query.Column {
		return query.Column{Name: name, Type: query.Text, Values: values}
	}
	number := func(name string, values ...float64) query.Column {
		return query.Column{Name: name, Type: query.Float, Values: values}
	}
	frames := v.veiled(query.Kind{}, []query.Frame{
		{Name: "pay", Columns: []query.Column{number("max", 918273)}},
		{Name: "all", Notices: []query.Notice{{Text: "pay has 918273"}, {Text: "kept"}}, Columns: []query.Column{
			text("column", "n", "pay", "payment", "x"), text("condition", "n > 1", "a", "pays", "918273 < pay and n = 1"), number("value", 1, 918273, 3, 918273)}},
		{Name: "wide", Columns: []query.Column{number("n", 1), number("pay", 918273), {Name: "v", Type: query.Float, Labels: map[string]string{"segment": "home.city=918273"}, Values: []float64{918273}}}},
		{Name: "json", Columns: []query.Column{{Name: "labels", Type: query.RawJSON, Values: []json.RawMessage{[]byte(`{"column":"pay","was":918273}`), []byte(`{"column":"n"}`)}}}},
	})
	b, err := json.Marshal(frames)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); strings.Contains(got, "918273") || !strings.Contains(got, "payment") || !strings.Contains(got, "kept") || !strings.Contains(got, `"values":[1,3]`) || !strings.Contains(got, "A column policy hides") {
		t.Errorf("%s", got)
	}
	for _, k := range query.Kinds() { // what is added is held to the strictest rule unless it says otherwise
		if k.Shows == query.ShowsNames && slices.Contains(k.Reads, "columns") && k.Name != "column_freshness" && k.Name != "freshness_series" {
			t.Errorf("kind %s reads columns and says that it shows nothing of them", k.Name)
		}
	}
}

// What is counted of a hidden column is hidden as the column is, wherever it is
// named.
func TestDescriptorsAreHiddenWithTheirColumn(t *testing.T) {
	v := newVeil(map[string]string{"review": event.DenyColumn, "face": event.MaskColumn}, false)
	for name, want := range map[string]string{"length(review)": event.DenyColumn, "norm(face)": event.MaskColumn, "length(title)": "", "size(review)x": ""} {
		if got := v.action(name); got != want || v.mentions(name) != (want != "" || strings.Contains(name, "(review)")) {
			t.Errorf("%s: %q, mentioned: %v; want %q", name, got, v.mentions(name), want)
		}
	}
	f, hidden := v.findings(query.Frame{Name: "drift", Columns: []query.Column{{Name: "column", Type: query.Text, Values: []string{"length(review)", "amount"}}}})
	if got := f.Columns[0].Values.([]string); hidden != 1 || !slices.Equal(got, []string{"amount"}) {
		t.Errorf("findings about a hidden column: %v, %d hidden", got, hidden)
	}
}
