"""How long a request's head may take and how large it may get before there is a request to look at.

uvicorn parses a head as it comes and waits for its end without a limit, so a client that never
finishes one would keep its connection, or with an endless header the server's memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pocketlm.serve.observe.metrics import Metrics

HEAD_S = 60.0
MOST_BYTES = 64 << 10
"""That come after the first piece of a head; ``Hosts`` counts heads that are whole to the byte."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


def bounded_http(metrics: Metrics, *, seconds: float = HEAD_S) -> type[HttpToolsProtocol]:
    """uvicorn's protocol of a connection with those limits. ``seconds``: for a head to come in."""

    class BoundedHttp(HttpToolsProtocol):
        """Between requests uvicorn's own timeout goes; a new connection waits for a head."""

        _due: asyncio.TimerHandle | None = None  # while a head has not ended
        _late = 0  # bytes of it after its first piece

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._await_head()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before = self._due
            super().data_received(data)
            if self._due is None or self._due is not before:
                return
            self._late += len(data)
            if self._late > MOST_BYTES:
                self._refuse("headers", _TOO_LARGE)

        def _await_head(self) -> None:
            self._stop_waiting()
            self._due = self.loop.call_later(seconds, self._refuse, "slow")

        def _stop_waiting(self) -> None:
            self._late = 0
            if self._due is not None:
                self._due.cancel()
                self._due = None

        def _refuse(self, reason: str, response: bytes = b"") -> None:
            metrics.refused(reason)
            self._stop_waiting()
            self.transport.write(response)
            self.transport.close()

    return BoundedHttp
