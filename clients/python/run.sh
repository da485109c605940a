#!/usr/bin/env bash
# The Python package, as a user installs it, against a running kedge.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
PYTHONPATH=python KEDGE_SERVER="$SERVER" python3 -m unittest discover -s python/tests -v
PYTHONPATH=python KEDGE_SERVER="$SERVER" .deps/python/mlflow/bin/python python/tests/fastapi_recorder.py
