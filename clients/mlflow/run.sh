#!/bin/sh
# Drives Kedge's MLflow endpoints with the ordinary MLflow client: against the
# server at KEDGE_URL where it is set, else against one that a test starts.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -n "${KEDGE_URL:-}" ]; then
	exec "$root/.deps/python/mlflow/bin/python" "$root/clients/mlflow/client.py" "$KEDGE_URL"
fi
cd "$root"
exec go test -count=1 -v -run '^TestMLflowClient$' ./trainer/mlflow
