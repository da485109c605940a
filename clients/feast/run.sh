#!/usr/bin/env bash
# Feast's own client, unmodified, against a running kedge.
set -euo pipefail
cd "$(dirname "$0")/../.."
VENV=.deps/python/feast
if [ ! -e "$VENV.stamp" ] || [ third_party/python/feast/requirements.txt -nt "$VENV.stamp" ]; then
  python3 -m venv --clear "$VENV"
  "$VENV/bin/pip" install --quiet --require-hashes --no-deps -r third_party/python/feast/requirements.txt
  touch "$VENV.stamp"
fi
# The files of Feast's examples use the project "demo": Kedge's namespace.
export KEDGE_NAMESPACE=demo
source clients/serve.sh
bin/kedge --server "$SERVER" apply -f clients/feast/definitions.yaml
at() { date -u -d "$1" +%Y-%m-%dT%H:%M:%SZ; }
values='"f64":0.1,"i64":9007199254740993,"li":[1,2],"s":"a","b":true,"f32":0.5,"whole":7.0'
bin/kedge --server "$SERVER" send - <<END
{"view":"drv_fv","key":{"driver_id":1001},"event_time":"$(at '5 minutes ago')","values":{$values}}
{"view":"drv_fv","key":{"driver_id":1002},"event_time":"$(at '3 days ago')","values":{$values}}
{"view":"pair_fv","key":{"driver_id":1001,"customer_id":"c1"},"event_time":"$(at '400 days ago')","values":{"f64":7.0,"rating":4.5}}
END
if [ "${CLOSED:-}" = 1 ]; then # the client sends no project: its base address names the namespace
  TOKEN=$(away_key) SERVER="$SERVER/ns/demo"
fi
FEAST_USAGE=False "$VENV/bin/python" clients/feast/check.py "$SERVER"
