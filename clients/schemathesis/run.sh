#!/usr/bin/env bash
# schemathesis makes requests of every kind from the whole OpenAPI document, under
# TLS with a key: none may end in a 5xx or in a status that the document does not
# have, and every route of inference has to have answered 2xx at least once.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CLOSED=1
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
some() { # REGEX EXAMPLES: of what it can write, which is no JSON lines, protobuf or tar
  .deps/python/schemathesis/bin/schemathesis run "$SERVER/openapi.json" --header "Authorization: Bearer $TOKEN" --tls-verify "$CA" --include-path-regex "$1" --max-examples "$2" \
    --exclude-path-regex '(unload|bundle|/events|/v1/backup)$' --checks not_a_server_error,status_code_conformance --phases examples,fuzzing --seed 1 --workers 1 --no-color
}
INFERENCE='^/v[12]/(models|predict|outcome|health|repository|rollouts)|^/v2$'
some "$INFERENCE" "${EXAMPLES:-18}"
some "^(?!.*(?:$INFERENCE))" "${OTHERS:-5}"
KEDGE_KEY=$(cat "$DATA/admin.key") python3 clients/schemathesis/answered.py "$SERVER"
