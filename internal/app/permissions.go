package app

import (
	"net/http"
	"strings"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
	"github.com/kedge-ml/kedge/trainer/mlflow"
)

// A route that is missing here is closed to everybody, and
// TestEveryRouteDeclaresItsPermission names it. Add it beside its like.

// routePermissions is what every HTTP route takes, by the pattern that it is
// registered with.
func routePermissions() map[string]auth.Permission {
	return map[string]auth.Permission{
		// probes, the page, the API's description
		"GET /livez":            auth.Public,
		"GET /readyz":           auth.Public,
		"/":                     auth.Anyone,
		"GET /{$}":              auth.StatusRead,
		"GET /assets/":          auth.Public,
		"GET /openapi.json":     auth.Anyone,
		"GET /openapi.yaml":     auth.Anyone,
		"GET /openapi-3.0.json": auth.Anyone,
		"GET /openapi-3.0.yaml": auth.Anyone,
		"GET /v1/kinds":         auth.Anyone,
		"GET /v1/events.proto":  auth.Anyone,
		"GET /v1/whoami":        auth.Anyone,

		// operation
		"GET /v1/status":  auth.StatusRead,
		"GET /v1/topics":  auth.StatusRead,
		"GET /v1/config":  auth.ConfigRead,
		"GET /metrics":    auth.MetricsRead,
		"POST /v1/backup": auth.BackupRead,

		// keys and audit
		"GET /v1/audit/verify":      auth.AuditRead,
		"GET /v1/keys":              auth.KeyRead,
		"POST /v1/keys":             auth.KeyWrite,
		"POST /v1/keys/{id}/rotate": auth.KeyWrite,
		"DELETE /v1/keys/{id}":      auth.KeyWrite,

		// events and questions
		"POST /v1/events":              auth.EventWrite,
		"POST /v1/imports":             auth.EventWrite,
		"POST /v1/imports/{id}/events": auth.EventWrite,
		"POST /v1/query":               auth.QueryRead,
		"GET /v1/dead-letters":         auth.DeadLetterRead,
		"POST /v1/dead-letters/replay": auth.DeadLetterReplay,

		// definitions
		"GET /v1/definitions":         auth.DefinitionRead,
		"GET /v1/definitions/history": auth.DefinitionRead,
		"POST /v1/definitions":        auth.DefinitionWrite,
		"DELETE /v1/definitions":      auth.DefinitionWrite,
		"POST /v1/definitions/plan":   auth.DefinitionRead,
		"POST /v1/sources/check":      auth.SourceRead,
		"POST /v1/sources/draft":      auth.SourceRead,

		// drift
		"POST /v1/references/{name}": auth.DriftWrite,
		"POST /v1/reports":           auth.DriftWrite,
		"GET /v1/reports/{id}":       auth.QueryRead,

		// training and the registry of models
		"POST /v1/runs":                           auth.RunWrite,
		"GET /v1/runs/{id}":                       auth.RunRead,
		"POST /v1/runs/{id}/cancel":               auth.RunWrite,
		"POST /v1/runs/{id}/resume":               auth.RunWrite,
		"POST /v1/runs/{id}/verify":               auth.RunRead,
		"POST /v1/registry/models/{model}":        auth.RolloutWrite,
		"GET /v1/registry/models/{model}/bundle":  auth.RunRead,      // MLflow's clients read the same files with it
		"POST /v1/registry/models/{model}/bundle": auth.RolloutWrite, // definition:write too, where it brings definitions

		// features, as Feast's clients ask
		"/get-online-features":     auth.FeatureRead,
		"/v1/historical-features":  auth.FeatureRead,
		"/push":                    auth.EventWrite,
		"/write-to-online-store":   auth.EventWrite,
		"/materialize":             auth.FeatureWrite,
		"/materialize-incremental": auth.FeatureWrite,
		"/health":                  auth.Public,
		"POST /v1/entities/delete": auth.Erase,
		"POST /v1/erasures":        auth.Erase,

		// rollouts
		"GET /v1/rollouts/{model}":         auth.ModelRead,
		"GET /v1/rollouts/{model}/history": auth.ModelRead,
		"POST /v1/rollouts/{model}":        auth.RolloutWrite,

		// inference
		"GET /v2":                                          auth.Anyone,
		"GET /v2/health/live":                              auth.Public,
		"GET /v2/health/ready":                             auth.Public,
		"GET /v2/models/{model}":                           auth.ModelRead,
		"GET /v2/models/{model}/versions/{version}":        auth.ModelRead,
		"GET /v2/models/{model}/ready":                     auth.ModelRead,
		"GET /v2/models/{model}/versions/{version}/ready":  auth.ModelRead,
		"GET /v2/models/{model}/config":                    auth.ModelRead,
		"GET /v2/models/{model}/versions/{version}/config": auth.ModelRead,
		"GET /v2/models/{model}/stats":                     auth.ModelRead,
		"GET /v2/models/{model}/versions/{version}/stats":  auth.ModelRead,
		"GET /v2/models/stats":                             auth.ModelRead,
		"POST /v2/models/{model}/infer":                    auth.ModelInfer,
		"POST /v2/models/{model}/versions/{version}/infer": auth.ModelInfer,
		"POST /v2/repository/index":                        auth.ModelRead,
		"POST /v2/repository/models/{model}/load":          auth.ModelLoad,
		"POST /v2/repository/models/{model}/unload":        auth.ModelLoad,
		"POST /v1/predict/{model}":                         auth.ModelInfer,
		"POST /v1/outcome":                                 auth.EventWrite,
		"GET /v1/models":                                   auth.ModelRead,
		"GET /v1/models/{model}":                           auth.ModelRead,
		"GET /v1/models/{model}/versions/{version}":        auth.ModelRead,
		"POST /v1/models/{verb}":                           auth.ModelInfer,
		"POST /v1/models/{model}/versions/{verb}":          auth.ModelInfer,
	}
}

