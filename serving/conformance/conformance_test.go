package conformance

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestBrokenServersAreFound runs the suite against servers that break the
// protocol: one that answers everything with an empty object, one that answers
// 500 with text.
func TestBrokenServersAreFound(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"empty objects": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) },
		"text and 500":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", 500) },
	} {
		srv := httptest.NewServer(h)
		s := Suite{Server: srv.URL, Model: "m"}
		func() {
			defer func() {
				if v := recover(); v != nil {
					t.Errorf("%s: panic: %v", name, v)
				}
			}()
			results, err := s.Run(t.Context())
			broken := 0
			for _, r := range results {
				if r.Broken != "" {
					broken++
				}
			}
			if err != nil || broken < 2 {
				t.Errorf("%s: %d of %d rules broken, %v", name, broken, len(results), err)
			}
		}()
		srv.Close()
	}
	if _, err := (&Suite{Server: "http://127.0.0.1:1"}).Run(t.Context()); err == nil {
		t.Error("nobody listens, and no error")
	}
}
