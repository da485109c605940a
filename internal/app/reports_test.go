package app

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/drift/report"
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
)

// A kept report stays under its address for readers of its namespace; to others,
// and under any other address, there is none. What it says it asked as whoever
// keeps it.
func TestReportIsKept(t *testing.T) {
	st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // of a test
	reg, err := registry.Open(t.Context(), memlog.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	go func() { defer close(stopped); _ = reg.Run(ctx) }() // ends with the context
	defer func() { stop(); <-stopped }()
	a := &App{store: st, registry: reg, cfg: DefaultConfig()}
	asked := map[string]int{}
	kinds := map[string]KindFunc{}
	for _, k := range query.Kinds() {
		kinds[k.Name] = func(_ context.Context, r query.Request) ([]query.Frame, error) {
			asked[r.Namespace]++
			if r.Kind == "monitors" {
				return []query.Frame{{Columns: []query.Column{{Name: "state", Values: []string{"watching"}}, {Name: "reference", Values: []string{""}}}}}, nil
			}
			if r.Kind != "incidents" {
				return nil, nil
			}
			one := func(name, v string) query.Column { return query.Column{Name: name, Values: []string{v}} }
			return []query.Frame{{Columns: []query.Column{one("state", "open"), one("severity", "warning"), one("column", "x"), one("sentence", "<script>alert(1)</script> moved"), one("who", ""), one("why", "")}}}, nil
		}
	}
	ann, ben := auth.Caller{Subject: "ann", Namespace: "alpha"}, auth.Caller{Subject: "ben", Namespace: "beta"}
	kept, err := a.keepReport(t.Context(), kinds, ann, report.About{Model: "oracle"})
	if err != nil {
		t.Fatal(err)
	}
	if asked["alpha"] < 8 || len(asked) != 1 {
		t.Errorf("asked in %v, want in alpha alone", asked)
	}
	page, err := a.keptReport(t.Context(), ann, kept.ID)
	if err != nil || !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt; moved") || strings.Contains(page, "<script") {
		t.Errorf("kept: %v\n%.2000s", err, page)
	}
	for _, no := range []struct {
		who auth.Caller
		id  string
	}{{ben, kept.ID}, {ann, strings.Repeat("0", 32)}, {ann, "../" + kept.ID}, {ann, kept.ID + "\n"}, {ann, strings.ToUpper(kept.ID)}, {ann, "' OR 1=1 --"}} {
		if page, err := a.keptReport(t.Context(), no.who, no.id); err == nil || page != "" {
			t.Errorf("%s reads %q: %v", no.who.Subject, no.id, err)
		}
	}
	// Whoever keeps a report, a column policy holds for it: others read it.
	if _, err := reg.Apply(t.Context(), registry.Entry{Kind: event.ColumnPolicyKind, Namespace: "alpha", Name: "p", Op: registry.Put, Spec: []byte(`{"columns":["x"],"action":"mask"}`)}); err != nil {
		t.Fatal(err)
	}
	admin := auth.Local("alpha")
	kept, err = a.keepReport(t.Context(), kinds, admin, report.About{Model: "oracle"})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := a.keptReport(t.Context(), admin, kept.ID); err != nil || strings.Contains(page, "moved") {
		t.Errorf("with a policy on the column: %v\n%.2000s", err, page)
	}
	for _, bad := range []report.About{{}, {View: "a", Model: "b"}, {Model: "m", Version: "1"}} {
		if _, err := a.keepReport(t.Context(), kinds, ann, bad); err == nil {
			t.Errorf("%+v was kept", bad)
		}
	}
}

// A kept report stays as it was made, for those who may ask questions in its
// namespace; others, and whoever asks for one that is not there, are told in a
// code and a sentence.
func TestKeptReportOverHTTP(t *testing.T) {
	r := startApp(t, func(c *Config) { c.Auth.Enabled = true })
	admin := r.adminKey()
	keys := map[string]string{"viewer": r.makeKey(admin, "default:viewer"), "producer": r.makeKey(admin, "default:producer"), "stranger": r.makeKey(admin, "other:admin"), "nobody": "kedge_none"}
	const id, page = "0123456789abcdef0123456789abcdef", "<html><script>alert(1)</script>as it was</html>"
	if err := r.App.store.SaveMonitorState(t.Context(), "default", reportState+id, map[string]string{reportPage: page}, 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, id string
		status  int
		holds   string
	}{
		{"viewer", id, http.StatusOK, page},
		{"viewer", strings.Repeat("0", 32), http.StatusNotFound, `"not_found"`},
		{"viewer", "..%2Fstate", http.StatusNotFound, `"not_found"`},
		{"stranger", id, http.StatusNotFound, `"not_found"`},
		{"producer", id, http.StatusForbidden, `"forbidden"`},
		{"nobody", id, http.StatusUnauthorized, `"code"`},
	} {
		status, text := r.call("GET", "/v1/reports/"+c.id, "", "Authorization", "Bearer "+keys[c.who])
		if status != c.status || !strings.Contains(text, c.holds) || c.who != "viewer" && strings.Contains(text, "as it was") {
			t.Errorf("%s asks for %s: %d %s", c.who, c.id, status, text)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr()+"/v1/reports/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+keys["viewer"])
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "sandbox; default-src 'none'") {
		t.Errorf("what stands in a kept page may run: %q", got)
	}
}
