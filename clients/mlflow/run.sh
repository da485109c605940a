#!/usr/bin/env bash
# MLflow's own client, unmodified, against a running kedge.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
if [ "${CLOSED:-}" = 1 ]; then # the client's workspace names the namespace
  TOKEN=$(away_key)
  export MLFLOW_WORKSPACE="$KEDGE_NAMESPACE"
fi
.deps/python/mlflow/bin/python clients/mlflow/client.py "$SERVER"
# The same models are in Kedge's registry, and the runs among its own.
grep -q '^fraud *2 ' <<<"$(bin/kedge --server "$SERVER" query models --model fraud)"
for _ in $(seq 100); do
  grep -q 'succeeded *mlflow' <<<"$(bin/kedge --server "$SERVER" query runs)" && exit 0
  sleep 0.1
done
echo "no run of the client is among Kedge's" >&2
exit 1
