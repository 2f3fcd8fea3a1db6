"""How answers leave: events and lines as they come, and no work for clients that have gone.

A response that streams is closed by the server when its client disconnects, which closes the
iterator and with it the request to the model. One that does not stream has nobody who would notice,
so ``unless_gone`` watches.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from pocketlm.errors import Cancelled, RequestError

T = TypeVar("T")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def sse_event(value: Any, *, event: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {_encode(value)}\n\n".encode()


def json_line(value: Any) -> bytes:
    """One line of NDJSON."""
    return (_encode(value) + "\n").encode()


def event_stream(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """A response of server-sent events."""
    merged = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
    return StreamingResponse(chunks, media_type="text/event-stream", headers=merged)


def ignored_header(names: Sequence[str], *, strict: bool) -> dict[str, str]:
    """The header that lists fields of a request which changed nothing.

    Raises:
        RequestError: there are some, and the server is strict.
    """
    if not names:
        return {}
    plain = [re.sub(r"[^\w.\[\]-]", "?", name, flags=re.ASCII)[:64] for name in names[:32]]
    if strict:
        raise RequestError(
            f"{plain[0]}: there is no such field, or it does nothing here",
            hint="The server or the request is strict.",
        )
    return {"X-PocketLM-Ignored": ", ".join(plain)}


def asks_strict(request: Request) -> bool:
    """Whether a request wants to be refused for fields that would change nothing."""
    return request.headers.get("x-pocketlm-strict", "").strip().lower() in ("1", "true")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``; it is cancelled, and Cancelled raised, if the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the client has gone")
        return task.result()
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    """Returns once the client has gone; the body must have been read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
