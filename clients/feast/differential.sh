#!/usr/bin/env bash
# Feast's own server beside a running kedge, asked the same (see
# differential.py). It takes half a minute to start, so that `make clients` does
# without it. Arguments: a seed and how many requests.
set -euo pipefail
cd "$(dirname "$0")/../.."
FEAST=$PWD/.deps/python/feast/bin
export FEAST_USAGE=False KEDGE_NAMESPACE=demo
source clients/serve.sh
REPO="$DATA/twin"
cp -r clients/feast/twin "$REPO"
(cd "$REPO" && "$FEAST/feast" apply >/dev/null)
bin/kedge import feast "$REPO" >"$DATA/twin.yaml" 2>/dev/null
cat >>"$DATA/twin.yaml" <<'END'
---
kind: OnDemandView
name: odfv
spec:
  request: [{name: amount, type: Float64}]
  features: [{name: scaled, type: Float64, expr: "wide.f64 * amount"}]
END
bin/kedge --server "$SERVER" apply -f "$DATA/twin.yaml" >/dev/null
PORT=$(free_port)
(cd "$REPO" && exec "$FEAST/feast" serve -h 127.0.0.1 -p "$PORT") >"$DATA/feast.log" 2>&1 &
FEAST_PID=$!
stop_both() {
  status=$?
  kill "$FEAST_PID" 2>/dev/null || true
  (exit "$status") || true
  stop_kedge
}
trap stop_both EXIT
for _ in $(seq 600); do
  curl -fs "http://127.0.0.1:$PORT/health" >/dev/null 2>&1 && break
  kill -0 "$FEAST_PID" || { cat "$DATA/feast.log"; exit 1; }
  sleep 0.2
done
"$FEAST/python" clients/feast/differential.py "$SERVER" "http://127.0.0.1:$PORT" "${1:-1}" "${2:-500}"
