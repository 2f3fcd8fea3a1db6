"""Every request gets an id, a line in the log when it is over, and is counted.

The outermost part of the application: it sees what the guard refuses, and what breaks.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocketlm.serve.failures import failure
from pocketlm.serve.observe.entry import UNCOUNTED, Entry, current
from pocketlm.serve.observe.metrics import Metrics
from pocketlm.serve.observe.tracing import Tracing, open_tracing
from pocketlm.serve.services import Services

_log = logging.getLogger(__name__)
access = logging.getLogger("pocketlm.access")

_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_GONE = 499  # the client left before there was a response


class Requests:
    """Middleware: ids, the log, and the count of responses."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket: no route takes one
            await send({"type": "websocket.close", "code": 1008})
            return
        entry = Entry(_request_id(scope))
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", entry.id.encode()),
                ]
            await send(message)

        token = current.set(entry)
        span = self._tracing.begin(scope) if self._tracing else None
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            _log.error("request %s failed", entry.id, exc_info=error)
            if status:
                raise  # the response has begun: only a broken connection can tell the client
            text = "the server failed on this request; its log says why"
            await failure(scope["path"], 500, text)(scope, receive, sending)
        finally:
            current.reset(token)
            self._note(scope, status or _GONE, entry)
            if span is not None and self._tracing is not None:
                self._tracing.end(span, scope, status or _GONE, entry)

    def _note(self, scope: Scope, status: int, entry: Entry) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.responded(method, route_of(scope), status)
        if scope["path"] not in UNCOUNTED and access.isEnabledFor(logging.INFO):
            access.info("request", extra={"request": _line(scope, status, entry)})


def install(app: FastAPI, services: Services) -> None:
    """Adds the middleware; it must be the last to be added."""
    app.add_middleware(Requests, services.metrics, open_tracing())


def route_of(scope: Scope) -> str:
    """The pattern of the route that answered; "none" where no route was reached."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))


def _request_id(scope: Scope) -> str:
    """The client's id for the request where it is harmless, else a new one."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and _SANE.fullmatch(given[0]):
        return bytes(given[0]).decode()
    return secrets.token_hex(12)


def _line(scope: Scope, status: int, entry: Entry) -> dict[str, Any]:
    """What the log keeps of a request: no query, no header, no body."""
    record: dict[str, Any] = {
        "id": entry.id,
        "method": scope["method"],
        "path": scope["path"][:256],
        "status": status,
        "ms": round(1e3 * (time.perf_counter() - entry.began), 1),
    }
    if entry.key is not None:
        record["key"] = entry.key
    if entry.model is not None:
        record["model"] = entry.model
        record["prompt_tokens"] = entry.prompt_tokens
        record["output_tokens"] = entry.output_tokens
    if entry.ttft is not None:
        record["ttft_ms"] = round(1e3 * entry.ttft, 1)
    if entry.ended is not None:
        record["finish"] = entry.ended.reason
    if entry.refused is not None:
        record["refused"] = entry.refused
    return record


def plain(record: dict[str, Any]) -> str:
    """A line for people: ``POST /v1/completions 200 12.3 ms model=…``; all values escaped."""
    head = f"{record['method']} {record['path']} {record['status']} {record['ms']} ms"
    skipped = ("method", "path", "status", "ms")
    rest = (
        f"{name}={value if isinstance(value, int | float) else json.dumps(value)}"
        for name, value in record.items()
        if name not in skipped
    )
    return " ".join((head, *rest))
