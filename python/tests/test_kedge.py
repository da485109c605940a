"""Against a running Kedge: KEDGE_SERVER names it."""

import asyncio
import os
import socket
import time
import unittest
import uuid

import kedge
from kedge.logger import _plain, _time

SERVER = os.environ.get("KEDGE_SERVER", "")


def eventually(check, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, kedge.KedgeError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Values(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(_plain({"a": float("nan"), "b": [float("-inf"), 2**63 - 1, None, True]}), {"a": "NaN", "b": ["-Infinity", 2**63 - 1, None, True]})
        with self.assertRaises(TypeError):
            _plain({"a": object()})

    def test_time(self):
        self.assertEqual(_time(0), "1970-01-01T00:00:00.000000Z")


class Unreachable(unittest.TestCase):
    """Nothing is lost silently when there is no server."""

    def test_counts(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        gone = []
        log = kedge.Logger(f"http://127.0.0.1:{port}", capacity=5, on_drop=lambda e, why: gone.append((e, why)))
        began = time.monotonic()
        for i in range(20):
            log.features("v", {"k": i}, {"x": i})
        self.assertLess(time.monotonic() - began, 1, "logging blocked its caller")
        stats = log.close(timeout=0.5)
        self.assertEqual((stats.sent, stats.waiting, stats.dropped), (0, 0, 20), stats)
        self.assertEqual(len(gone), 20)


@unittest.skipUnless(SERVER, "KEDGE_SERVER is not set: run clients/python/run.sh")
class Live(unittest.TestCase):
    def test_round_trip(self):
        tag = uuid.uuid4().hex[:8]
        view, model = f"py_view_{tag}", f"py_model_{tag}"
        with kedge.Logger(SERVER) as log:
            for i in range(2500):
                log.features(view, {"driver_id": i}, {"x": i / 4, "big": 2**53 + 1, "nan": float("nan")})
            pid = log.prediction(model, "1", {"a": 1.5, "s": "é"}, score=0.25, segments={"country": "IT"})
            log.label(model, pid, 1)
            log._put({"nonsense": True})
            self.assertTrue(log.flush())
            stats = log.stats()
        self.assertEqual((stats.sent, stats.refused, stats.dropped), (2502, 1, 0), stats)
        client = kedge.Client(SERVER)

        def landed():
            frame = client.query("rows", view=view, hours=1, limit=5000)
            self.assertEqual(len(frame), 2500)
            return frame

        frame = eventually(landed)
        row = frame.rows()[0]
        self.assertTrue(any(2**53 + 1 == v or str(2**53 + 1) == str(v) for v in row.values()), row)
        eventually(lambda: self.assertEqual(len(client.query("rows", model=model, hours=1)), 1))

    def test_refusal(self):
        with self.assertRaises(kedge.KedgeError) as caught:
            kedge.Client(SERVER).query("no_such_kind")
        self.assertIn(caught.exception.status, (400, 404, 422))

    def test_recorder(self):
        tag = uuid.uuid4().hex[:8]
        log = kedge.Logger(SERVER)

        async def app(scope, receive, send):
            scope["state"]["kedge"].prediction(f"asgi_{tag}", "1", {"a": 1}, value=2.0)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        sent = []

        async def send(m):
            sent.append(m)

        asyncio.run(kedge.Recorder(app, logger=log)({"type": "http", "headers": []}, None, send))
        id = dict(sent[0]["headers"])[b"kedge-prediction-id"].decode()
        log.close()
        client = kedge.Client(SERVER)
        rows = eventually(lambda: self.assertEqual(len(client.query("rows", model=f"asgi_{tag}", hours=1)), 1) or client.query("rows", model=f"asgi_{tag}", hours=1).rows())
        self.assertIn(id, str(rows[0]))


if __name__ == "__main__":
    unittest.main()
