#!/usr/bin/env bash
# MLflow's own client, unmodified, against a running kedge.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
.deps/python/mlflow/bin/python clients/mlflow/client.py "$SERVER"
# The same models are in Kedge's registry, and the runs among its own.
bin/kedge --server "$SERVER" query models --model fraud | grep -q '^fraud *2 '
for _ in $(seq 100); do
  bin/kedge --server "$SERVER" query runs | grep -q 'succeeded *mlflow' && exit 0
  sleep 0.1
done
echo "no run of the client is among Kedge's" >&2
exit 1
