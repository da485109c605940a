package plugin

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/httpclient"

	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/query"
)

// server answers like a Kedge of one frame. The kind "ledger" is slow, and
// "disk" is refused.
func server(t *testing.T, seen chan<- *http.Request) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var q query.Request
		if r.URL.Path == "/v1/query" && json.Unmarshal(body, &q) != nil {
			t.Errorf("body %s", body)
		}
		select {
		case seen <- r:
		default:
		}
		switch q.Kind {
		case "ledger":
			<-r.Context().Done()
		case "disk":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"not_found","message":"no disk"}`)
		default:
			frames, err := web.EncodeFrames(r.Header.Get("Accept"), []query.Frame{{Name: q.Kind, Type: query.Table, Columns: []query.Column{{Name: "n", Type: query.Int, Values: []int64{1}}}}})
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(frames)
		}
	}
}

func source(t *testing.T, s backend.DataSourceInstanceSettings) *Datasource {
	t.Helper()
	d, err := New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Datasource)
}

func asking(kinds ...string) *backend.QueryDataRequest {
	req := &backend.QueryDataRequest{Headers: map[string]string{"http_X-Grafana-Id": "signed"}}
	for _, k := range kinds {
		body, _ := json.Marshal(query.Request{Kind: k})
		req.Queries = append(req.Queries, backend.DataQuery{RefID: k, JSON: body, Interval: time.Second, TimeRange: backend.TimeRange{From: time.Unix(0, 0), To: time.Unix(60, 0)}})
	}
	return req
}

// TestPartialResults holds that a slow and a refused query leave the others of
// the same dashboard whole, and say what is wrong.
func TestPartialResults(t *testing.T) {
	s := httptest.NewServer(server(t, nil))
	defer s.Close()
	d := source(t, backend.DataSourceInstanceSettings{URL: s.URL, JSONData: []byte(`{"timeoutSeconds":1}`)})
	defer d.Dispose()
	res, err := d.QueryData(t.Context(), asking("ledger", "catalog", "disk", "freshness"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ok := range []string{"catalog", "freshness"} {
		if r := res.Responses[ok]; r.Error != nil || len(r.Frames) != 1 || !strings.Contains(r.Frames[0].Meta.ExecutedQueryString, ok) {
			t.Errorf("%s: %v", ok, r.Error)
		}
	}
	if r := res.Responses["ledger"]; r.Status != backend.StatusTimeout || !strings.Contains(r.Error.Error(), "deadline") {
		t.Errorf("slow: %d %v", r.Status, r.Error)
	}
	if r := res.Responses["disk"]; r.Status != backend.StatusNotFound || !strings.Contains(r.Error.Error(), "no disk") {
		t.Errorf("refused: %d %v", r.Status, r.Error)
	}
}

// TestSeveralSubjects holds that a variable of several models is asked about one
// by one, and that a filter over all panels narrows it again.
func TestSeveralSubjects(t *testing.T) {
	s := httptest.NewServer(server(t, nil))
	defer s.Close()
	d := source(t, backend.DataSourceInstanceSettings{URL: s.URL})
	defer d.Dispose()
	for body, want := range map[string][]string{
		`{"kind":"rows","model":"a","models":["a","b"]}`:                                                      {`"model":"a"`, `"model":"b"`},
		`{"kind":"rows","view":"x","views":["x","y"]}`:                                                        {`"view":"x"`, `"view":"y"`},
		`{"kind":"rows","model":"a","models":["a","b"],"adhoc":[{"key":"model","operator":"=","value":"c"}]}`: {`"model":"c"`},
	} {
		req := asking("rows")
		req.Queries[0].JSON = []byte(body)
		res, err := d.QueryData(t.Context(), req)
		if err != nil || res.Responses["rows"].Error != nil || len(res.Responses["rows"].Frames) != len(want) {
			t.Fatalf("%s: %v, %+v", body, err, res.Responses["rows"])
		}
		for i, f := range res.Responses["rows"].Frames {
			if asked := f.Meta.ExecutedQueryString; !strings.Contains(asked, want[i]) || strings.Contains(asked, "models") {
				t.Errorf("%s asked %s", body, asked)
			}
		}
	}
}

// TestWhoAsks holds that the signed identity and the key are sent, the key from
// the secrets alone, and that a private authority is trusted when it is given.
func TestWhoAsks(t *testing.T) {
	seen := make(chan *http.Request, 1)
	s := httptest.NewTLSServer(server(t, seen))
	defer s.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	settings := backend.DataSourceInstanceSettings{URL: s.URL, JSONData: []byte(`{"apiKey":"not this","tlsAuthWithCACert":true}`), DecryptedSecureJSONData: map[string]string{"apiKey": "secret", "tlsCACert": ca}}
	res, err := source(t, settings).QueryData(t.Context(), asking("catalog"))
	if err != nil || res.Responses["catalog"].Error != nil {
		t.Fatalf("%v %v", err, res.Responses["catalog"].Error)
	}
	if r := <-seen; r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("X-Grafana-Id") != "signed" {
		t.Errorf("headers %v", r.Header)
	}
	settings.JSONData = []byte(`{}`)
	if res, err = source(t, settings).QueryData(t.Context(), asking("catalog")); err != nil || res.Responses["catalog"].Error == nil {
		t.Errorf("an unknown authority was trusted: %v", err)
	}
}

// TestMiddlewares holds that of what the SDK puts around a connection its metrics
// alone are left out, whatever it calls them in another version.
func TestMiddlewares(t *testing.T) {
	var left []string
	for _, m := range middlewares() {
		left = append(left, m.(httpclient.MiddlewareName).MiddlewareName())
	}
	if len(left) != len(httpclient.DefaultMiddlewares())-1 || slices.Contains(left, httpclient.DataSourceMetricsMiddlewareName) {
		t.Errorf("middlewares %v", left)
	}
}

// TestHealthSaysWhatIsWrong looks at what "Save & test" shows.
func TestHealthSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		answer int
		body   string
		want   string
	}{
		{http.StatusUnauthorized, `{"code":"unauthorized","message":"who are you"}`, "refused the key"},
		{http.StatusNotFound, `<html>`, "not as a Kedge"},
		{http.StatusBadRequest, `{"code":"unknown_kind","message":"kind"}`, "role query"},
		{http.StatusServiceUnavailable, `{"code":"starting","message":"not yet"}`, "not yet"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.answer)
			_, _ = io.WriteString(w, c.body)
		}))
		res, err := source(t, backend.DataSourceInstanceSettings{URL: s.URL}).CheckHealth(t.Context(), &backend.CheckHealthRequest{})
		if err != nil || res.Status != backend.HealthStatusError || !strings.Contains(res.Message, c.want) {
			t.Errorf("%d: %+v, %v", c.answer, res, err)
		}
		s.Close()
	}
	res, err := source(t, backend.DataSourceInstanceSettings{URL: "http://127.0.0.1:1"}).CheckHealth(t.Context(), &backend.CheckHealthRequest{})
	if err != nil || !strings.Contains(res.Message, "Cannot reach Kedge") {
		t.Errorf("nobody there: %+v, %v", res, err)
	}
	if _, err := New(t.Context(), backend.DataSourceInstanceSettings{}); err == nil {
		t.Error("a data source without a URL was made")
	}
}
