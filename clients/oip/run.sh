#!/usr/bin/env bash
# Other people's clients of the inference protocols, unmodified, against a
# running kedge that serves a model trained here: the conformance suite,
# tritonclient over HTTP and gRPC, open-inference-openapi, kserve.
set -euo pipefail
cd "$(dirname "$0")/../.."
GRPC="127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export KEDGE_GRPC="$GRPC" # serve.sh hands the environment on
source clients/serve.sh
python3 clients/oip/data.py >"$DATA/train.csv"
DIGEST=$(bin/kedge train "$DATA/train.csv" --name loans --label defaulted --start 2026-01-01T00:00:00Z --step 1m --backend linear --artifacts "$DATA/artifacts" | sed -n 's/.*artefact \([0-9a-f]\{64\}\).*/\1/p')
bin/kedge --server "$SERVER" apply -f - <<YAML
kind: Deployment
name: loans
spec:
  versions: [{version: "1", artifact: $DIGEST}]
  champion: "1"
YAML
for _ in $(seq 100); do
  curl -fs "$SERVER/v2/models/loans/ready" >/dev/null 2>&1 && break
  sleep 0.1
done
bin/kedge --server "$SERVER" ${TOKEN:+--key "$TOKEN"} conformance oip "$SERVER" --model loans
.deps/python/oip/bin/python clients/oip/triton.py "${SERVER#*://}" "$GRPC"
.deps/python/kserve/bin/python clients/oip/kserve_client.py "$SERVER"
