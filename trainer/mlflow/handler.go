package mlflow

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxBody bounds a request that is not an artefact: MLflow's own limit for a
// batch is 1 MB.
const maxBody = 32 << 20

// Route is one route of MLflow's protocol. Changes says whether it writes.
type Route struct {
	Pattern string
	Changes bool
	Handler http.Handler
}

// Routes are /api/2.0/mlflow/, /api/2.0/mlflow-artifacts/ and what says that
// workspaces are known: the namespaces of Kedge. maxArtifact
// bounds one uploaded file, in bytes.
func (s *Store) Routes(maxArtifact int64) []Route {
	var out []Route
	add := func(pattern string, changes bool, h http.HandlerFunc) {
		out = append(out, Route{pattern, changes, h})
	}
	for name, op := range s.ops {
		method, path, _ := strings.Cut(name, " ")
		if slices.Contains([]string{adopted, storing, stored}, name) {
			continue // the journal's own
		}
		for _, prefix := range []string{"/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/"} {
			add(method+" "+prefix+path, op.changes, func(w http.ResponseWriter, r *http.Request) {
				answer, err := s.serve(name, op, w, r)
				respond(w, answer, err)
			})
		}
	}
	a := artifacts{root: s.root, kedge: s.cfg.Artifacts, limit: maxArtifact}
	const files = "/api/2.0/mlflow-artifacts/artifacts"
	add("GET "+files, false, a.list)
	add("GET "+files+"/{path...}", false, a.get)
	add("PUT "+files+"/{path...}", true, a.put)
	add("DELETE "+files+"/{path...}", true, a.remove)
	add("GET /api/2.0/mlflow/artifacts/list", false, func(w http.ResponseWriter, r *http.Request) { a.listRun(s, w, r) })
	// Clients send the header of a workspace where a server says that it knows it.
	add("GET /api/3.0/mlflow/server-info", false, func(w http.ResponseWriter, _ *http.Request) {
		respond(w, map[string]any{"store_type": nil, "workspaces_enabled": true, "trace_archival_enabled": false, "multipart_uploads_enabled": false, "multipart_downloads_enabled": false}, nil)
	})
	for _, prefix := range []string{"/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/"} {
		add(prefix, false, func(w http.ResponseWriter, r *http.Request) {
			respond(w, nil, &Error{"ENDPOINT_NOT_FOUND", "No such endpoint: " + r.Method + " " + r.URL.Path, http.StatusNotFound})
		})
	}
	return out
}

// Handler serves the routes, and what clients ask of a server by itself.
func (s *Store) Handler(maxArtifact int64) http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.Routes(maxArtifact) {
		mux.Handle(r.Pattern, r.Handler)
	}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "OK") })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "3.17.2") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		respond(w, nil, &Error{"ENDPOINT_NOT_FOUND", "No such endpoint: " + r.Method + " " + r.URL.Path, http.StatusNotFound})
	})
	return mux
}

func (s *Store) serve(name string, op operation, w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	body, err := request(w, r)
	if err != nil {
		return nil, err
	}
	if op.catalog != nil {
		answer, err := op.catalog(r.Context(), s.catalog, body)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	}
	if op.history {
		answer, err := s.historyOf(r.Context(), body)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	}
	c := change{Op: name, At: time.Now().UnixMilli(), Body: body}
	if !op.changes {
		return s.look(op, &c)
	}
	var fresh [16]byte
	rand.Read(fresh[:])
	return s.do(c, hex.EncodeToString(fresh[:]))
}

// request returns body, query and path as one JSON object.
func request(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, invalid("read request: %v", err)
	}
	id := r.PathValue("model_id")
	if len(body) > 0 && id == "" && r.URL.RawQuery == "" {
		return body, nil
	}
	fields := make(map[string]json.RawMessage)
	if len(body) > 0 {
		if err := json.Unmarshal(body, &fields); err != nil {
			return nil, invalid("request is no JSON object: %v", err)
		}
	}
	for key, values := range r.URL.Query() {
		if len(values) == 1 {
			fields[key], err = json.Marshal(values[0])
		} else {
			fields[key], err = json.Marshal(values)
		}
		if err != nil {
			return nil, invalid("%s: %v", key, err)
		}
	}
	if id != "" {
		fields["model_id"], _ = json.Marshal(id) // a string always has its JSON
	}
	return json.Marshal(fields)
}

// respond writes an answer, or MLflow's error.
func respond(w http.ResponseWriter, answer any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		text, encodeErr := json.Marshal(answer)
		if encodeErr == nil {
			w.Write(text)
			return
		}
		err = encodeErr
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{"INTERNAL_ERROR", err.Error(), http.StatusInternalServerError}
	}
	w.WriteHeader(e.status)
	json.NewEncoder(w).Encode(e)
}
