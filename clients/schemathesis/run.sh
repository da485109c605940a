#!/usr/bin/env bash
# schemathesis makes requests of every kind from the OpenAPI document: none may
# end in a 5xx, and every route has to have answered 2xx at least once.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
python3 clients/oip/data.py >"$DATA/train.csv"
DIGEST=$(bin/kedge train "$DATA/train.csv" --name elec --label defaulted --start 2026-01-01T00:00:00Z --step 1m --backend linear --artifacts "$DATA/artifacts" | sed -n 's/.*artefact \([0-9a-f]\{64\}\).*/\1/p')
bin/kedge --server "$SERVER" apply -f - <<YAML
kind: Deployment
name: elec
spec:
  versions: [{version: "1", artifact: $DIGEST}]
  champion: "1"
YAML
.deps/python/schemathesis/bin/schemathesis run "$SERVER/openapi.json" --include-path-regex '^/v[12]/(models|predict|outcome|health|repository|rollouts)|^/v2$' \
  --exclude-path-regex 'unload$' --checks not_a_server_error --max-examples "${EXAMPLES:-25}" --phases examples,fuzzing --seed 1 --workers 1 --no-color
python3 clients/schemathesis/answered.py "$SERVER"
