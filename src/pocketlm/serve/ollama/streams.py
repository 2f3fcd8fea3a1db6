"""Lines of NDJSON to a client: the first one decides the status, a later error is the last line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pocketlm.serve.ollama.route import error_line
from pocketlm.serve.replies import json_line, unless_gone

Line = dict[str, Any]


async def stream_lines(
    request: Request, lines: AsyncGenerator[Line, None], headers: Mapping[str, str]
) -> StreamingResponse:
    """A response of ``lines``. What goes wrong before the first line is raised here."""
    try:
        first = await unless_gone(request, anext(lines))
    except BaseException:
        with suppress(RuntimeError):
            await lines.aclose()
        raise
    return _Lines(lines, _written(first, lines), headers)


class _Lines(StreamingResponse):
    """Closes the lines however the response ends, and with them the request to the model."""

    def __init__(
        self,
        lines: AsyncGenerator[Line, None],
        chunks: AsyncIterator[bytes],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(chunks, media_type="application/x-ndjson", headers=dict(headers))
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with suppress(RuntimeError):  # it is being closed already
                await self._lines.aclose()


async def _written(first: Line, lines: AsyncGenerator[Line, None]) -> AsyncIterator[bytes]:
    yield json_line(first)
    try:
        async for line in lines:
            yield json_line(line)
    except Exception as error:
        yield json_line(error_line(error))
