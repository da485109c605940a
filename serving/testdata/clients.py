"""Drives a server with other people's clients, unmodified.

usage: clients.py HTTP_HOST_PORT GRPC_HOST_PORT

The server holds model "fraud" (FP32 inputs f0, f1; answer f0 + 10 * f1).
Prints one line per check and fails on the first that does not hold.
"""
import sys

import numpy as np
import tritonclient.grpc as tg
import tritonclient.http as th
from open_inference.openapi.client import OpenInferenceClient, InferenceRequest
from tritonclient.utils import InferenceServerException

http_address, grpc_address = sys.argv[1:3]
ROWS = np.array([[3, 0.5], [np.nan, 1], [1e-3, -2]], dtype=np.float32)
WANT = ROWS[:, 0] + 10 * ROWS[:, 1]


def check(name, ok):
    print(("ok   " if ok else "FAIL ") + name, flush=True)
    if not ok:
        sys.exit(1)


def refused(name, call, word):
    try:
        call()
    except Exception as e:  # each client has its own class of error
        check(f"{name}: {e}", word in str(e))
        return
    check(f"{name}: not refused", False)


def triton(name, lib, client, **binary):
    check(f"{name} live, ready, model ready", client.is_server_live() and client.is_server_ready() and client.is_model_ready("fraud"))
    check(f"{name} unknown model is not ready", not client.is_model_ready("nope"))
    tensor = lib.InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, **binary)
    got = client.infer("fraud", [tensor], request_id="r1", timeout=5_000_000)
    check(f"{name} answer", np.array_equal(got.as_numpy("prediction"), WANT, equal_nan=True))
    columns = []
    for i in range(2):
        c = lib.InferInput(f"f{i}", [len(ROWS)], "FP32")
        c.set_data_from_numpy(ROWS[:, i].copy(), **binary)
        columns.append(c)
    out = lib.InferRequestedOutput("prediction", **binary)
    got = client.infer("fraud", columns, outputs=[out], model_version="1")
    check(f"{name} one tensor an input", np.array_equal(got.as_numpy("prediction"), WANT, equal_nan=True))
    wrong = lib.InferInput("input", [1, 2], "INT64")
    wrong.set_data_from_numpy(np.array([[1, 2]], dtype=np.int64), **binary)
    refused(f"{name} wrong datatype", lambda: client.infer("fraud", [wrong]), "FP32")
    refused(f"{name} unknown model", lambda: client.infer("nope", [tensor]), "not found")
    refused(f"{name} unknown output", lambda: client.infer("fraud", [tensor], outputs=[lib.InferRequestedOutput("x")]), "unexpected output")


c = th.InferenceServerClient(http_address)
triton("tritonclient[http] binary", th, c, binary_data=True)
rows = ROWS.copy()
rows[1, 0] = 7  # JSON has no NaN
tensor = th.InferInput("input", [3, 2], "FP32")
tensor.set_data_from_numpy(rows, binary_data=False)
got = c.infer("fraud", [tensor], outputs=[th.InferRequestedOutput("prediction", binary_data=False)])
check("tritonclient[http] JSON", np.array_equal(got.as_numpy("prediction"), rows[:, 0] + 10 * rows[:, 1]))
meta = c.get_model_metadata("fraud")
check("metadata", meta["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}])
check("server metadata", "binary_tensor_data" in c.get_server_metadata()["extensions"])
check("config", c.get_model_config("fraud")["input"][0]["data_type"] == "TYPE_FP32")
check("statistics", c.get_inference_statistics("fraud")["model_stats"][0]["inference_count"] >= 9)
check("repository index", c.get_model_repository_index() == [{"name": "fraud", "version": "1", "state": "READY"}])

g = tg.InferenceServerClient(grpc_address)
triton("tritonclient[grpc]", tg, g)
m = g.get_model_metadata("fraud")
check("grpc metadata", m.inputs[0].datatype == "FP32" and list(m.inputs[0].shape) == [-1, 2] and list(m.versions) == ["1"])
check("grpc repository index", g.get_model_repository_index().models[0].state == "READY")

o = OpenInferenceClient(base_url="http://" + http_address)
o.check_server_liveness()  # these raise unless the answer is 200
o.check_server_readiness()
o.check_model_readiness("fraud")
check("open-inference live, ready, model ready", True)
check("open-inference metadata", o.read_model_metadata("fraud").name == "fraud")
a = o.model_infer("fraud", request=InferenceRequest(inputs=[{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [3, 0.5]}]))
check("open-inference answer", "8.0" in str(a.outputs[0].data))
refused("open-inference unknown model", lambda: o.read_model_metadata("nope"), "not found")
print("all checks passed")
