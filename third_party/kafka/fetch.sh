#!/bin/sh
# Puts the jars of the test broker into .deps/kafka/libs: Maven resolves them by
# pom.xml, SHA256SUMS pins every one. Does nothing when they are there. Another
# folder than .deps/kafka may be named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
libs=${1:-$here/../../.deps/kafka}/libs
complete() { [ -d "$libs" ] && [ "$(ls "$libs" | wc -l)" -eq "$(wc -l <"$here/SHA256SUMS")" ] && (cd "$libs" && sha256sum --quiet --check "$here/SHA256SUMS"); }
if complete >/dev/null 2>&1; then exit 0; fi
rm -rf "$libs" && mkdir -p "$libs"
mvn -B -q -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
	-DincludeScope=runtime -DoutputDirectory="$(cd "$libs" && pwd)"
if ! complete; then
	echo "third_party/kafka: the fetched jars are not those of SHA256SUMS" >&2
	rm -rf "$libs"
	exit 1
fi
