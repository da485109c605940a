"""Writes edges.json: tests of SciPy on samples at the edges of what they take.

Run with the interpreter of third_party/python/truth: python edges.py > edges.json
"""
import json, math, sys, warnings
import numpy as np
import scipy
from scipy import stats

warnings.simplefilter("ignore")
rng = np.random.default_rng(7)


def lists():
    yield "two against two", [1, 2], [3, 4]
    yield "one against one", [1], [2]
    yield "one against many", [5], list(range(20))
    yield "all tied", [1, 1, 1, 1], [1, 1, 1]
    yield "tied but one", [1] * 10, [1] * 9 + [2]
    yield "constant against constant", [3] * 8, [4] * 8
    yield "constant against spread", [0.0] * 30, list(rng.normal(size=30))
    yield "huge", list(1e300 * rng.normal(size=25)), list(1e300 * (rng.normal(size=25) + 0.5))
    yield "tiny", list(1e-300 * rng.normal(size=25)), list(1e-300 * (rng.normal(size=25) + 0.5))
    yield "subnormal", [5e-324 * k for k in range(1, 12)], [5e-324 * k for k in range(4, 16)]
    yield "far from zero", list(1e9 + rng.normal(size=40)), list(1e9 + rng.normal(size=40))
    yield "both zeros", [0.0, -0.0, 1.0, 2.0, -1.0], [-0.0, 0.0, 0.0, 3.0, -2.0]
    yield "integers with ties", list(rng.integers(0, 4, 60)), list(rng.integers(0, 5, 45))
    yield "unbalanced", list(rng.normal(size=5)), list(rng.normal(size=700))
    yield "disjoint", list(rng.uniform(0, 1, 50)), list(rng.uniform(2, 3, 50))
    yield "equal", list(range(30)), list(range(30))
    yield "heavy tail", list(rng.standard_cauchy(80)), list(rng.standard_cauchy(80) * 2)
    yield "neighbouring doubles", [1.0, math.nextafter(1, 2), 1.0], [math.nextafter(1, 2)] * 3


def tables():
    yield "two by two", [10, 20], [20, 10]
    yield "a zero cell", [0, 10], [10, 0]
    yield "a zero row", [5, 0], [7, 0]
    yield "one against many", [1, 0], [500, 500]
    yield "unseen and vanished", [30, 20, 0, 10], [25, 0, 15, 12]
    yield "empty in both", [30, 0, 20], [28, 0, 22]
    yield "huge counts", [10**12, 2 * 10**12], [10**12 + 10**7, 2 * 10**12]
    yield "rare", [1, 1, 1, 97], [0, 2, 1, 97]
    yield "tiny", [1, 0], [0, 1]


def number(f):
    try:
        v = f()
    except Exception as e:
        return str(type(e).__name__)
    v = [float(x) for x in v] if isinstance(v, (tuple, list)) else [float(v)]
    return [x if math.isfinite(x) else str(x) for x in v]


def main():
    out = {"made": f"scipy {scipy.__version__}, numpy {np.__version__}", "samples": [], "tables": []}
    for name, a, b in lists():
        a, b = np.array(a, dtype=float), np.array(b, dtype=float)
        two = lambda r: (r.statistic, r.pvalue)
        out["samples"].append({"name": name, "ref": a.tolist(), "cur": b.tolist(), "want": {
            "ks": number(lambda: two(stats.ks_2samp(a, b, method="asymp"))),
            "ks_exact": number(lambda: two(stats.ks_2samp(a, b, method="exact"))),
            "cramer_von_mises": number(lambda: two(stats.cramervonmises_2samp(a, b, method="asymptotic"))),
            "mann_whitney": number(lambda: two(stats.mannwhitneyu(a, b, alternative="two-sided", method="asymptotic"))),
            "welch": number(lambda: two(stats.ttest_ind(a, b, equal_var=False))),
            "wasserstein": number(lambda: stats.wasserstein_distance(a, b)),
        }})
    for name, a, b in tables():
        keep = [i for i in range(len(a)) if a[i] + b[i] > 0]
        t = np.array([[a[i] for i in keep], [b[i] for i in keep]])
        want = {
            "chi2": number(lambda: tuple(stats.chi2_contingency(t, correction=False)[:2])),
            "g": number(lambda: tuple(stats.chi2_contingency(t, correction=False, lambda_="log-likelihood")[:2])),
        }
        if len(a) == 2:
            want["fisher"] = number(lambda: stats.fisher_exact(np.array([a, b]))[1])
        out["tables"].append({"name": name, "ref": a, "cur": b, "want": want})
    json.dump(out, sys.stdout, indent=1)


main()
