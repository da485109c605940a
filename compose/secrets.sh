#!/bin/sh
# Makes the secrets that compose.yaml mounts, once, readable to the containers.
set -eu
cd "$(dirname "$0")/secrets"
new() { [ -e "$1" ] || { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1"; chmod 0644 "$1"; }; }
new grafana_password
new clickhouse_password
[ -e clickhouse_url ] || { printf 'http://kedge:%s@clickhouse:8123/kedge' "$(cat clickhouse_password)" >clickhouse_url; chmod 0644 clickhouse_url; }
