"""Drives a server with KServe's own inference client, both protocols.

usage: kserve_client.py URL
"""
import asyncio
import os
import sys

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url = sys.argv[1]
token, ca = os.environ.get("TOKEN", ""), os.environ.get("CA", "")
more = {"auth": ("suite", token), "verify": ca} if token else {}


def check(name, ok):
    print(("ok    " if ok else "FAIL  ") + name, flush=True)
    if not ok:
        sys.exit(1)


async def main():
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", **more))
    check("kserve v2: live and ready", await v2.is_server_live(url) and await v2.is_server_ready(url))
    check("kserve v2: model ready", await v2.is_model_ready(url, "loans"))
    tensor = InferInput(name="input", shape=[2, 2], datatype="FP32", data=[[5, 1], [1, 9]])
    r = await v2.infer(url, InferRequest(model_name="loans", request_id="k", infer_inputs=[tensor]), model_name="loans")
    scores = r.outputs[0].data
    check(f"kserve v2: an answer: {list(scores)}", scores[1] > 0.5 > scores[0])
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", **more))
    check("kserve v1: model ready", await v1.is_model_ready(url, "loans"))
    r = await v1.infer(url, {"instances": [[5, 1], [1, 9]]}, model_name="loans")
    check("kserve v1: the same answer", all(abs(a - b) < 1e-6 for a, b in zip(r["predictions"], scores)))


asyncio.run(main())
