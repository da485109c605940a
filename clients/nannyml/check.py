"""Holds what a running kedge says of the census files against what NannyML says.

usage: check.py URL SAID, where SAID is what `golden.py DATA few` printed
"""
import datetime
import json
import sys
import time
import urllib.request

URL, ROWS, CHUNKS = sys.argv[1], 5000, 41  # full ones after the reference; the last one is short, and its window stays open
BEGIN = datetime.datetime(2015, 1, 15, tzinfo=datetime.timezone.utc)
DAYS = [BEGIN + datetime.timedelta(days=i) for i in range(CHUNKS)]


def ask(**members):
    """The frames of one question, each a dictionary of columns by name."""
    members |= {"model": "employment", "from": BEGIN.isoformat(), "to": (BEGIN + datetime.timedelta(days=CHUNKS)).isoformat()}
    request = urllib.request.Request(URL + "/v1/query", json.dumps(members).encode(), {"Content-Type": "application/json"})
    frames = json.load(urllib.request.urlopen(request))["frames"]
    return [{c["name"]: c["values"] for c in f["columns"]} for f in frames]


def rows(frame):
    """A frame's rows by the day that each is about."""
    return [dict(zip(frame, row)) | {"day": datetime.datetime.fromisoformat(row[list(frame).index("time")])} for row in zip(*frame.values())]


def judged():
    """By day: what is said of ROC AUC; by column and day: how far it is. Waits until all days are there."""
    for _ in range(600):
        auc = {r["day"]: r for f in ask(kind="performance", columns=["roc_auc"]) for r in rows(f)}
        if sorted(auc) == DAYS and all(r["coverage"] == 1 and r["predictions"] == ROWS for r in auc.values()):
            verdicts = [r for f in ask(kind="verdicts", limit=10000) for r in rows(f)]
            verdicts = {(r["column"], r["day"]): r for r in verdicts if r["monitor"] == "employment" and r["detector"] in ("ks", "chi2")}
            if all(r["rows"] == ROWS for r in verdicts.values()):
                return auc, verdicts
        time.sleep(0.5)
    raise SystemExit(f"after five minutes {len(auc)} of {CHUNKS} windows are measured: {ask(kind='monitors')}")


nannyml = json.load(open(sys.argv[2]))
before = len(nannyml["realised"]["roc_auc/value"]) - CHUNKS - 1  # chunks of the reference


def said(part, key):
    return nannyml[part][key][before:before + CHUNKS]


auc, distance = judged()
worst, told = {}, {}
for i, (realised, expected, low, high) in enumerate(zip(said("realised", "roc_auc/value"), said("expected", "roc_auc/value"), said("expected", "roc_auc/lower_confidence_boundary"), said("expected", "roc_auc/upper_confidence_boundary"))):
    mine = auc[DAYS[i]]
    for name, a, b in ("realised ROC AUC", mine["value"], realised), ("expected ROC AUC", mine["expected"], expected), ("its lower end", mine["lower"], low), ("its upper end", mine["upper"], high):
        worst[name] = max(worst.get(name, 0), abs(a - b))
for key in nannyml["drift"]:
    column, method, field = key.split("/")
    if field != "value":
        continue
    name = "Jensen-Shannon of categories" if method == "jensen_shannon" else "Kolmogorov-Smirnov of numbers"
    for i, (theirs, alert) in enumerate(zip(said("drift", key), said("drift", f"{column}/{method}/alert"))):
        mine = distance["score" if column == "predicted_probability" else column, DAYS[i]]
        worst[name] = max(worst.get(name, 0), abs(mine["effect"] - theirs))
        told.setdefault(i, []).append((alert, mine["drifted"]))
print("chunk  realised by NannyML  by Kedge   expected by NannyML  by Kedge   columns told by NannyML  by Kedge")
for i in range(CHUNKS):
    print(f"{i:5}  {said('realised', 'roc_auc/value')[i]:19.6f}  {auc[DAYS[i]]['value']:.6f}   {said('expected', 'roc_auc/value')[i]:19.6f}  {auc[DAYS[i]]['expected']:.6f}   {sum(a for a, _ in told[i]):23}  {sum(b for _, b in told[i]):8}")
# Kedge counts numbers on 256 cells, NannyML on bins of its own.
within = {"Kolmogorov-Smirnov of numbers": 0.005}
for name, off in worst.items():
    print(f"{name}: at most {off:.2g} apart")
wrong = [name for name, off in worst.items() if not off <= within.get(name, 1e-6)]
if len(worst) != 6 or wrong:
    raise SystemExit(f"not NannyML's: {wrong}")
