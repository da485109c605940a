#!/usr/bin/env bash
# Looks over the supply chain and the code: vet, staticcheck, gosec, secrets in the
# history, licences, a bill of materials (CycloneDX), what is out of date, and
# known vulnerabilities where the database can be reached. Tools are pinned in
# internal/tools/*.mod. usage: audit.sh FOLDER, where the reports land.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${1:?usage: audit.sh FOLDER}
mkdir -p "$OUT"
GO=${GO:-go}
failed=0
tool() { "$GO" tool -modfile=internal/tools/audit.mod "$@"; }
step() { # NAME COMMAND…: its output is a file of the folder
  local name=$1
  shift
  if "$@" >"$OUT/$name.txt" 2>&1; then
    echo "ok    $name"
  else
    echo "FAIL  $name: see $OUT/$name.txt"
    tail -n 20 "$OUT/$name.txt"
    failed=1
  fi
}
security() { # gosec; what it may find, and why, is gosec.txt
  rm -f "$OUT/gosec.json" # an older one would speak for a gosec that did not run
  "$GO" tool -modfile=internal/tools/gosec.mod gosec -quiet -fmt json -out "$OUT/gosec.json" -exclude G104,G115 -exclude-dir node_modules ./... # ends with 1 where it finds anything
  python3 - "$OUT/gosec.json" internal/tools/gosec.txt <<'PY'
import fnmatch, json, os, sys
report = json.load(open(sys.argv[1]))
allowed = {}
for line in open(sys.argv[2]):
    if line.strip() and not line.startswith("#"):
        names, _, why = line.partition(": ")
        if not why.strip():
            sys.exit(f"{sys.argv[2]}: no reason: {line}")
        allowed[tuple(names.split())] = 0
bad = []
for i in report["Issues"]:
    file = os.path.relpath(i["file"])
    lines = [a for a in allowed if a[0] == i["rule_id"] and fnmatch.fnmatchcase(file, a[1])]
    for a in lines:
        allowed[a] += 1
    if not lines:
        bad.append(f"{i['rule_id']} {file}:{i['line']}: {i['details']}")
bad += [f"{rule} {files} finds nothing any more: take it out of {sys.argv[2]}" for (rule, files), n in allowed.items() if n == 0]
bad += [f"not looked at: {file or 'a package'}: {e['error']}" for file, es in (report.get("Golang errors") or {}).items() for e in es]
if report["Stats"]["files"] < 100:
    bad.append(f"only {report['Stats']['files']} files were looked at")
print("\n".join(bad))
print(f"{report['Stats']['files']} files, {len(report['Issues'])} findings, each with its reason" if not bad else f"{len(bad)} that nothing explains")
sys.exit(bool(bad))
PY
}
licences() { # no module without one, none whose terms reach the program that uses it
  python3 - "$OUT/sbom.json" <<'PY'
import collections, json, sys
parts = json.load(open(sys.argv[1]))["components"]
by = collections.defaultdict(list)
for c in parts:
    names = [l.get("license", {}).get("id") or l.get("license", {}).get("name") or l.get("expression") for l in c.get("evidence", {}).get("licenses", []) + c.get("licenses", [])]
    by[" or ".join(sorted({n for n in names if n})) or "unknown"].append(c["name"] + " " + c.get("version", ""))
for licence in sorted(by):
    print(f"{licence}: {len(by[licence])}")
    for c in sorted(by[licence]):
        print("  " + c)
bad = [l for l in by if any(w in l for w in ("AGPL", "GPL", "SSPL", "BUSL")) and "LGPL" not in l]
print(f"{len(parts)} modules; unknown: {len(by['unknown'])}; whose terms reach their users: {bad or 'none'}")
sys.exit(bool(bad))
PY
}
fresh() { # says what is newer, fails for nothing
  local direct
  direct=$("$GO" list -m -f '{{if and (not .Indirect) (not .Main)}}{{.Path}}{{end}}' all)
  # shellcheck disable=SC2086 # several modules on purpose
  "$GO" list -m -e -u -f '{{if .Update}}{{.Path}} {{.Version}} -> {{.Update.Version}}{{end}}' $direct | { grep . || echo "every module that is named in go.mod is the newest"; }
}
vulnerable() {
  tool govulncheck -mode=binary bin/kedge
  case $? in
    0) echo "none that the program has" ;;
    3) return 1 ;;
    *) echo "NOT CHECKED: the database of vulnerabilities cannot be reached, or govulncheck failed" ;;
  esac
}
step vet "$GO" vet ./...
step staticcheck "$GO" tool -modfile=internal/tools/go.mod staticcheck ./...
step gosec security
step gitleaks tool gitleaks git --no-banner --redact --config internal/tools/gitleaks.toml .
step sbom tool cyclonedx-gomod bin -json -licenses -version "$(git describe --tags --always)" -output "$OUT/sbom.json" bin/kedge # what is in the program
step licences licences
step freshness fresh
step vulnerabilities vulnerable
tail -q -n 1 "$OUT/gosec.txt" "$OUT/licences.txt" "$OUT/vulnerabilities.txt"
exit "$failed"
