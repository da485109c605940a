#!/usr/bin/env bash
# Makes a data directory of this build for TestUpgrade, as NAME.tar.gz beside
# this file: make.sh bin/kedge NAME. Each release adds one; none is made anew.
set -euo pipefail
kedge=$(realpath "$1") here=$(realpath "$(dirname "$0")") name=$2
work=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
http="127.0.0.1:$(free_port)"
"$kedge" run --config "$here/kedge.yaml" --data-dir "$work/data" --http "$http" --kafka "127.0.0.1:$(free_port)" 2>"$work/log" &
pid=$!
for _ in $(seq 300); do curl -fs "http://$http/readyz" >/dev/null && break; sleep 0.2; done
"$kedge" --server "http://$http" apply -f "$here/definitions.yaml"
python3 - >"$work/events.jsonl" <<'END'
for i in range(100):
    print('{"view":"user","key":{"user_id":%d},"event_time":"2026-11-01T10:%02d:00Z","values":{"spend":%d.5,"country":"IT"}}' % (i, i % 60, i))
    print('{"model":"churn","version":"3","id":"p-%d","event_time":"2026-11-01T10:%02d:00Z","inputs":{"spend":%d.5},"output":{"score":0.25}}' % (i, i % 60, i))
    print('{"model":"churn","prediction_id":"p-%d","event_time":"2026-11-02T10:%02d:00Z","label":%d}' % (i, i % 60, i % 2))
print('{"view":"user","key":{"user_id":"seven"},"event_time":"2026-11-01T10:00:00Z","values":{"spend":1}}')
END
"$kedge" --server "http://$http" send "$work/events.jsonl"
printf 'id,at,amount\n1,2025-01-01T00:00:00Z,1.5\n2,2025-01-02T00:00:00Z,2.5\n' >"$work/past.csv"
"$kedge" --server "http://$http" import "$work/past.csv" --map "$here/past.yaml" --known-at event_time
until "$kedge" --server "http://$http" query rows --model churn --limit 1000 --from 2026-11-01 --to 2026-11-03 -o csv | grep -q p-99; do sleep 1; done
sleep 5 # for what the parts write of themselves
kill "$pid" && wait "$pid" || true
tar czf "$here/$name.tar.gz" -C "$work/data" --exclude LOCK --exclude engine.lock .
