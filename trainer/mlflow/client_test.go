package mlflow

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// The ordinary MLflow client, unmodified, does what training scripts do.
func TestMLflowClient(t *testing.T) {
	python := testenv.Dep(t, "python/mlflow/bin/python")
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(config(t), root)
	if err != nil {
		t.Fatal(err)
	}
	handler := s.Handler(1 << 30)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record := httptest.NewRecorder()
		handler.ServeHTTP(record, r)
		if record.Code >= 400 {
			t.Logf("%s %s: %d %s", r.Method, r.URL, record.Code, record.Body)
		}
		for k, v := range record.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(record.Code)
		w.Write(record.Body.Bytes())
	}))
	defer server.Close()
	cmd := exec.Command(python, filepath.Join(testenv.Root(t), "clients/mlflow/client.py"), server.URL)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
