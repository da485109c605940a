"""Wants at least one 2xx of every inference route, by the server's own metrics.

usage: answered.py URL, with an administrator's key in KEDGE_KEY
"""
import json
import os
import re
import sys
import urllib.request

url = sys.argv[1]


def get(path):
    request = urllib.request.Request(url + path, headers={"Authorization": "Bearer " + os.environ["KEDGE_KEY"]})
    return urllib.request.urlopen(request).read().decode()


answered, failed = set(), []
for line in get("/metrics").splitlines():
    m = re.match(r"http_server_request_duration_seconds_count\{(.*)\} ([0-9.e+]+)$", line)
    if m:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', m.group(1)))
        if labels["http_response_status_code"].startswith("2"):
            answered.add(labels["http_route"])
        if labels["http_response_status_code"].startswith("5") and labels["http_response_status_code"] != "503":
            failed.append(line)
routes = [f"{method.upper()} {path}" for path, ops in json.loads(get("/openapi.json"))["paths"].items() for method, op in ops.items() if "inference" in op.get("tags", [])]
silent = [r for r in routes if r not in answered and not r.endswith("unload")]
print(f"{len(routes)} inference routes, {len(routes) - len(silent)} answered 2xx or are left out")
for r in silent:
    print("FAIL  no 2xx:", r)
for line in failed:
    print("FAIL ", line)
sys.exit(bool(silent or failed or len(routes) < 20))
