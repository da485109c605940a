"""Writes ONNX models with rows and the answers of those who made them.

usage: models.py FOLDER

FOLDER/NAME.onnx, NAME.rows and NAME.want (row-major float32), for
  pipeline  a scikit-learn pipeline, by skl2onnx; the answer is column 1 of "probabilities"
  mlp       30-16-1 with ReLU and a sigmoid, as PyTorch exports one; computed in NumPy
  doubles   the same in double
  one       the same for one row at a time
and models that are bad for who runs them: loop never ends, memory asks for a
terabyte when it is run, folded when it is loaded, external names a file.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = sys.argv[1]
rng = np.random.default_rng(7)


def save(name, model, rows=None, want=None):
    with open(f"{folder}/{name}.onnx", "wb") as f:
        f.write(model.SerializeToString())
    if rows is not None:
        rows.astype(np.float32).tofile(f"{folder}/{name}.rows")
        want.astype(np.float32).tofile(f"{folder}/{name}.want")


def graph(nodes, inputs, outputs, constants=(), opset=17):
    g = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


x = rng.normal(size=(2000, 5)).astype(np.float32)
y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
x[rng.random(x.shape) < 0.1] = np.nan
pipe = make_pipeline(SimpleImputer(), StandardScaler(), GradientBoostingClassifier(n_estimators=20, random_state=0)).fit(x, y)
rows = x[:200]
save("pipeline", to_onnx(pipe, x[:1], options={"zipmap": False}, target_opset=17), rows, pipe.predict_proba(rows)[:, 1])

w1, b1 = rng.normal(size=(16, 30)) / 5, rng.normal(size=16)
w2, b2 = rng.normal(size=(1, 16)) / 4, rng.normal(size=1)
rows = rng.normal(size=(100, 30)).astype(np.float32)
want = 1 / (1 + np.exp(-(np.maximum(rows @ w1.T + b1, 0) @ w2.T + b2)))


def mlp(dtype, kind, batch):
    constants = [numpy_helper.from_array(v.astype(dtype), n) for n, v in (("0.weight", w1), ("0.bias", b1), ("2.weight", w2), ("2.bias", b2))]
    nodes = [
        helper.make_node("Gemm", ["rows", "0.weight", "0.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "2.weight", "2.bias"], ["z"], transB=1),
        helper.make_node("Sigmoid", ["z"], ["output"]),
    ]
    model = graph(nodes, [helper.make_tensor_value_info("rows", kind, [batch, 30])], [helper.make_tensor_value_info("output", kind, [batch, 1])], constants)
    onnx.checker.check_model(model, full_check=True)
    return model


save("mlp", mlp(np.float32, TensorProto.FLOAT, "N"), rows, want)
save("doubles", mlp(np.float64, TensorProto.DOUBLE, "N"), rows, want)
save("one", mlp(np.float32, TensorProto.FLOAT, 1), rows, want)

io = dict(
    inputs=[helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 1])],
    outputs=[helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 1])],
)
body = helper.make_graph(
    [helper.make_node("Identity", ["c"], ["go"]), helper.make_node("Sin", ["v"], ["w"])],
    "body",
    [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
    [helper.make_tensor_value_info("go", TensorProto.BOOL, []), helper.make_tensor_value_info("w", TensorProto.FLOAT, None)],
)
save("loop", graph([helper.make_node("Loop", ["n", "true", "rows"], ["output"], body=body)], **io, constants=[
    numpy_helper.from_array(np.array(2**62), "n"), numpy_helper.from_array(np.array(True), "true")]))

huge = numpy_helper.from_array(np.array([2**19, 2**19]), "huge")
zero = numpy_helper.from_array(np.array([[0.0]], np.float32), "zero")
save("memory", graph([
    helper.make_node("Expand", ["rows", "huge"], ["big"]),
    helper.make_node("ReduceMax", ["big"], ["top"]),
    helper.make_node("Add", ["rows", "top"], ["output"]),
], **io, constants=[huge]))
save("folded", graph([
    helper.make_node("Expand", ["zero", "huge"], ["big"]),
    helper.make_node("ReduceMax", ["big"], ["top"]),
    helper.make_node("Add", ["rows", "top"], ["output"]),
], **io, constants=[huge, zero]))

external = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
external.external_data.add(key="location", value="../../../etc/passwd")
save("external", graph([helper.make_node("Add", ["rows", "w"], ["output"])], **io, constants=[external]))
