# Starts bin/kedge on free loopback ports with an empty data directory, for one
# suite of clients; sourced by the run.sh of each. Sets SERVER and KAFKA, and
# stops the server and removes its data when the suite ends.
# Arguments that a suite wants to add stand in KEDGE_ARGS.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
DATA=$(mktemp -d)
KAFKA="127.0.0.1:$(free_port)"
SERVER="http://127.0.0.1:$(free_port)"
# shellcheck disable=SC2086 # several arguments on purpose
bin/kedge run --data-dir "$DATA" --http "${SERVER#http://}" --kafka "$KAFKA" ${KEDGE_ARGS:-} >"$DATA/log" 2>&1 &
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
