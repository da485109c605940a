#!/usr/bin/env bash
# The census files through a running kedge, beside NannyML's own run on the same
# files: drift, expected and realised ROC AUC chunk by chunk. REAL names the folder.
set -euo pipefail
REAL=$(cd "$(dirname "$0")/../.." && cd "${REAL:-../shared/data}" 2>/dev/null && pwd) || true
cd "$(dirname "$0")/../.."
if [ ! -e "${REAL:-}/employment_MA_reference.pq" ]; then
  echo "skipped: no employment files in REAL"
  exit 0
fi
source clients/serve.sh
kedge() { bin/kedge --server "$SERVER" "$@"; }
.deps/python/nannyml/bin/python clients/nannyml/golden.py "$REAL" few >"$DATA/said.json" 2>"$DATA/said.log" &
NANNYML=$!
# Watching begins when all rows are there: chunks are compared, not how they came.
{ cat clients/nannyml/monitor.yaml; echo "  off: true"; } | kedge apply -f -
kedge import "$REAL/employment_MA_reference.pq" --map clients/nannyml/reference.yaml --known-at event_time --quiet
kedge apply -f clients/nannyml/monitor.yaml
kedge import "$REAL/employment_MA_analysis_target.pq" --map clients/nannyml/truth.yaml --known-at event_time --quiet
kedge import "$REAL/employment_MA_analysis.pq" --map clients/nannyml/analysis.yaml --known-at event_time --quiet
wait "$NANNYML" || { cat "$DATA/said.log" >&2; exit 1; }
python3 clients/nannyml/check.py "$SERVER" "$DATA/said.json"
