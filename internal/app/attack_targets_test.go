package app

import (
	"fmt"
	"slices"

	"github.com/kedge-ml/kedge/query"
)

const asJSON = "application/json"

// queryTargets asks every kind with all that it reads.
func queryTargets() (out []target) {
	for _, k := range query.Kinds() {
		subject := `"view":"vault"`
		if k.Subject == query.ModelOnly {
			subject = `"model":"oracle"`
		}
		body := fmt.Sprintf(`{"kind":%q,%s`, k.Name, subject)
		for member, text := range map[string]string{
			"columns": `["n"]`, "version": `"1"`, "detector": `"psi"`, "group_by": `["why"]`, "segment": `{"why":"x"}`, "filter": `{"text":"vault"}`, "params": `{"alpha":"x"}`,
		} {
			if slices.Contains(k.Reads, member) {
				body += fmt.Sprintf(`,%q:%s`, member, text)
			}
		}
		out = append(out, target{"POST", "/v1/query", asJSON, body + "}"})
	}
	return out
}

func definitionTargets() (out []target) {
	for _, body := range []string{
		`{"kind":"FeatureView","name":"inj_view","why":"w","spec":{"origin":"declared","online":true,"owner":"o","description":"d","keys":[{"name":"id","type":"String"}],"columns":[{"name":"c","type":"String"}]}}`,
		`{"kind":"WindowView","name":"inj_window","spec":{"source":"vault","features":[{"name":"n_1h","function":"sum","column":"n","window":"1h"}]}}`,
		`{"kind":"OnDemandView","name":"inj_demand","spec":{"request":[{"name":"a","type":"Float64"}],"features":[{"name":"f","type":"Float64","expr":"a + len(\"§\")"}]}}`,
		`{"kind":"OnDemandView","name":"inj_code","spec":{"features":[{"name":"f","type":"Float64","expr":"§"}]}}`,
		`{"kind":"FeatureService","name":"inj_service","spec":{"features":["vault:n"]}}`,
		`{"kind":"Monitor","name":"inj_monitor","spec":{"view":"vault","columns":["n"]}}`,
		`{"kind":"TrainingJob","name":"inj_job","spec":{"data":{"features":["vault:n"],"labels":{"view":"vault","column":"n"},"last":"1h"},"backend":"command","command":"§","segments":["n"],"gate":{"metric":"auc","min":0.5}}}`,
		`{"kind":"Source","name":"inj_source","spec":{"topic":"§","format":{"type":"json"},"events":[]}}`,
		`{"kind":"Deployment","name":"inj_deployment","spec":{"versions":[{"version":"1","artifact":"§"}],"champion":"1"}}`,
	} {
		out = append(out, target{"POST", "/v1/definitions", asJSON, body})
	}
	return append(out,
		target{"GET", "/v1/definitions?kind=" + mark, "", ""}, target{"GET", "/v1/definitions?name=" + mark, "", ""},
		target{"GET", "/v1/definitions/history?kind=FeatureView&name=" + mark, "", ""}, target{"DELETE", "/v1/definitions?kind=FeatureView&name=" + mark, "", ""},
		target{"POST", "/v1/sources/draft", asJSON, `{"topic":"kedge.alpha.features","name":"d"}`},
		target{"POST", "/v1/sources/check", asJSON, `{"spec":{"topic":"kedge.alpha.features","format":{"type":"json"},"filter":"§","events":[{"kind":"features","view":"v","key":{"id":{"field":"view"}},"event_time":{"field":"event_time"},"values":{"x":{"expr":"§"}}}]}}`},
	)
}

func featureTargets() []target {
	return []target{
		{"POST", "/get-online-features", asJSON, `{"features":["vault:secret","vault:n"],"entities":{"id":["k1"]}}`},
		{"POST", "/get-online-features", asJSON, `{"feature_service":"s","entities":{"id":["k1"]}}`},
		{"POST", "/push", asJSON, `{"push_source_name":"vault","to":"online","df":{"id":["k1"],"n":[1],"secret":["x"],"event_timestamp":["2026-01-01T00:00:00Z"]}}`},
		{"POST", "/write-to-online-store", asJSON, `{"feature_view_name":"vault","df":{"id":["k1"],"secret":["x"],"event_timestamp":["2026-01-01T00:00:00Z"]}}`},
		{"POST", "/materialize", asJSON, `{"start_ts":"2026-01-01T00:00:00Z","end_ts":"2026-01-02T00:00:00Z","feature_views":["vault"]}`},
		{"GET", "/v1/historical-features?features=" + mark, "text/csv", ""},
		{"POST", "/v1/historical-features?features=" + mark, "text/csv", "id,event_timestamp\nk1,2100-01-01T00:00:00Z\n"},
		{"POST", "/v1/entities/delete", asJSON, `{"entity":{"nobody":"§"}}`},
	}
}

