"""Checks ONNX models and runs them in ONNX Runtime.

usage: check.py FOLDER

Reads FOLDER/NAME.onnx and FOLDER/NAME.rows (row-major float32), writes
FOLDER/NAME.out (row-major float32).
"""

import glob
import sys

import numpy as np
import onnx
import onnxruntime as ort

for path in sorted(glob.glob(sys.argv[1] + "/*.onnx")):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    width = session.get_inputs()[0].shape[1]
    rows = np.fromfile(path[:-5] + ".rows", np.float32).reshape(-1, width)
    (out,) = session.run(["output"], {"rows": rows})
    assert out.shape == (len(rows), session.get_outputs()[0].shape[1]), (path, out.shape)
    out.astype(np.float32).tofile(path[:-5] + ".out")
