"""Trains what BenchmarkXGBoostBesidePython trains, and says what it cost.

usage: xgboost_bench.py FOLDER

Reads FOLDER/{values,label,golden}.bin (column-major float32; golden row-major)
and job.json; writes predict.bin and prints the CPU seconds from the values in
memory to the trained model: DMatrix and training, without Python's start.
"""

import json
import sys
import time

import numpy as np
import xgboost as xgb

folder = sys.argv[1]
job = json.load(open(folder + "/job.json"))
read = lambda name: np.fromfile(f"{folder}/{name}.bin", np.float32)
x, y, golden = read("values").reshape(job["columns"], -1).T, read("label"), read("golden").reshape(-1, job["columns"])
start = time.process_time()
train = xgb.DMatrix(x, y, nthread=job["threads"])
log = {}
booster = xgb.train(job["params"], train, job["rounds"], evals=[(train, "train")], evals_result=log, verbose_eval=False)
spent = time.process_time() - start
booster.inplace_predict(golden).astype(np.float32).tofile(folder + "/predict.bin")
print(spent)
