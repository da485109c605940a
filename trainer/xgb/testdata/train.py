"""Trains the same jobs as the Go test and writes what Python gets.

usage: train.py FOLDER

Reads FOLDER/jobs.json (name, rows, columns, types, params, rounds, stop) and
the column-major float32 files NAME.values, NAME.label, NAME.weight and
NAME.valid.*; writes NAME.model (JSON), NAME.predict, NAME.contribs, NAME.log.
"""

import json
import os
import sys

import numpy as np
import xgboost as xgb

folder = sys.argv[1]


def matrix(path, job, rows):
    read = lambda part: np.fromfile(f"{path}.{part}", np.float32) if os.path.exists(f"{path}.{part}") else None
    x = read("values").reshape(job["columns"], rows).T
    return xgb.DMatrix(x, read("label"), weight=read("weight"), feature_types=job["types"],
                       feature_names=job["names"], enable_categorical=True)


for job in json.load(open(folder + "/jobs.json")):
    path = f"{folder}/{job['name']}"
    train = matrix(path, job, job["rows"])
    valid = matrix(path + ".valid", job, job["valid"])
    log = {}
    stop = job["stop"] or None
    booster = xgb.train(job["params"], train, job["rounds"], evals=[(train, "train"), (valid, "valid")], evals_result=log,
                        callbacks=[xgb.callback.EarlyStopping(stop, save_best=True)] if stop else None, verbose_eval=False)
    open(path + ".model", "wb").write(booster.save_raw("json"))
    booster.predict(valid).astype(np.float32).tofile(path + ".predict")
    booster.predict(valid, pred_contribs=True).astype(np.float32).tofile(path + ".contribs")
    json.dump(log, open(path + ".log", "w"))
