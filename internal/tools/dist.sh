#!/usr/bin/env bash
# dist.sh BINARY ENGINE_DIR OUT: one archive that runs on a bare Linux machine.
set -euo pipefail
binary=$1 engine=$2 out=$3
name=kedge-$("$binary" version --short)-$(go env GOOS)-$(go env GOARCH)
rm -rf "${out:?}/$name"
mkdir -p "$out/$name/bin" "$out/$name/lib"
cp "$binary" "$out/$name/bin/kedge"
cp "$engine"/node_modules/@chdb/lib-*/libchdb.so "$out/$name/lib/"
cp LICENSE README.md CHANGELOG.md internal/tools/kedge.service "$out/$name/"
(cd "$out/$name" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner -czf "$out/$name.tar.gz" "$name"
rm -rf "${out:?}/$name"
echo "$out/$name.tar.gz"
