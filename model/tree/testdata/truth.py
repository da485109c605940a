"""Trains random XGBoost models and writes what they predict.

usage: truth.py FOLDER SEED

Writes FOLDER/NAME/{model.json,rows.f32,predict.f32,margin.f32,contribs.f32}
for every case, and FOLDER/cases.json with the shapes. Rows are row-major
float32 with NaN for missing.
"""

import json
import os
import sys

import numpy as np
import xgboost as xgb

out, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)


def data(n, f, missing, cats):
    x = rng.normal(size=(n, f)).astype(np.float32)
    x[:, 1] = rng.integers(0, 8, n)  # ties and exact split values
    x[rng.random(x.shape) < missing] = np.nan
    for c in cats:
        x[:, c] = rng.integers(0, 90 if c % 2 else 12, n)
        x[rng.random(n) < missing, c] = np.nan
    return x


def target(kind, x):
    z = np.nan_to_num(x[:, 0]) + np.sin(2 * np.nan_to_num(x[:, 2])) + 0.3 * (np.nan_to_num(x[:, 4]) % 3 == 1)
    z = z + rng.normal(scale=0.5, size=len(z))
    if kind == "binary":
        return (z > 0.7).astype(np.float32)
    if kind == "classes":
        return np.digitize(z, [-1, 0, 0.8, 1.5]).astype(np.float32)
    if kind == "counts":
        return rng.poisson(np.exp(np.clip(z, -2, 2))).astype(np.float32)
    if kind == "positive":
        return np.exp(z).astype(np.float32)
    if kind == "unit":
        return (1 / (1 + np.exp(-z))).astype(np.float32)
    return (10 * z).astype(np.float32)


CASES = {
    "logistic": ({"objective": "binary:logistic"}, "binary", {}),
    "logistic-categorical": ({"objective": "binary:logistic", "max_cat_to_onehot": 4}, "binary", {"cats": [4, 5]}),
    "logistic-onehot": ({"objective": "binary:logistic", "max_cat_to_onehot": 100}, "binary", {"cats": [4, 5]}),
    "logistic-dense": ({"objective": "binary:logistic"}, "binary", {"missing": 0}),
    "logistic-lossguide": ({"objective": "binary:logistic", "max_depth": 0, "max_leaves": 200, "grow_policy": "lossguide"}, "binary", {}),
    "logistic-exact": ({"objective": "binary:logistic", "tree_method": "exact"}, "binary", {}),
    "logistic-base": ({"objective": "binary:logistic", "base_score": 0.2}, "binary", {}),
    "logistic-forest": ({"objective": "binary:logistic", "num_parallel_tree": 4, "subsample": 0.7, "colsample_bynode": 0.7, "rounds": 3}, "binary", {}),
    "logitraw": ({"objective": "binary:logitraw"}, "binary", {}),
    "hinge": ({"objective": "binary:hinge"}, "binary", {}),
    "reg-logistic": ({"objective": "reg:logistic"}, "unit", {}),
    "squared": ({"objective": "reg:squarederror"}, "real", {"cats": [4]}),
    "squared-pruned": ({"objective": "reg:squarederror", "gamma": 50, "max_depth": 8}, "real", {}),
    "squared-stump": ({"objective": "reg:squarederror", "max_depth": 1}, "real", {}),
    "squared-constant": ({"objective": "reg:squarederror", "min_child_weight": 1e9}, "real", {}),
    "squaredlog": ({"objective": "reg:squaredlogerror"}, "positive", {}),
    "absolute": ({"objective": "reg:absoluteerror"}, "real", {}),
    "huber": ({"objective": "reg:pseudohubererror"}, "real", {}),
    "quantile": ({"objective": "reg:quantileerror", "quantile_alpha": 0.3}, "real", {}),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, "real", {}),
    "poisson": ({"objective": "count:poisson"}, "counts", {}),
    "gamma": ({"objective": "reg:gamma"}, "positive", {}),
    "tweedie": ({"objective": "reg:tweedie"}, "counts", {}),
    "softprob": ({"objective": "multi:softprob", "num_class": 5}, "classes", {"cats": [4]}),
    "softmax": ({"objective": "multi:softmax", "num_class": 5}, "classes", {}),
}


def run(name, params, kind, n=3000, f=7, missing=0.1, cats=()):
    folder = os.path.join(out, name)
    os.makedirs(folder)
    params = dict({"max_depth": int(rng.integers(3, 8)), "eta": 0.3, "nthread": 1, "seed": seed}, **params)
    rounds = params.pop("rounds", 20)
    x = data(n, f, missing, cats)
    types = ["c" if i in cats else "q" for i in range(f)]
    train = xgb.DMatrix(x, target(kind, x), feature_types=types, enable_categorical=True)
    booster = xgb.train(params, train, rounds)
    rows = data(517, f, missing, cats)
    for c in cats:  # categories that training never met, and what is not one
        rows[:4, c] = [95, 4000, 11, 0]
    probe = xgb.DMatrix(rows, feature_types=types, enable_categorical=True)
    booster.save_model(os.path.join(folder, "model.json"))
    rows.tofile(os.path.join(folder, "rows.f32"))
    write = lambda a, part: np.asarray(a, np.float32).tofile(os.path.join(folder, part + ".f32"))
    write(booster.predict(probe), "predict")
    write(booster.predict(probe, output_margin=True), "margin")
    write(booster.predict(probe, pred_contribs=True), "contribs")
    gain = booster.get_score(importance_type="gain")
    return {
        "name": name, "rows": len(rows), "features": f, "objective": params["objective"],
        "gain": [gain.get("f%d" % i, 0.0) for i in range(f)],
    }


with open(os.path.join(out, "cases.json"), "w") as f:
    json.dump([run(name, p, kind, **kw) for name, (p, kind, kw) in CASES.items()], f)

# Kinds that must be refused.
x = data(300, 7, 0, ())
for name, params, label in [
    ("refused-dart", {"booster": "dart"}, target("real", x)),
    ("refused-gblinear", {"booster": "gblinear"}, target("real", x)),
    ("refused-rank", {"objective": "rank:ndcg"}, target("binary", x)),
    ("refused-cox", {"objective": "survival:cox"}, target("positive", x)),
    ("refused-targets", {}, np.stack([x[:, 0], x[:, 1]], 1)),
    ("refused-vector", {"multi_strategy": "multi_output_tree"}, np.stack([x[:, 0], x[:, 1]], 1)),
]:
    train = xgb.DMatrix(x, label)
    if "rank" in name:
        train.set_group([100, 200])
    xgb.train(dict({"nthread": 1}, **params), train, 2).save_model(os.path.join(out, name + ".json"))
