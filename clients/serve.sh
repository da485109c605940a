# Starts bin/kedge on free loopback ports with an empty data directory, for one
# suite of clients; sourced by the run.sh of each. Sets SERVER and KAFKA, and
# stops the server and removes its data when the suite ends.
# Arguments that a suite wants to add stand in KEDGE_ARGS.
# With CLOSED=1 it speaks TLS and asks for a key, in a namespace of its own
# (KEDGE_NAMESPACE, or "team"): TOKEN is a key for whoever works there, CA the
# certificate to trust; kedge, curl, requests and httpx find both by themselves.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
DATA=$(mktemp -d)
KAFKA="127.0.0.1:$(free_port)"
SERVER="http://127.0.0.1:$(free_port)"
TOKEN="" CA=""
if [ "${CLOSED:-}" = 1 ]; then
  SERVER="https://${SERVER#http://}" CA="$DATA/tls.pem"
  .deps/python/mlflow/bin/python clients/certificate.py "$CA" "$DATA/tls.key"
  export KEDGE_NAMESPACE="${KEDGE_NAMESPACE:-team}" KEDGE_AUTH_ENABLED=true KEDGE_HTTP_TLS_CERT_FILE="$CA" KEDGE_HTTP_TLS_KEY_FILE="$DATA/tls.key"
  export KEDGE_CA="$CA" CURL_CA_BUNDLE="$CA" REQUESTS_CA_BUNDLE="$CA" SSL_CERT_FILE="$CA"
fi
# shellcheck disable=SC2086 # several arguments on purpose
bin/kedge run --data-dir "$DATA" --http "${SERVER#*://}" --kafka "$KAFKA" ${KEDGE_ARGS:-} >"$DATA/log" 2>&1 &
KEDGE_PID=$!
stop_kedge() {
  status=$?
  kill "$KEDGE_PID" 2>/dev/null || true
  wait "$KEDGE_PID" 2>/dev/null || true
  [ "$status" = 0 ] || tail -50 "$DATA/log" >&2
  rm -rf "$DATA"
  exit "$status"
}
trap stop_kedge EXIT
for _ in $(seq 300); do
  curl -fs "$SERVER/readyz" >/dev/null 2>&1 && break
  kill -0 "$KEDGE_PID" || exit 1
  sleep 0.1
done
curl -fs "$SERVER/readyz" >/dev/null
if [ "${CLOSED:-}" = 1 ]; then
  [ "$(curl -s -o /dev/null -w '%{http_code}' "$SERVER/v1/status")" = 401 ]
  TOKEN=$(KEDGE_KEY="file:$DATA/admin.key" bin/kedge --server "$SERVER" keys create --for suite --grant "$KEDGE_NAMESPACE:scientist,producer,operator" --expires 1d 2>/dev/null)
  export KEDGE_KEY="$TOKEN" TOKEN CA
fi
# A key that is at home in another namespace, for clients that say which they mean.
away_key() { KEDGE_KEY="file:$DATA/admin.key" bin/kedge --server "$SERVER" keys create --for away --grant aside:viewer --grant "$KEDGE_NAMESPACE:scientist,producer,operator" --expires 1d 2>/dev/null; }
