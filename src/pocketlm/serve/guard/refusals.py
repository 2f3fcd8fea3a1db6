"""How the guard says no: in the shape of the API that was asked, counted, and noted for the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from pocketlm.serve.failures import failure
from pocketlm.serve.observe.entry import current
from pocketlm.serve.observe.metrics import Metrics


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request that is not let in.

    Args:
        status: of the response.
        reason: one word for metrics and the log.
        message: what is wrong and what would be right.
        headers: of the response.
    """

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.headers = dict(headers or {})


async def refuse(
    refusal: Refusal, metrics: Metrics, scope: Connection, receive: Receive, send: Send
) -> None:
    """Sends the refusal. The body of the request was not read, so the connection is closed."""
    metrics.refused(refusal.reason)
    entry = current.get()
    if entry is not None:
        entry.refused = refusal.reason
    headers = {"Connection": "close", **refusal.headers}
    response = failure(scope["path"], refusal.status, refusal.message, headers=headers)
    await response(scope, receive, send)


def values(scope: Connection, name: bytes) -> list[str]:
    """All values of a header; ``name`` in small letters."""
    found: list[Any] = scope["headers"]
    return [value.decode("latin-1").strip() for key, value in found if key == name]
