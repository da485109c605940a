"""Drives a server with tritonclient (HTTP, gRPC) and open-inference-openapi.

usage: triton.py HTTP_HOST_PORT GRPC_HOST_PORT
"""
import os
import sys

import httpx
import numpy as np
import tritonclient.grpc as tg
import tritonclient.grpc.auth
import tritonclient.http as th
import tritonclient.http.auth
from open_inference.openapi.client import InferenceRequest, OpenInferenceClient

http_address, grpc_address = sys.argv[1:3]
ROWS = np.array([[5, 1], [1, 9], [np.nan, 1]], dtype=np.float32)


def check(name, ok):
    print(("ok    " if ok else "FAIL  ") + name, flush=True)
    if not ok:
        sys.exit(1)


def drive(name, lib, c):
    check(f"{name}: live, ready, model ready", c.is_server_live() and c.is_server_ready() and c.is_model_ready("loans"))
    tensor = lib.InferInput("input", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS)
    r = c.infer("loans", [tensor], request_id="a", timeout=5_000_000)
    (output,) = [o.name if hasattr(o, "name") else o["name"] for o in (r.get_response().outputs if name == "grpc" else r.get_response()["outputs"])]
    scores = r.as_numpy(output)
    check(f"{name}: the indebted default rather than the rich: {scores}", scores.shape == (3,) and scores[1] > 0.5 > scores[0])
    check(f"{name}: unload", c.unload_model("loans") is None and not c.is_model_ready("loans"))
    index = c.get_model_repository_index()
    first = index.models[0] if name == "grpc" else index[0]
    state = first.state if name == "grpc" else first["state"]
    check(f"{name}: the index says so", state == "UNAVAILABLE")
    check(f"{name}: load", c.load_model("loans") is None and c.is_model_ready("loans"))
    again = c.infer("loans", [tensor]).as_numpy(output)
    check(f"{name}: the same answer after it was loaded again", np.array_equal(again, scores, equal_nan=True))
    return scores


token, ca = os.environ.get("TOKEN", ""), os.environ.get("CA", "")
h = th.InferenceServerClient(http_address, ssl=bool(ca), ssl_options={"ca_certs": ca} if ca else None)
g = tg.InferenceServerClient(grpc_address, ssl=bool(ca), root_certificates=ca or None)
if token:
    h.register_plugin(th.auth.BasicAuth("suite", token))
    g.register_plugin(tg.auth.BasicAuth("suite", token))
a = drive("http", th, h)
b = drive("grpc", tg, g)
check("http and grpc agree", np.array_equal(a, b, equal_nan=True))
s = g.get_inference_statistics("loans").model_stats[0]
check("grpc: statistics", s.name == "loans" and s.inference_count >= 3 and s.inference_stats.success.count >= 1)
c = g.get_model_config("loans").config
check("grpc: configuration", c.name == "loans" and c.input[0].name == "input" and list(c.input[0].dims) == [-1, 2])
try:
    g.load_model("nope")
    check("grpc: an unknown model is not loaded", False)
except Exception as e:
    check(f"grpc: an unknown model is not loaded: {e}", "no deployment" in str(e))

o = OpenInferenceClient(
    base_url=("https://" if ca else "http://") + http_address,
    httpx_client=httpx.Client(headers={"Authorization": "Bearer " + token} if token else {}, verify=ca or True),
)
o.check_server_liveness()
o.check_server_readiness()
o.check_model_readiness("loans")
meta = o.read_model_metadata("loans")
r = o.model_infer("loans", request=InferenceRequest(inputs=[{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 9]}]))
check("open-inference-openapi: metadata and an answer", meta.name == "loans" and r.outputs[0].name == meta.outputs[0].name)
