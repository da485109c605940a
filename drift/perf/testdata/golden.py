"""Writes golden.json: NannyML's multi-class CBPE (0.13.1, numpy 2.2.6, scikit-learn 1.6.1) and numpy's legacy shuffle."""
import json, os
import numpy as np, pandas as pd, nannyml as nml

rng = np.random.default_rng(11)
L = np.array(["a", "b", "c"], object)
def rows(n, shift):
    z = rng.normal(0, 1, (n, 3)); y = rng.choice(3, n, p=[.5, .3, .2]); z[np.arange(n), y] += 1 + shift
    p = np.exp(1.8 * z); p /= p.sum(1, keepdims=True); p = np.round(p, 3); p[:, 2] = np.round(1 - p[:, 0] - p[:, 1], 3)
    return pd.DataFrame({"y": L[y], "h": L[p.argmax(1)], "pa": p[:, 0], "pb": p[:, 1], "pc": p[:, 2]})
ref, cur = rows(900, 0), rows(300, -.4)
V = [[1, -2, 0], [-1, 3, -1], [0, -2, 5]]
m = nml.CBPE(y_pred_proba={"a": "pa", "b": "pb", "c": "pc"}, y_pred="h", y_true="y", problem_type="classification_multiclass", chunk_size=300,
             metrics=["roc_auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy", "confusion_matrix", "business_value"], business_value_matrix=np.array(V))
m.fit(ref)
t = m.estimate(cur).filter(period="analysis").to_df(multilevel=True)
t.columns = ["/".join(c) for c in t.columns]
want = {k: float(v) for k, v in t.iloc[0].items() if k.split("/")[-1] in ("value", "sampling_error", "upper_confidence_boundary", "lower_confidence_boundary")}
r = np.random.RandomState(42)
out = {"ref": ref.values.tolist(), "cur": cur.values.tolist(), "value_matrix": V, "want": want,
       "permutations": [r.permutation(n).tolist() for n in (5, 17, 100)],
       "calibrated": [type(c).__name__ != "NoopCalibrator" for c in m._calibrators.values()]}
json.dump(out, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json"), "w"), separators=(",", ":"))
