"""Writes golden.json: values of SciPy's own special functions (run with SciPy 1.17.1)."""
import json, math, os
import numpy as np
from scipy import special, stats
from scipy.stats._hypotests import _cdf_cvm_inf

rng = np.random.default_rng(7)
out = {"scipy_version": __import__("scipy").__version__}
out["limit"] = [[x, float(special.kolmogorov(x))] for x in (0, .05, .1, .3, .5, .7, .8, .83, 1, 1.36, 2, 3, 5, 8)]
tail = []
for n in (1, 2, 3, 5, 10, 40, 139, 140, 141, 200, 1000, 9999, 100000, 100001, 2000000):
    for z in (.3, .45, .6, .8, 1, 1.2, 1.48, 1.49, 2, 2.5, 4, 6):
        d = z / math.sqrt(n)
        if d < 1.2: tail.append([n, d, float(stats.kstwo.sf(d, n))])
    for t in (.4, .7, 1, 1.3): tail.append([n, t / n, float(stats.kstwo.sf(t / n, n))])
    tail.append([n, max(0.5, 1 - .3 / n), float(stats.kstwo.sf(max(0.5, 1 - .3 / n), n))])
out["tail"] = tail
out["smirnov"] = [[n, d, float(special.smirnov(n, d))] for n in (1, 7, 30, 500, 20000, 1000000, 3000000) for d in (.001, .01, .05, .2, .5, .9, .999)]
out["cvm"] = [[x, float(_cdf_cvm_inf(np.asarray(x, float))[()])] for x in (.003, .02, .1, .3, .46, 1, 2, 4)]
out["besselk"] = [[x, float(special.kve(.25, x))] for x in (1e-3, .01, .1, 1, 5, 30, 500)]
ks = []
for n, m in ((1, 1), (3, 3), (7, 5), (12, 9), (30, 30), (50, 75), (100, 37), (400, 600), (2000, 1999)):
    for _ in range(4):
        a, b = rng.normal(0, 1, n), rng.normal(rng.uniform(0, 1), 1, m)
        r = stats.ks_2samp(a, b, method="exact"); ks.append([n, m, float(r.statistic), float(r.pvalue)])
out["ks2"] = ks
mwu = []
from scipy.stats._mannwhitneyu import _MWU
for n, m in ((1, 1), (3, 5), (8, 8), (5, 40), (20, 31)):
    s = _MWU(n, m)
    for u in sorted({min(n * m, n * m // 2 + 1 + k * max(1, n * m // 10)) for k in range(5)} | {n * m}): mwu.append([n, m, u, float(s.sf(np.asarray(u)))])
out["mwu"] = mwu
json.dump(out, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json"), "w"), separators=(",", ":"))
