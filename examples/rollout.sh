#!/usr/bin/env bash
# A rollout that outcomes decide, against a kedge of its own on free ports: a
# worse canary is rolled back by its guard-rail, a better one is promoted.
#   examples/rollout.sh [FOLDER with elec.csv and employment_MA_*.pq]
# Without the folder the rows are the demo stream's rides.
set -euo pipefail
REAL=$(realpath -m "${1:-none}")
cd "$(dirname "$0")/.."
source clients/serve.sh

rehearse() { # MODEL [FILE and flags]
  model=$1
  shift
  echo "== $model"
  bin/kedge --server "$SERVER" rollout rehearse "$@" --model "$model" --artifacts "$DATA/artifacts"
  echo
  bin/kedge --server "$SERVER" query rollouts --model "$model" --from 1h
  bin/kedge --server "$SERVER" rollout status "$model"
  echo
}

if [ -e "$REAL/elec.csv" ]; then
  rehearse elec "$REAL/elec.csv" --label class --less nswprice,vicprice
fi
if [ -e "$REAL/employment_MA_analysis_target.pq" ]; then
  rehearse employment "$REAL/employment_MA_reference.pq" --then "$REAL/employment_MA_analysis.pq" --truth "$REAL/employment_MA_analysis_target.pq" \
    --label employed --drop id,year,prediction,predicted_probability --less AGEP,SCHL,RELP,MAR,ESP,DIS,MIL \
    --categories SCHL,MAR,RELP,DIS,ESP,CIT,MIG,MIL,ANC,NATIVITY,DEAR,DEYE,DREM,SEX,RAC1P
fi
if [ ! -e "$REAL/elec.csv" ]; then
  rehearse rides
fi
