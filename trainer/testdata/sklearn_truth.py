"""Fits linear models and computes metrics with scikit-learn.

usage: sklearn_truth.py FOLDER

Reads FOLDER/{binary,texts,real}.{x,y,w} (x row-major float32, already
standardised and one-hot) and shape.json; writes FOLDER/NAME.{coef,predict}
and metrics.json.
"""

import json
import sys

import numpy as np
from sklearn import calibration, linear_model, metrics

folder = sys.argv[1]
shape = json.load(open(folder + "/shape.json"))
read = lambda name: np.fromfile(f"{folder}/{name}", np.float64)
out = {}
for name in ["binary", "texts", "real"]:
    x, y, w = read(name + ".x").reshape(-1, shape["width"]), read(name + ".y"), read(name + ".w")
    n = w.sum()
    if name == "real":
        m = linear_model.Ridge(alpha=shape["l2"] * n, tol=1e-12).fit(x, y, sample_weight=w)
        p = m.predict(x)
        out[name] = {
            "rmse": metrics.root_mean_squared_error(y, p, sample_weight=w), "mae": metrics.mean_absolute_error(y, p, sample_weight=w),
            "r2": metrics.r2_score(y, p, sample_weight=w),
        }
    else:
        m = linear_model.LogisticRegression(C=1 / (shape["l2"] * n), tol=1e-10, max_iter=10000).fit(x, y, sample_weight=w)
        q = m.predict_proba(x)
        p = q[:, 1] if name == "binary" else q
        if name == "binary":
            said = p >= 0.5
            out[name] = {
                "auc": metrics.roc_auc_score(y, p, sample_weight=w), "logloss": metrics.log_loss(y, p, sample_weight=w),
                "brier": metrics.brier_score_loss(y, p, sample_weight=w), "accuracy": metrics.accuracy_score(y, said, sample_weight=w),
                "precision": metrics.precision_score(y, said, sample_weight=w), "recall": metrics.recall_score(y, said, sample_weight=w),
                "f1": metrics.f1_score(y, said, sample_weight=w),
            }
            happened, mean = calibration.calibration_curve(y, p, n_bins=10, strategy="uniform")  # it knows no weights
            out["calibration"] = {"happened": happened.tolist(), "said": mean.tolist(), "brier": metrics.brier_score_loss(y, p), "uncertainty": y.mean() * (1 - y.mean())}
            rounded = np.round(p, 1)  # many ties
            out["ties"] = {"auc": metrics.roc_auc_score(y, rounded, sample_weight=w)}
        else:
            said = p.argmax(1)
            out[name] = {
                "mlogloss": metrics.log_loss(y, p, sample_weight=w), "accuracy": metrics.accuracy_score(y, said, sample_weight=w),
                "macro_f1": metrics.f1_score(y, said, average="macro", sample_weight=w),
            }
    p.astype(np.float64).tofile(f"{folder}/{name}.predict")
json.dump(out, open(folder + "/metrics.json", "w"))
