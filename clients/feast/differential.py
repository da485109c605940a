"""Asks Feast's own server and Kedge the same and compares what they answer.

usage: differential.py KEDGE FEAST SEED COUNT

Both have the repository in twin/, and are empty at first. Requests are drawn:
reads, pushes, writes, right and wrong. What may differ is what docs/feast.md
lists; `excuse` names the line. Anything else ends the run with 1.
"""

import json
import random
import sys
import urllib.error
import urllib.request
from collections import Counter
from datetime import datetime, timedelta, timezone

KEDGE, FEAST, SEED, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rnd = random.Random(SEED)
BASE = 1000 * (SEED + 1)  # keys that no other run has
NOW = datetime.now(timezone.utc).replace(microsecond=0)
WIDE = ["i32", "i64", "f32", "f64", "s", "b", "ts", "li", "ls", "lf", "lb", "by"]
PAIR = ["f64", "rating", "n"]


def ask(base, method, path, body):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def often(usual, *odd, p=0.06):
    return rnd.choice(odd)() if rnd.random() < p else usual()


def time(ago):
    at = NOW - timedelta(seconds=ago)
    return often(
        lambda: at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda: at.strftime("%Y-%m-%dT%H:%M:%S"),
        lambda: at.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        lambda: (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00"),
        lambda: at.strftime("%Y-%m-%dT%H:%M:%S.5Z"),
        lambda: at.strftime("%Y-%m-%dT%H:%M:%S.123456Z"),
        lambda: int(at.timestamp()),
        lambda: "yesterday",
        lambda: None,
        lambda: "",
        p=0.2,
    )


def a_list(item):
    return [item() for _ in range(rnd.randint(1, 3))]


VALUES = {
    "i32": lambda: rnd.randint(-(2**31), 2**31 - 1),
    "i64": lambda: rnd.choice([0, 7, -1, 2**53 + 1, -(2**62), rnd.randint(-(10**12), 10**12)]),
    "f32": lambda: rnd.choice([0.5, -2.25, 1e10, 0.1]),
    "f64": lambda: rnd.choice([0.1, 7.0, -0.0, 1e16, 1e-7, 123456789.125, 1.7976931348623157e308, rnd.uniform(-1e6, 1e6)]),
    "s": lambda: rnd.choice(["", "a", "né \U0001f600", 'quote " \\ \n', "7", "null"]),
    "b": lambda: rnd.random() < 0.5,
    "ts": lambda: rnd.randint(0, 2 * 10**9),
    "li": lambda: a_list(VALUES["i64"]),
    "ls": lambda: a_list(VALUES["s"]),
    "lf": lambda: a_list(lambda: rnd.choice([0.5, 1.0, -3.25, 1e-9])),
    "lb": lambda: a_list(VALUES["b"]),
    "by": lambda: None,
    "rating": lambda: VALUES["f64"](),
    "n": lambda: VALUES["i64"](),
}
ODD = [lambda: None, lambda: "x", lambda: 1.5, lambda: True, lambda: [], lambda: [1, None], lambda: {"a": 1}, lambda: 2**70, lambda: "1.5", lambda: 3]


def driver():
    return often(lambda: BASE + rnd.randint(1, 12), lambda: str(BASE + rnd.randint(1, 12)), lambda: float(BASE + 3), lambda: 2**40, lambda: -1)


def odd_key():
    return rnd.choice([None, "abc", 1.5, True, [1], {"a": 1}, 2**64, "", f" {BASE + 7}"])


def customer():
    return rnd.choice(["a", "b", "né", ""])


def reference():
    return often(
        lambda: rnd.choice(["wide:" + n for n in WIDE] * 2 + ["pair:" + n for n in PAIR]),
        lambda: "nope:f64",
        lambda: "wide:nope",
        lambda: "f64",
        lambda: "",
        lambda: "wide:",
        lambda: ":f64",
        lambda: "a:b:c",
        lambda: "odfv:scaled",
        lambda: "odfv:nope",
        p=0.03,
    )


def read():
    refs = [reference() for _ in range(rnd.randint(1, 5))]
    if rnd.random() < 0.9:
        refs = list(dict.fromkeys(refs))
    body = {"entities": {}}
    rows = rnd.choice([1, 1, 1, 2, 3, 20])
    body["entities"]["driver_id"] = [driver() for _ in range(rows)]
    if any(r.startswith("pair:") for r in refs) or rnd.random() < 0.2:
        body["entities"]["customer_id"] = [customer() for _ in range(rows)]
    if any(r.startswith("odfv") for r in refs):
        body["entities"]["amount"] = [rnd.choice([2.0, 3, 0.5]) for _ in range(rows)]
    body["features"] = refs
    spoil = [
        lambda: body["entities"].update(driver_id=body["entities"]["driver_id"][1:]),
        lambda: body["entities"]["driver_id"].__setitem__(0, odd_key()),
        lambda: body["entities"].pop("driver_id", None),
        lambda: body["entities"].update(driver=body["entities"].pop("driver_id")),
        lambda: body["entities"].update(other=[1] * rows),
        lambda: body["entities"].update(driver_id=7),
        lambda: body.pop("features", None),
        lambda: body.update(features=None),
        lambda: body.update(features=[]),
        lambda: body.update(features="wide:f64"),
        lambda: body.update(features=[7]),
        lambda: body.update(feature_service="nope"),
        lambda: body.update(feature_service=""),
        lambda: body.update(feature_service=None),
        lambda: body.update(feature_service=7),
        lambda: body.pop("entities"),
        lambda: body.update(entities=[]),
        lambda: body.update(entities={}),
        lambda: body.update(entities=None),
        lambda: body.update(unknown=1),
        lambda: body.update(full_feature_names=rnd.choice(["true", "yes", 1, 0, None, 2, "maybe", [], 1.0, "off", "T"])),
        lambda: body.update(include_feature_view_version_metadata=rnd.choice([True, None, "x"])),
    ]
    if rnd.random() < 0.3:
        body["full_feature_names"] = rnd.random() < 0.5
    if rnd.random() < 0.15:
        body["feature_service"] = rnd.choice(["svc", "all_wide"])
        body["entities"].setdefault("customer_id", [customer() for _ in range(rows)])
        body.pop("features", None)
    if rnd.random() < 0.25:
        rnd.choice(spoil)()
    return "POST", "/get-online-features", often(lambda: body, lambda: b"", lambda: b"{", lambda: b"[]", lambda: b"null", lambda: b'"x"', p=0.02)


ticks = iter(range(10**9))


def frame(view):
    names = WIDE if view == "wide" else PAIR
    rows = rnd.choice([1, 1, 1, 2, 3])
    ago = 3500 - 5 * next(ticks) + often(lambda: 0, lambda: 100, lambda: 5000)  # mostly newer than the last one
    df = {"driver_id": [BASE + rnd.randint(1, 12) for _ in range(rows)]}
    if view == "pair":
        df["customer_id"] = [customer() for _ in range(rows)]
    stamp = [time(ago + i) for i in range(rows)]
    df["event_timestamp"] = stamp
    if view == "wide":
        df["created"] = [(NOW - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")] * rows
    for n in names:
        df[n] = [often(VALUES[n], *ODD, p=0.02) for _ in range(rows)]
    spoil = [
        lambda: df.update(driver_id=df["driver_id"] + [1]),
        lambda: df["driver_id"].__setitem__(0, odd_key()),
        lambda: df.pop("driver_id"),
        lambda: df.pop("event_timestamp"),
        lambda: df.pop("created", None),
        lambda: df.pop(rnd.choice(names)),
        lambda: df.update(other=[1] * rows),
        lambda: df.update(f64=1),
        lambda: df.clear(),
    ]
    if rnd.random() < 0.15:
        rnd.choice(spoil)()
    return df


def push():
    view = rnd.choice(["wide", "wide", "pair"])
    if rnd.random() < 0.3:
        body, path = {"feature_view_name": view, "df": frame(view)}, "/write-to-online-store"
        odd = [lambda: body.update(feature_view_name="nope"), lambda: body.pop("feature_view_name"), lambda: body.pop("df"), lambda: body.update(df=[])]
    else:
        body, path = {"push_source_name": view + "_push", "df": frame(view), "to": "online"}, "/push"
        odd = [
            lambda: body.update(push_source_name="nope"),
            lambda: body.pop("push_source_name"),
            lambda: body.pop("df"),
            lambda: body.update(df=None),
            lambda: body.update(to=rnd.choice(["nowhere", None, 7, ""])),
            lambda: body.update(allow_registry_cache=rnd.choice([False, "x", None])),
            lambda: body.update(transform_on_write=rnd.choice([False, "x"])),
            lambda: body.pop("to"),
        ]
    if rnd.random() < 0.15:
        rnd.choice(odd)()
    return "POST", path, often(lambda: body, lambda: b"null", lambda: b"", lambda: b"[1]", p=0.02)


def other():
    day = {"start_ts": "2026-01-01T00:00:00", "end_ts": "2026-01-02T00:00:00"}
    return rnd.choice(
        [
            ("GET", "/health", None),
            ("POST", "/health", {}),
            ("HEAD", "/health", None),
            ("GET", "/get-online-features", None),
            ("PUT", "/push", {}),
            ("POST", "/nope", {}),
            ("POST", "/materialize", day),
            ("POST", "/materialize", {**day, "feature_views": ["wide"]}),
            ("POST", "/materialize", {**day, "feature_views": ["nope"]}),
            ("POST", "/materialize", {"start_ts": "x", "end_ts": "y"}),
            ("POST", "/materialize", {"end_ts": "2026-01-02T00:00:00"}),
            ("POST", "/materialize", {}),
            ("POST", "/materialize-incremental", {"end_ts": "2026-01-02T00:00:00"}),
            ("POST", "/materialize-incremental", {"end_ts": "x"}),
            ("POST", "/materialize-incremental", {"end_ts": None}),
            ("POST", "/materialize-incremental", {}),
        ]
    )


unsure = {}  # (view, key) of which the two may hold different rows; None: any key
newest = {}


def remember(path, body, k, f):
    """Notes which rows both hold alike. Feast lets an older row replace a newer
    one, so a key is sure again only with a row that is newer than all before."""
    if not isinstance(body, dict) or not isinstance(body.get("df"), dict):
        return
    view = str(body.get("push_source_name") or body.get("feature_view_name")).removesuffix("_push")
    df = body["df"]
    stamps = df.get("event_timestamp")
    keys = [df.get(n) for n in (["driver_id"] if view == "wide" else ["driver_id", "customer_id"])]
    if not all(isinstance(c, list) and len(c) == len(stamps or []) for c in keys):
        return
    rows = list(zip(*keys))
    for key, at in zip(rows, stamps):
        key = (view, *map(str, key))
        try:
            at = datetime.fromisoformat(at)
            at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        except (TypeError, ValueError):
            at = None
        sure = k[0] == f[0] == 200 and at is not None and at > newest.get(key, datetime.min.replace(tzinfo=timezone.utc)) and rows.count(key[1:]) <= 1 and len(set(map(str, rows))) == len(rows)
        if at is not None and 200 in (k[0], f[0]):
            newest[key] = max(at, newest.get(key, at))
        unsure[key] = not sure and (f[0] == 200 or k[0] == 200 or unsure.get(key, False))


def is_unsure(body, i):
    e = body["entities"]
    row = [e.get(n, e.get(o, []))[i : i + 1] for n, o in (("driver_id", "driver"), ("customer_id", ""))]
    driver_key, customer_key = [str(int(c[0]) if isinstance(c[0], float) else c[0]) if c else "" for c in row]
    return unsure.get(("wide", driver_key)) or unsure.get(("pair", driver_key, customer_key))


def vectors(text):
    v = json.loads(text)
    return v["metadata"]["feature_names"], v["results"]


def same_time(a, b):
    return a[:19] == b[:19]  # Feast cuts to seconds


def excuse_value(k, f, i):
    """Why one value may differ; None: it may not."""
    ks, fs, kv, fv = k["statuses"][i], f["statuses"][i], k["values"][i], f["values"][i]
    same = same_time(k["event_timestamps"][i], f["event_timestamps"][i])
    if (ks, kv) == (fs, fv) and type(kv) is type(fv) and same:
        return "same"
    if ks == "OUTSIDE_MAX_AGE" and fs == "PRESENT" and kv is None and same:
        return "older than the ttl"
    if ks == "NULL_VALUE" and fs == "PRESENT" and kv is None and fv in (None, []) and same:
        return "stored null"
    return None


def excuse(method, path, body, k, f):
    """The line of docs/feast.md that allows a difference; None: there is none."""
    (ks, kt), (fs, ft) = k, f
    if k == f:
        return "same"
    if fs == 500 and ks == 400:
        return "a client's mistake"
    if path == "/nope" and ks == fs == 404:
        return "main port"
    if path == "/get-online-features" and (ks, fs) == (200, 500) and "Value type not supported" in ft:
        return "Feast cannot take it"
    if path in ("/push", "/write-to-online-store"):
        if (ks, fs) == (200, 500) and any(t in ft for t in ("time data", "too large to convert", "is of type", "out of bounds", "Mixed timezones", "tz-aware", "too large to fit")):
            return "Feast cannot take it"
        if (ks, fs) == (400, 200) and any(t in kt for t in ("is no value of type", "is not an ISO 8601 time", "is not a list", "is null in row", "is missing in row")):
            return "Python converts it"
    elif (ks, fs) == (400, 200) and "invalid literal" in kt and {1.5, True} & {k for k in body["entities"].get("driver_id", body["entities"].get("driver")) if not isinstance(k, (list, dict))}:
        return "Python converts it"
    if fs == 200 and ks == 200 and path == "/get-online-features":
        kn, kr = vectors(kt)
        fn, fr = vectors(ft)
        if sorted(n for n in kn if n != "odfv__scaled") != sorted(n for n in fn if n != "odfv__scaled"):
            return None
        theirs = dict(zip(fn, fr))
        for n, r in zip(kn, kr):
            t = theirs.get(n, r)  # Feast leaves an on-demand feature out when names are full
            if len(r["values"]) != len(t["values"]):
                return None
            for i in range(len(r["values"])):
                if excuse_value(r, t, i) is None and not is_unsure(body, i):
                    for v in (r, t):
                        print(n, i, v["values"][i], v["statuses"][i], v["event_timestamps"][i])
                    return None
        return "values"
    return None


def main():
    seen, shown = Counter(), Counter()
    bad = 0
    for i in range(COUNT):
        method, path, body = rnd.choice([read, read, read, push, push])() if rnd.random() < 0.95 else other()
        k, f = ask(KEDGE, method, path, body), ask(FEAST, method, path, body)
        remember(path, body, k, f)
        why = excuse(method, path, body, k, f)
        seen[why, path] += 1
        if why is None:
            bad += 1
            print(f"--- {i} {method} {path} {body if isinstance(body, bytes) else json.dumps(body)[:1500]}\nKedge {k[0]} {k[1][:1200]}\nFeast {f[0]} {f[1][:1200]}", flush=True)
    for (why, path), n in sorted(seen.items(), key=str):
        print(f"{n:6} {why} {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
