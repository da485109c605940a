"""An ASGI middleware that ties a request to its prediction."""

from __future__ import annotations

import uuid
from typing import Any, Optional

from .logger import Logger

HEADER = b"kedge-prediction-id"


class Request:
    """What a handler finds as request.state.kedge: the logger, with this request's prediction id."""

    def __init__(self, logger: Logger, id: str, trace: Optional[str]):
        self._logger, self.id, self._trace, self._used = logger, id, trace, 0

    def prediction(self, model: str, version: str, inputs: Any, **output: Any) -> str:
        """Log a prediction under this request's id (a second one under "<id>/1", and so on)."""
        id = self.id if self._used == 0 else f"{self.id}/{self._used}"
        self._used += 1
        if self._trace and "trace" not in output:
            output["trace"] = self._trace
        return self._logger.prediction(model, version, inputs, id=id, **output)


class Recorder:
    """Gives every HTTP request a prediction id and puts it on the answer's headers."""

    def __init__(self, app: Any, logger: Logger):
        self.app, self.logger = app, logger

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = str(uuid.uuid4())
        scope.setdefault("state", {})["kedge"] = Request(self.logger, id, _trace(scope))

        async def answer(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (HEADER, id.encode())]}
            await send(message)

        await self.app(scope, receive, answer)


def _trace(scope: dict) -> Optional[str]:
    """The trace id of a W3C traceparent header."""
    for name, value in scope.get("headers", []):
        if name == b"traceparent" and len(value) >= 55:
            return value[3:35].decode("ascii", "replace")
    return None
