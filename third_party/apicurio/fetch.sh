#!/bin/sh
# Puts Apicurio Registry, which speaks Confluent's HTTP interface, into
# .deps/apicurio: Maven fetches its archive, the sum below pins it. Does nothing when
# it is there. Another folder than .deps/apicurio may be named.
set -eu
version=2.6.13.Final
sum=3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-$here/../../.deps/apicurio}
if [ -e "$into/$sum" ]; then exit 0; fi
rm -rf "$into" && mkdir -p "$into"
mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" \
	-DoutputDirectory="$(cd "$into" && pwd)"
archive=$into/apicurio-registry-app-$version-all.tar.gz
if ! echo "$sum  $archive" | sha256sum --quiet --check; then
	echo "third_party/apicurio: the fetched archive is not the one that is pinned" >&2
	rm -rf "$into"
	exit 1
fi
tar -xzf "$archive" -C "$into"
rm "$archive"
touch "$into/$sum"
