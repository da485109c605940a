"""Replays golden rows in ONNX Runtime: ort_replay.py MODEL ROWS OUT TENSOR COLUMN WIDTH"""

import sys

import numpy as np
import onnxruntime as ort

path, rows, out, tensor, column, width = sys.argv[1:]
s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
x = np.fromfile(rows, np.float32).reshape(-1, s.get_inputs()[0].shape[1])
(y,) = s.run([tensor], {s.get_inputs()[0].name: x})
y[:, int(column) : int(column) + int(width)].astype(np.float32).tofile(out)
