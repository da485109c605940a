"""Trains a scikit-learn model for Kedge's command back-end."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import sklearn
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

job = json.load(open(os.environ["KEDGE_PARAMS"]))
names = [i["name"] for i in job["inputs"]]
out = os.environ["KEDGE_OUT"]


def rows(path):
    t = pq.read_table(path)
    x = np.stack([t[n].to_numpy(zero_copy_only=False).astype(np.float32) for n in names], 1)
    return x, t["__label"].to_numpy().astype(int)


x, y = rows(os.environ["KEDGE_TRAIN"])
model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(x, y)
vx, vy = rows(os.environ["KEDGE_VALID"])
loss = log_loss(vy, model.predict_proba(vx))
print("trained on", len(x), "rows")
print(json.dumps({"round": 0, "metrics": {"valid": {"logloss": loss}}}), flush=True)

onnx = to_onnx(model, initial_types=[("rows", FloatTensorType([None, len(names)]))], options={"zipmap": False}, target_opset=15)
open(out + "/model.onnx", "wb").write(onnx.SerializeToString())
golden = np.fromfile(os.environ["KEDGE_GOLDEN"], np.float32).reshape(-1, len(names))
model.predict_proba(golden)[:, 1].astype(np.float32).tofile(out + "/golden.f32")
json.dump({"device": "cpu", "framework": "scikit-learn " + sklearn.__version__, "output": "probabilities", "column": 1},
          open(out + "/report.json", "w"))
