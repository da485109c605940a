#!/bin/sh
# Puts the linter of compose files into .deps/dclint, pinned by the lock file
# beside this script. Another folder may be named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/../../.deps/dclint}
mkdir -p "$to"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$to/"
cd "$to" && npm ci --silent --ignore-scripts
