package mlflow

import "encoding/json"

// operation is one endpoint. Those that change something are journalled; their
// answer must not depend on anything but the store and the change.
type operation struct {
	changes bool
	run     func(s *Store, c *change) (any, error)
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
		"GET metrics/get-history": question(metricHistory),

		"POST registered-models/create":              mutation(createModel),
		"PATCH registered-models/update":             mutation(updateModel),
		"POST registered-models/rename":              mutation(renameModel),
		"DELETE registered-models/delete":            mutation(deleteModel),
		"POST registered-models/set-tag":             mutation(tagModel),
		"POST registered-models/alias":               mutation(setAlias),
		"DELETE registered-models/alias":             mutation(deleteAlias),
		"GET registered-models/alias":                question(getAlias),
		"GET registered-models/get":                  question(getModel),
		"GET registered-models/search":               question(searchModels),
		"POST registered-models/get-latest-versions": question(latestVersions),
		"GET registered-models/get-latest-versions":  question(latestVersions),

		"POST model-versions/create":           mutation(createVersion),
		"PATCH model-versions/update":          mutation(updateVersion),
		"DELETE model-versions/delete":         mutation(deleteVersion),
		"POST model-versions/set-tag":          mutation(tagVersion),
		"POST model-versions/transition-stage": mutation(transitionStage),
		"GET model-versions/get":               question(getVersion),
		"GET model-versions/search":            question(searchVersions),
		"GET model-versions/get-download-uri":  question(downloadURI),

		"POST logged-models":                   mutation(createLogged),
		"PATCH logged-models/{model_id}":       mutation(finishLogged),
		"PATCH logged-models/{model_id}/tags":  mutation(tagLogged),
		"POST logged-models/{model_id}/params": mutation(paramLogged),
		"DELETE logged-models/{model_id}":      mutation(deleteLogged),
		"GET logged-models/{model_id}":         question(getLogged),
		"POST logged-models/search":            question(searchLogged),
	}
}
