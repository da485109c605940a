"""Writes dle.json: NannyML's DLE (0.13.1, LightGBM 4.5.0), its estimates chunk by chunk and what its own learners said of every row."""
import json, os
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # NannyML reports its use to its makers otherwise
import numpy as np, pandas as pd, nannyml as nml

rng = np.random.default_rng(28)
METRICS, CHUNK = ["mae", "mape", "mse", "rmse"], 400
def rows(n, low):
    f0, f1, c = rng.uniform(low, 4, n), rng.normal(0, 1, n), rng.choice(["a", "b", "c"], n, p=[.5, .3, .2])
    y = 3 * f0 + f1 + 20 + rng.normal(0, .2 + .5 * f0 + 1.5 * (c == "c"), n)
    f1 = np.where(rng.random(n) < .05, np.nan, f1)
    return pd.DataFrame({"f0": f0.round(6), "f1": f1.round(6), "c": c, "h": (3 * f0 + 20).round(6), "y": y.round(6)})
ref, cur = rows(2000, 0), pd.concat([rows(CHUNK, 0), rows(CHUNK, 2), rows(CHUNK, 3)], ignore_index=True)
cur.loc[7, "c"] = "new"  # NannyML answers missing for what it never saw
m = nml.DLE(feature_column_names=["f0", "f1", "c"], y_pred="h", y_true="y", metrics=METRICS, chunk_size=CHUNK)
m.fit(ref.copy())
t = m.estimate(cur.drop(columns="y")).filter(period="analysis").to_df()
members = ["value", "sampling_error", "upper_confidence_boundary", "lower_confidence_boundary", "lower_threshold", "upper_threshold", "alert"]
chunks = [{f"{k}/{f}": (bool(t[(k, f)].iloc[i]) if f == "alert" else float(t[(k, f)].iloc[i])) for k in METRICS for f in members} for i in range(len(t))]
# the learners' own word on every row, before it is averaged
coded = cur.copy()
coded["c"] = m._categorical_encoders["c"].transform(cur[["c"]].astype(object).values).ravel() + 1
loss = {k.column_name: k._dee_model.predict(coded[["f0", "f1", "c", "h"]]).round(9).tolist() for k in m.metrics}
real = []
for i in range(len(t)):
    w = cur.iloc[i * CHUNK:(i + 1) * CHUNK]; e = (w.h - w.y).abs()
    real.append({"mae": float(e.mean()), "mse": float((e ** 2).mean()), "rmse": float((e ** 2).mean() ** .5), "mape": float((e / w.y.abs()).mean())})
plain = lambda d: [[None if v != v else v for v in r] for r in d.values.tolist()]
out = {"chunk": CHUNK, "columns": ["f0", "f1", "c", "h", "y"], "ref": plain(ref), "cur": plain(cur), "loss": loss, "chunks": chunks, "realised": real}
json.dump(out, open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "dle.json"), "w"), separators=(",", ":"))
for i, c in enumerate(chunks):
    print({k: (round(c[k + "/value"], 4), round(real[i][k], 4), c[k + "/alert"]) for k in METRICS})
