package mlflow

import (
	"context"
	"encoding/json"
)

// operation is one endpoint. Those that change something are journalled; their
// answer must not depend on anything but the store and the change. Those of
// the catalogue are neither: the registry of models keeps them.
type operation struct {
	changes bool
	history bool // of a metric, which ClickHouse has
	run     func(s *Store, c *change) (any, error)
	catalog func(ctx context.Context, c *catalog, body json.RawMessage) (any, error)
}

// on decodes an operation's request.
func on[T any](run func(s *Store, c *change, req *T) (any, error)) func(*Store, *change) (any, error) {
	return func(s *Store, c *change) (any, error) {
		req := new(T)
		if len(c.Body) > 0 {
			if err := json.Unmarshal(c.Body, req); err != nil {
				return nil, invalid("request: %v", err)
			}
		}
		return run(s, c, req)
	}
}

func mutation[T any](run func(s *Store, c *change, req *T) (any, error)) operation {
	return operation{changes: true, run: on(run)}
}

func question[T any](run func(s *Store, c *change, req *T) (any, error)) operation {
	return operation{run: on(run)}
}

// operations are all endpoints below /api/2.0/mlflow/, by method and path.
func operations() map[string]operation {
	return map[string]operation{
		"POST experiments/create":             mutation(createExperiment),
		"POST experiments/update":             mutation(updateExperiment),
		"POST experiments/delete":             mutation(deleteExperiment),
		"POST experiments/restore":            mutation(restoreExperiment),
		"POST experiments/set-experiment-tag": mutation(tagExperiment),
		"GET experiments/get":                 question(getExperiment),
		"GET experiments/get-by-name":         question(getExperimentByName),
		"GET experiments/search":              question(searchExperiments),
		"POST experiments/search":             question(searchExperiments),

		"POST runs/create":        mutation(createRun),
		"POST runs/update":        mutation(updateRun),
		"POST runs/delete":        mutation(deleteRun),
		"POST runs/restore":       mutation(restoreRun),
		"POST runs/log-metric":    mutation(logMetric),
		"POST runs/log-parameter": mutation(logParameter),
		"POST runs/set-tag":       mutation(setTag),
		"POST runs/delete-tag":    mutation(deleteTag),
		"POST runs/log-batch":     mutation(logBatch),
		"POST runs/log-inputs":    mutation(logInputs),
		"POST runs/log-model":     mutation(logModel),
		"POST runs/outputs":       mutation(logOutputs),
		"GET runs/get":            question(getRun),
		"POST runs/search":        question(searchRuns),
		"GET metrics/get-history": {history: true},

		"POST registered-models/create":              catalogued(createModel),
		"PATCH registered-models/update":             catalogued(updateModel),
		"POST registered-models/rename":              catalogued(renameModel),
		"DELETE registered-models/delete":            catalogued(deleteModel),
		"POST registered-models/set-tag":             catalogued(tagModel),
		"DELETE registered-models/delete-tag":        catalogued(untagModel),
		"POST registered-models/alias":               catalogued(setAlias),
		"DELETE registered-models/alias":             catalogued(deleteAlias),
		"GET registered-models/alias":                asking(catalogued(getAlias)),
		"GET registered-models/get":                  asking(catalogued(getModel)),
		"GET registered-models/search":               asking(catalogued(searchModels)),
		"POST registered-models/get-latest-versions": asking(catalogued(latestVersions)),
		"GET registered-models/get-latest-versions":  asking(catalogued(latestVersions)),

		"POST model-versions/create":           catalogued(createVersion),
		"PATCH model-versions/update":          catalogued(updateVersion),
		"DELETE model-versions/delete":         catalogued(deleteVersion),
		"POST model-versions/set-tag":          catalogued(tagVersion),
		"DELETE model-versions/delete-tag":     catalogued(untagVersion),
		"POST model-versions/transition-stage": catalogued(transitionStage),
		"GET model-versions/get":               asking(catalogued(getVersion)),
		"GET model-versions/search":            asking(catalogued(searchVersions)),
		"GET model-versions/get-download-uri":  asking(catalogued(downloadURI)),

		storing: {changes: true, run: beginStoring},
		stored:  {changes: true, run: endStoring},
		adopted: {changes: true, run: func(s *Store, _ *change) (any, error) { s.old = nil; return nil, nil }},

		"POST logged-models":                   mutation(createLogged),
		"PATCH logged-models/{model_id}":       mutation(finishLogged),
		"PATCH logged-models/{model_id}/tags":  mutation(tagLogged),
		"POST logged-models/{model_id}/params": mutation(paramLogged),
		"DELETE logged-models/{model_id}":      mutation(deleteLogged),
		"GET logged-models/{model_id}":         question(getLogged),
		"POST logged-models/search":            question(searchLogged),
	}
}
