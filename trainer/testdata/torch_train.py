"""Trains a small network with PyTorch on the GPU that it sees, for Kedge's command back-end."""

import json
import os

import numpy as np
import onnx
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, helper, numpy_helper

print("visible:", os.environ.get("CUDA_VISIBLE_DEVICES"))
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
job = json.load(open(os.environ["KEDGE_PARAMS"]))
names = [i["name"] for i in job["inputs"]]
out = os.environ["KEDGE_OUT"]


def rows(path):
    t = pq.read_table(path)
    x = np.stack([t[n].to_numpy(zero_copy_only=False).astype(np.float32) for n in names], 1)
    y = t["__label"].to_numpy().astype(np.float32)
    return torch.tensor(np.nan_to_num(x)).to(device), torch.tensor(y).to(device)


torch.manual_seed(1)
x, y = rows(os.environ["KEDGE_TRAIN"])
vx, vy = rows(os.environ["KEDGE_VALID"])
net = torch.nn.Sequential(torch.nn.Linear(len(names), 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).to(device)
loss = torch.nn.BCEWithLogitsLoss()
step = torch.optim.Adam(net.parameters(), lr=0.01)
for epoch in range(200):
    step.zero_grad()
    loss(net(x)[:, 0], y).backward()
    step.step()
    if epoch % 50 == 49:
        with torch.no_grad():
            print(json.dumps({"round": epoch, "metrics": {"valid": {"logloss": loss(net(vx)[:, 0], vy).item()}}}), flush=True)

w = {k: v.detach().cpu().numpy() for k, v in net.state_dict().items()}
nodes = [
    helper.make_node("IsNaN", ["rows"], ["missing"]),
    helper.make_node("Where", ["missing", "zero", "rows"], ["x"]),
    helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
    helper.make_node("Relu", ["h"], ["r"]),
    helper.make_node("Gemm", ["r", "w1", "b1"], ["z"], transB=1),
    helper.make_node("Sigmoid", ["z"], ["score"]),
]
weights = {"zero": np.zeros(1, np.float32), "w0": w["0.weight"], "b0": w["0.bias"], "w1": w["2.weight"], "b1": w["2.bias"]}
graph = helper.make_graph(
    nodes, "net",
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, len(names)])],
    [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
    [numpy_helper.from_array(v, k) for k, v in weights.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, out + "/model.onnx")
golden = np.fromfile(os.environ["KEDGE_GOLDEN"], np.float32).reshape(-1, len(names))
with torch.no_grad():
    scores = torch.sigmoid(net.cpu()(torch.tensor(np.nan_to_num(golden))))[:, 0].numpy()
scores.astype(np.float32).tofile(out + "/golden.f32")
used = "cuda:0" if device.type == "cuda" else "cpu"
json.dump({"device": used, "framework": "torch " + torch.__version__, "output": "score"}, open(out + "/report.json", "w"))
