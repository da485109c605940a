#!/usr/bin/env bash
# MLflow's own client, unmodified, against a running kedge.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
.deps/python/mlflow/bin/python clients/mlflow/client.py "$SERVER"