// grpcPermissions is what every RPC takes, by its full name.
func grpcPermissions() map[string]auth.Permission {
	const inference = "/inference.GRPCInferenceService/"
	return map[string]auth.Permission{
		inference + "ServerLive":            auth.Public,
		inference + "ServerReady":           auth.Public,
		inference + "ServerMetadata":        auth.Anyone,
		inference + "ModelReady":            auth.ModelRead,
		inference + "ModelMetadata":         auth.ModelRead,
		inference + "ModelInfer":            auth.ModelInfer,
		inference + "RepositoryIndex":       auth.ModelRead,
		inference + "RepositoryModelLoad":   auth.ModelLoad,
		inference + "RepositoryModelUnload": auth.ModelLoad,
		inference + "ModelStatistics":       auth.ModelRead,
		inference + "ModelConfig":           auth.ModelRead,
	}
}

// undeclared are the routes and RPCs that nobody may use, since they declare
// no permission.
func (a *App) undeclared() (out []string) {
	for _, pattern := range a.mux.Patterns() {
		if a.permissionOf(pattern) == auth.Undeclared {
			out = append(out, pattern)
		}
	}
	for _, rpc := range a.rpcs() {
		if grpcPermissions()[rpc] == auth.Undeclared {
			out = append(out, rpc)
		}
	}
	return out
}

// rpcs are the full names of what the gRPC port answers.
func (a *App) rpcs() (out []string) {
	if a.serving == nil || a.serving.grpc == nil {
		return nil
	}
	for service, info := range a.serving.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			out = append(out, "/"+service+"/"+m.Name)
		}
	}
	return out
}

// permissionOf is what a route takes. Those of training runs say themselves
// whether they write.
func (a *App) permissionOf(pattern string) auth.Permission {
	if a.runs != nil {
		for _, r := range a.runs.Routes(maxArtifact) {
			switch {
			case r.Pattern != pattern:
			case r.Changes:
				return auth.RunWrite
			default:
				return auth.RunRead
			}
		}
	}
	return routePermissions()[pattern]
}

// newMux returns a mux whose routes are guarded by what they declare, and the
// routes of training runs, which say themselves whether they write.
func (a *App) newMux() (*web.Mux, []mlflow.Route) {
	declared := routePermissions()
	var runs []mlflow.Route
	if a.runs != nil {
		runs = a.runs.Routes(maxArtifact)
	}
	for _, r := range runs {
		declared[r.Pattern] = auth.RunRead
		if r.Changes {
			declared[r.Pattern] = auth.RunWrite
		}
	}
	ownRuns := map[string]bool{}
	for _, r := range runs {
		ownRuns[r.Pattern] = true
	}
	return web.NewMux(func(pattern string, next http.Handler) http.Handler {
		need := declared[pattern]
		if ownRuns[pattern] || ofOneNamespace(need) || strings.Contains(pattern, " /v1/rollouts/") {
			next = a.atHome(next)
		}
		if holdsRows(pattern) {
			next = a.veiledFiles(next)
		}
		return a.door.Guard(need, pattern, next)
	}), runs
}

// ofOneNamespace are the permissions of the parts that a process runs for its
// own namespace alone: a served model, an MLflow record.
func ofOneNamespace(p auth.Permission) bool {
	return p == auth.ModelRead || p == auth.ModelInfer || p == auth.ModelLoad
}

// atHome closes what acts in the process's own namespace to callers that act in
// another one, whatever they may do there.
func (a *App) atHome(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.checkHome(auth.From(r.Context())); err != nil {
			web.WriteError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *App) checkHome(c auth.Caller) *web.Error {
	if c.Namespace == a.cfg.Namespace {
		return nil
	}
	return web.Errorf(http.StatusNotFound, web.CodeNotFound, "this process has no models and runs of namespace %q: ask one that runs with namespace: %s", c.Namespace, c.Namespace)
}
