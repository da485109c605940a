// Package mlflow speaks MLflow's REST protocol, so that existing training
// scripts reach Kedge by setting MLFLOW_TRACKING_URI.
//
// Holds: experiments, runs with their parameters, tags and metrics, registered
// models with versions and aliases, logged models of MLflow 3, and artefacts.
// Promises: what was answered with success is in the journal before the answer;
// a run's own reads see its writes; errors carry MLflow's codes; artefact paths
// never leave the given folder. Units: times are milliseconds since the Unix
// epoch, as in MLflow. May not: judge models.
package mlflow
