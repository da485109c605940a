"""A FastAPI application with the recorder, asked as a client would: needs FastAPI
and a running Kedge, which KEDGE_SERVER names."""

import os
import threading
import time
import urllib.error
import urllib.request
import uuid

import uvicorn
from fastapi import FastAPI, Request

import kedge

SERVER = os.environ["KEDGE_SERVER"]
model = "fastapi_" + uuid.uuid4().hex[:8]
log = kedge.Logger(SERVER)
app = FastAPI()
app.add_middleware(kedge.Recorder, logger=log)


@app.post("/score")
async def score(request: Request, amount: float):
    request.state.kedge.prediction(model, "3", inputs={"amount": amount}, score=0.5)
    return {"score": 0.5}


server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.02)
port = server.servers[0].sockets[0].getsockname()[1]


def ask(path):
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", method="POST")) as res:
            return res.status, res.headers.get("Kedge-Prediction-Id")
    except urllib.error.HTTPError as err:
        return err.code, err.headers.get("Kedge-Prediction-Id")


ids = []
for i in range(5):
    status, pid = ask(f"/score?amount={i}")
    assert status == 200 and pid, (status, pid)
    ids.append(pid)
assert len(set(ids)) == 5, ids
assert ask("/score?amount=dear")[0] == 422  # nothing was predicted
for pid in ids:
    log.label(model, pid, 1)
stats = log.close()
assert stats.sent == 10 and stats.dropped == 0, stats
client = kedge.Client(SERVER)
for _ in range(200):
    try:
        rows = client.query("rows", model=model, hours=1, columns=["id", "amount"]).rows()
        if len(rows) == 5:
            break
    except kedge.KedgeError:
        pass
    time.sleep(0.1)
assert sorted(r["id"] for r in rows) == sorted(ids), rows
assert sorted(r["amount"] for r in rows) == [0, 1, 2, 3, 4], rows
server.should_exit = True
print("5 predictions recorded under the ids that the answers carried; a refused request left none")
