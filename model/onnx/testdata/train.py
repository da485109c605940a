"""Trains one XGBoost model per objective, for export.

usage: train.py FOLDER SEED; writes FOLDER/NAME.json
"""

import sys

import numpy as np
import xgboost as xgb

out, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
x = rng.normal(size=(2000, 6)).astype(np.float32)
x[rng.random(x.shape) < 0.1] = np.nan
x[:, 4] = rng.integers(0, 40, 2000)
x[:, 5] = rng.integers(0, 5, 2000)
z = np.nan_to_num(x[:, 0]) + (x[:, 4] % 3 == 1) - (x[:, 5] == 2)
types = ["q"] * 4 + ["c"] * 2


def train(name, label, **params):
    d = xgb.DMatrix(x, label, feature_types=types, enable_categorical=True)
    xgb.train({"max_depth": 6, "seed": seed, "nthread": 1, **params}, d, 15).save_model(f"{out}/{name}.json")


train("logistic", z > 0.5, objective="binary:logistic")
train("onehot", z > 0.5, objective="binary:logistic", max_cat_to_onehot=100)
train("hinge", z > 0.5, objective="binary:hinge")
train("squared", 10 * z, objective="reg:squarederror")
train("stump", z, objective="reg:squarederror", min_child_weight=1e9)
train("poisson", np.exp(np.clip(z, -2, 2)).round(), objective="count:poisson")
train("quantiles", z, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9])
train("softprob", np.digitize(z, [-1, 0, 1]), objective="multi:softprob", num_class=4)
train("softmax", np.digitize(z, [-1, 0, 1]), objective="multi:softmax", num_class=4)
