"""Questions to a Kedge, answered as frames."""

from __future__ import annotations

import datetime
import json
import urllib.error
import urllib.request
from typing import Any, Dict, List, Optional

from .logger import _time


class KedgeError(Exception):
    """A refusal by the server: `status` is HTTP's, `code` and the text are Kedge's."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(f"{message} ({code or status})")
        self.status, self.code, self.message = status, code, message


class Frame:
    """One answer: equally long columns and what they mean."""

    def __init__(self, wire: Dict[str, Any]):
        self.name: str = wire.get("name", "")
        self.type: str = wire.get("type", "")
        self.notices: List[dict] = wire.get("notices") or []
        self.columns: List[dict] = wire["columns"]

    def __len__(self) -> int:
        return len(self.columns[0]["values"]) if self.columns else 0

    def column(self, name: str) -> list:
        """The values of the first column of a name; words for NaN and infinities become floats."""
        for c in self.columns:
            if c["name"] == name:
                return _values(c)
        raise KeyError(f"frame {self.name!r} has no column {name!r}: it has {[c['name'] for c in self.columns]}")

    def rows(self) -> List[dict]:
        """The frame as dictionaries, one a row."""
        titles = [_title(c) for c in self.columns]
        return [dict(zip(titles, row)) for row in zip(*(_values(c) for c in self.columns))]

    def pandas(self):
        """The frame as a pandas.DataFrame, times as UTC timestamps."""
        import pandas as pd

        out = pd.DataFrame({_title(c): _values(c) for c in self.columns})
        for c in self.columns:
            if c["type"] == "time":
                out[_title(c)] = pd.to_datetime(out[_title(c)], utc=True, format="ISO8601")
        return out


def _title(c: dict) -> str:
    labels = c.get("labels")
    if not labels:
        return c["name"]
    return c["name"] + "{" + ", ".join(f"{k}={v}" for k, v in sorted(labels.items())) + "}"


def _values(c: dict) -> list:
    values = c["values"] or []
    if c["type"] == "float":
        return [float(v) if isinstance(v, str) else v for v in values]
    return values


class Client:
    """Asks a running Kedge."""

    def __init__(self, server: str = "http://127.0.0.1:7070", key: Optional[str] = None, timeout: float = 60.0):
        self._server, self._key, self._timeout = server.rstrip("/"), key, timeout

    def query(self, kind: str, *, hours: Optional[float] = None, start=None, end=None, **members: Any) -> Frame:
        """Ask one question and return its first frame. members: view, model, columns, step, limit, …"""
        return self.frames(kind, hours=hours, start=start, end=end, **members)[0]

    def frames(self, kind: str, *, hours: Optional[float] = None, start=None, end=None, **members: Any) -> List[Frame]:
        """Ask one question and return all frames of the answer."""
        if hours is not None:
            end = end or datetime.datetime.now(datetime.timezone.utc)
            start = end - datetime.timedelta(hours=hours)
        ask = {"kind": kind, **{k: v for k, v in members.items() if v is not None}}
        if start is not None:
            ask["from"] = _time(start)
        if end is not None:
            ask["to"] = _time(end)
        return [Frame(f) for f in self._post("/v1/query", ask)["frames"]]

    def _post(self, path: str, body: dict) -> dict:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = "Bearer " + self._key
        req = urllib.request.Request(self._server + path, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with urllib.request.urlopen(req, timeout=self._timeout) as res:
                return json.load(res)
        except urllib.error.HTTPError as err:
            raise _refusal(err) from None


def _refusal(err: urllib.error.HTTPError) -> KedgeError:
    text = err.read(4000).decode("utf-8", "replace")
    try:
        body = json.loads(text)
        return KedgeError(err.code, str(body.get("code", "")), str(body.get("message", text)))
    except (ValueError, AttributeError):
        return KedgeError(err.code, "", text)
