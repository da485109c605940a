"""Questions to a Kedge, answered as frames."""

from __future__ import annotations

import csv
import datetime
import io
import json
import shutil
import urllib.error
import urllib.parse
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

    def history(self, entities, features: Optional[List[str]] = None, service: Optional[str] = None, path: Optional[str] = None):
        """Join features to entities as they were known at each row's event_timestamp.

        entities is a pandas.DataFrame or a list of dicts: key columns, event_timestamp and whatever else is to stay.
        features are "view:feature" names; service names a feature service instead. The answer is a pandas.DataFrame;
        with a path it is written there, as Parquet when the name ends in .parquet and else as CSV, and the path returned.
        """
        ask = urllib.parse.urlencode([("features", f) for f in features or []] + ([("feature_service", service)] if service else []))
        accept = "application/vnd.apache.parquet" if path and str(path).endswith(".parquet") else "text/csv"
        with self._open("/v1/historical-features?" + ask, _csv(entities), "text/csv", accept) as res:
            if path is None:
                import pandas

                return pandas.read_csv(io.BytesIO(res.read()))
            with open(path, "wb") as out:
                shutil.copyfileobj(res, out)
            return path

    def _post(self, path: str, body: dict) -> dict:
        with self._open(path, json.dumps(body).encode(), "application/json", "application/json") as res:
            return json.load(res)

    def _open(self, path: str, body: bytes, content: str, accept: str):
        headers = {"Content-Type": content, "Accept": accept}
        if self._key:
            headers["Authorization"] = "Bearer " + self._key
        req = urllib.request.Request(self._server + path, data=body, headers=headers, method="POST")
        try:
            return urllib.request.urlopen(req, timeout=self._timeout)
        except urllib.error.HTTPError as err:
            raise _refusal(err) from None


def _csv(rows) -> bytes:
    """A DataFrame or a list of dicts as CSV; times as Kedge reads them."""
    if hasattr(rows, "to_dict"):
        rows = rows.to_dict("records")
    out = io.StringIO()
    w = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["event_timestamp"], lineterminator="\n")
    w.writeheader()
    for r in rows:
        w.writerow({k: _time(v) if isinstance(v, datetime.datetime) else v for k, v in r.items()})
    return out.getvalue().encode()


def _refusal(err: urllib.error.HTTPError) -> KedgeError:
    text = err.read(4000).decode("utf-8", "replace")
    try:
        body = json.loads(text)
        return KedgeError(err.code, str(body.get("code", "")), str(body.get("message", text)))
    except (ValueError, AttributeError):
        return KedgeError(err.code, "", text)