func servingTargets() []target {
	return []target{
		{"POST", "/v2/models/oracle/infer", asJSON, `{"id":"i","parameters":{"a":"b"},"inputs":[{"name":"n","shape":[1,1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"score"}]}`},
		{"POST", "/v2/models/" + mark + "/infer", asJSON, `{"inputs":[]}`}, {"GET", "/v2/models/" + mark, "", ""}, {"POST", "/v2/repository/models/" + mark + "/load", asJSON, `{}`},
		{"POST", "/v1/predict/oracle", asJSON, `{"id":"§","data":{"n":1,"m":2}}`},
		{"POST", "/v1/predict/oracle", asJSON, `{"key":{"id":"k1"},"version":"1","entity":"e"}`},
		{"POST", "/v1/outcome", asJSON, `{"model":"oracle","prediction_id":"p1","label":"yes"}`},
		{"GET", "/v1/rollouts/" + mark, "", ""}, {"POST", "/v1/rollouts/oracle", asJSON, `{"action":"promote","version":"1","why":"w"}`},
	}
}

func mlflowTargets() (out []target) {
	const v2 = "/api/2.0/mlflow/"
	for path, body := range map[string]string{
		"experiments/create":             `{"name":"inj","artifact_location":"§","tags":[{"key":"k","value":"v"}]}`,
		"experiments/search":             `{"filter":"name = '§'","order_by":["name"],"view_type":"ALL"}`,
		"runs/create":                    `{"experiment_id":"0","run_name":"r","user_id":"u","tags":[{"key":"k","value":"v"}]}`,
		"runs/search":                    `{"experiment_ids":["0"],"filter":"metrics.§ > 1 and tags.k = 'x'","order_by":["metrics.a DESC"]}`,
		"runs/log-metric":                `{"run_id":"r","key":"k","value":1}`,
		"runs/log-parameter":             `{"run_id":"r","key":"k","value":"v"}`,
		"registered-models/create":       `{"name":"inj_§","description":"d","tags":[{"key":"k","value":"v"}]}`,
		"model-versions/create":          `{"name":"oracle","source":"§","run_id":"r"}`,
		"logged-models/search":           `{"experiment_ids":["0"],"filter":"name = '§'"}`,
		"registered-models/set-tag":      `{"name":"oracle","key":"k","value":"v"}`,
		"experiments/set-experiment-tag": `{"experiment_id":"0","key":"k","value":"v"}`,
	} {
		out = append(out, target{"POST", v2 + path, asJSON, body})
	}
	return append(out, target{"GET", v2 + "experiments/get-by-name?experiment_name=" + mark, "", ""}, target{"GET", v2 + "registered-models/search?filter=" + mark, "", ""},
		target{"GET", v2 + "model-versions/search?filter=name%3D'" + mark + "'", "", ""}, target{"GET", v2 + "metrics/get-history?run_id=r&metric_key=" + mark, "", ""},
		target{"GET", v2 + "artifacts/list?path=" + mark, "", ""}, target{"GET", "/api/2.0/mlflow-artifacts/artifacts/" + mark, "", ""})
}

func otherTargets() []target {
	const lines = "application/x-ndjson"
	return []target{
		{"POST", "/v1/events", lines, `{"view":"inj_events","key":{"id":"k"},"id":"i","event_time":"2026-01-01T00:00:00Z","values":{"text":"t"}}`},
		{"POST", "/v1/events", lines, `{"model":"inj_model","version":"1","id":"p","event_time":"2026-01-01T00:00:00Z","inputs":{"text":"t"},"segments":{"s":"x"},"output":{"class":"c"}}`},
		{"POST", "/v1/events", lines, `{"model":"inj_model","prediction_id":"p","event_time":"2026-01-01T00:00:00Z","label":"l"}`},
		{"POST", "/v1/imports", asJSON, `{"id":"§","file":"f"}`},
		{"POST", "/v1/dead-letters/replay", asJSON, `{"reason":"§"}`},
		{"POST", "/v1/runs", asJSON, `{"job":"§"}`}, {"GET", "/v1/runs/" + mark, "", ""},
		{"POST", "/v1/keys", asJSON, `{"subject":"s","grants":["alpha:viewer"]}`}, {"DELETE", "/v1/keys/" + mark, "", ""},
		{"GET", "/v1/dead-letters?reason=" + mark, "", ""},
	}
}
