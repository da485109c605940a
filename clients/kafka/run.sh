#!/usr/bin/env bash
# librdkafka, of which kcat and most clients that are not Java's are made, against
# a running kedge: it produces events, reads them back and finds them stored;
# CLOSED=1 does it under TLS with a key, in a namespace of its own, and knocks
# with what must not open.
set -euo pipefail
cd "$(dirname "$0")/../.."
source clients/serve.sh
NAMESPACE="${KEDGE_NAMESPACE:-default}"
OTHER=""
if [ -n "$TOKEN" ]; then
  OTHER=$(KEDGE_KEY="file:$DATA/admin.key" bin/kedge --server "$SERVER" keys create --for elsewhere --grant aside:producer,operator --expires 1d 2>/dev/null)
fi
OTHER="$OTHER" "${KAFKA_PYTHON:-.deps/python/kafka/bin/python}" clients/kafka/client.py "$KAFKA" "$NAMESPACE"
for _ in $(seq 300); do
  ROWS=$(curl -fs -H 'Content-Type: application/json' ${TOKEN:+-H "Authorization: Bearer $TOKEN"} -d '{"kind":"rows","view":"ride"}' "$SERVER/v1/query")
  case "$ROWS" in *ride-19*) break ;; esac
  sleep 0.1
done
case "$ROWS" in
  *ride-19*) echo "ok: what librdkafka produced is stored" ;;
  *) echo "FAILED: what librdkafka produced is not stored: $ROWS" && exit 1 ;;
esac
