"""A logger that never blocks its caller and never loses silently."""

from __future__ import annotations

import atexit
import collections
import dataclasses
import datetime
import gzip
import json
import logging
import math
import threading
import time
import urllib.error
import urllib.request
import uuid
from typing import Any, Callable, Mapping, Optional

_log = logging.getLogger("kedge")

_BATCH = 1000  # events a request
_LINGER = 0.2  # seconds that an event may wait for others
_FIRST_RETRY = 0.2
_LONGEST_RETRY = 10.0


@dataclasses.dataclass(frozen=True)
class Stats:
    """What became of the events so far; the four add up to all that were logged."""

    sent: int  # acknowledged
    waiting: int
    refused: int  # the server will never take them; see `reasons`
    dropped: int  # the queue was full, or close() ran out of time
    reasons: tuple  # the newest refusals, as text


class Logger:
    """Sends events to a Kedge from a thread of its own.

    server: base URL.  key: API key, if the server wants one.
    capacity: events that may wait; beyond it new ones are dropped and counted.
    on_drop: called with each event that is dropped or refused, and the reason.
    """

    def __init__(
        self,
        server: str = "http://127.0.0.1:7070",
        key: Optional[str] = None,
        capacity: int = 100_000,
        on_drop: Optional[Callable[[dict, str], None]] = None,
        timeout: float = 30.0,
    ):
        self._url = server.rstrip("/") + "/v1/events"
        self._key = key
        self._capacity = capacity
        self._on_drop = on_drop
        self._timeout = timeout
        self._queue: collections.deque = collections.deque()
        self._wake = threading.Condition()
        self._closing = False
        self._deadline = math.inf
        self._in_flight = 0
        self._sent = self._refused = self._dropped = 0
        self._reasons: collections.deque = collections.deque(maxlen=20)
        self._thread = threading.Thread(target=self._run, name="kedge-logger", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # What to log.

    def features(self, view: str, key: Mapping[str, Any], values: Mapping[str, Any], event_time=None, created=None, id: Optional[str] = None, delete: bool = False) -> None:
        """Log one row of a feature view. A row states the whole vector of its view."""
        e = {"view": view, "key": dict(key), "event_time": _time(event_time), "values": dict(values)}
        if created is not None:
            e["created"] = _time(created)
        if id is not None:
            e["id"] = id
        if delete:
            e["delete"] = True
        self._put(e)

    def prediction(
        self,
        model: str,
        version: str,
        inputs: Mapping[str, Any],
        *,
        score: Optional[float] = None,
        scores: Optional[Mapping[str, float]] = None,
        value: Optional[float] = None,
        class_: Optional[str] = None,
        id: Optional[str] = None,
        key: Optional[Mapping[str, Any]] = None,
        event_time=None,
        **more: Any,
    ) -> str:
        """Log one prediction and return its id, by which its label will find it.

        more: further members of the envelope, e.g. segments, variant, weight, threshold.
        """
        output = {k: v for k, v in {"score": score, "scores": scores, "value": value, "class": class_}.items() if v is not None}
        if not output:
            raise ValueError("prediction without an output: give score, scores, value or class_")
        id = id or str(uuid.uuid4())
        e = {"model": model, "version": version, "id": id, "event_time": _time(event_time), "inputs": dict(inputs), "output": output, **more}
        if key is not None:
            e["key"] = dict(key)
        self._put(e)
        return id

    def label(self, model: str, prediction_id: str, label: Any, event_time=None, **more: Any) -> None:
        """Log what turned out true of a prediction; None withdraws an earlier label."""
        self._put({"model": model, "prediction_id": prediction_id, "label": label, "event_time": _time(event_time), **more})

    # What became of it.

    def stats(self) -> Stats:
        with self._wake:
            return Stats(self._sent, len(self._queue) + self._in_flight, self._refused, self._dropped, tuple(self._reasons))

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until nothing waits any more; False when that took too long."""
        end = time.monotonic() + timeout
        with self._wake:
            while self._queue or self._in_flight:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._wake.notify_all()
                self._wake.wait(min(left, 0.1))
        return True

    def close(self, timeout: float = 10.0) -> Stats:
        """Send what waits, within `timeout`, and stop. What could not be sent is counted as dropped."""
        atexit.unregister(self.close)
        with self._wake:
            self._closing = True
            self._deadline = time.monotonic() + timeout
            self._wake.notify_all()
        self._thread.join(timeout + self._timeout)
        left = self.stats()
        if left.dropped or left.refused:
            _log.warning("kedge: %d events dropped, %d refused: %s", left.dropped, left.refused, "; ".join(left.reasons))
        return left

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # How it is done.

    def _put(self, e: dict) -> None:
        line = json.dumps(_plain(e), separators=(",", ":"), allow_nan=False)
        with self._wake:
            if self._closing or len(self._queue) >= self._capacity:
                self._dropped += 1
                full = not self._closing
            else:
                self._queue.append(line)
                if len(self._queue) >= _BATCH:
                    self._wake.notify_all()
                return
        self._lost(line, "the queue is full" if full else "the logger is closed")

    def _lost(self, line: str, reason: str) -> None:
        with self._wake:
            self._reasons.append(reason)
        if self._on_drop is not None:
            self._on_drop(json.loads(line), reason)

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch is None:
                return
            if batch:
                self._deliver(batch)

    def _take(self):
        """The next batch; None when the logger is closed and empty."""
        with self._wake:
            if not self._closing and len(self._queue) < _BATCH:
                self._wake.wait(_LINGER)
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._in_flight = len(batch)
            if not batch and self._closing:
                return None
            return batch

    def _deliver(self, batch: list) -> None:
        pause = _FIRST_RETRY
        while True:
            try:
                self._settle(batch, self._send(batch))
                return
            except urllib.error.HTTPError as err:
                text = err.read(2000).decode("utf-8", "replace")
                if err.code not in (408, 425, 429) and err.code < 500:
                    self._end(batch, "refused", f"{err.code}: {text}")
                    return
                problem = f"{err.code}: {text}"
            except OSError as err:
                problem = str(err)
            if time.monotonic() + pause > self._deadline:
                self._end(batch, "dropped", f"closed before the server took them ({problem})")
                return
            _log.debug("kedge: sending again in %.1f s: %s", pause, problem)
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY)

    def _sleep(self, seconds: float) -> None:
        """Wait, but wake up to a close() that leaves less time."""
        with self._wake:
            if not self._closing:
                self._wake.wait(seconds)
                return
        time.sleep(seconds)

    def _send(self, batch: list) -> dict:
        body = gzip.compress("\n".join(batch).encode(), 1)
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        if self._key:
            headers["Authorization"] = "Bearer " + self._key
        req = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(req, timeout=self._timeout) as res:
            return json.load(res)

    def _settle(self, batch: list, answer: Mapping[str, Any]) -> None:
        """Count what the server took; lines that it rejected are refused for good."""
        errors = answer.get("errors") or []
        with self._wake:
            self._sent += answer.get("accepted", 0)
            self._refused += answer.get("rejected", 0)
            self._in_flight = 0
            self._wake.notify_all()
        for e in errors:
            self._lost(batch[e["line"] - 1], f"{e.get('code')}: {e.get('message')}")

    def _end(self, batch: list, how: str, reason: str) -> None:
        with self._wake:
            if how == "refused":
                self._refused += len(batch)
            else:
                self._dropped += len(batch)
            self._in_flight = 0
            self._wake.notify_all()
        for line in batch:
            self._lost(line, reason)


def _time(t) -> str:
    """RFC 3339 of a datetime (naive means UTC), of seconds since the epoch, or of now."""
    if t is None:
        t = datetime.datetime.now(datetime.timezone.utc)
    elif isinstance(t, (int, float)):
        t = datetime.datetime.fromtimestamp(t, datetime.timezone.utc)
    elif isinstance(t, str):
        return t
    if t.tzinfo is None:
        t = t.replace(tzinfo=datetime.timezone.utc)
    return t.astimezone(datetime.timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(v: Any) -> Any:
    """Values as the envelope writes them: NaN and infinities are words, NumPy scalars are numbers."""
    if isinstance(v, float):
        if math.isnan(v):
            return "NaN"
        if math.isinf(v):
            return "Infinity" if v > 0 else "-Infinity"
        return v
    if v is None or isinstance(v, (str, bool, int)):
        return v
    if isinstance(v, Mapping):
        return {str(k): _plain(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [_plain(x) for x in v]
    if isinstance(v, datetime.datetime):
        return _time(v)
    if hasattr(v, "tolist"):  # NumPy arrays and scalars
        return _plain(v.tolist())
    if hasattr(v, "item"):
        return _plain(v.item())
    raise TypeError(f"a value of type {type(v).__name__} has no JSON form: {v!r}")
