#!/bin/sh
# Fetches pinned Python packages into .deps/python/NAME, one folder per
# requirements.txt beside this script. Every file must match its hash.
#
#   third_party/python/fetch.sh            everything
#   third_party/python/fetch.sh xgboost    only the training library
#
# "xgboost" is unpacked without its Python dependencies: Kedge opens its shared
# library itself. The others become virtual environments that only tests use.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
deps=$(cd "$here/../.." && pwd)/.deps/python
mkdir -p "$deps"

fetch() {
	name=$1 lock=$here/$1/requirements.txt done=$deps/$1/.lock
	[ -f "$lock" ] || { echo "fetch.sh: no $lock" >&2; exit 1; }
	if cmp -s "$lock" "$done"; then
		return
	fi
	echo "fetching $name into .deps/python/$name"
	rm -rf "${deps:?}/$name"
	if [ "$name" = xgboost ]; then
		python3 -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
			--only-binary :all: --target "$deps/$name" -r "$lock"
	else
		python3 -m venv "$deps/$name"
		"$deps/$name/bin/python" -m pip install --quiet --disable-pip-version-check \
			--require-hashes --only-binary :all: -r "$lock"
	fi
	cp "$lock" "$done" # written last: a broken fetch starts anew
}

if [ $# -eq 0 ]; then
	for lock in "$here"/*/requirements.txt; do
		set -- "$@" "$(basename "$(dirname "$lock")")"
	done
fi
for name; do fetch "$name"; done
