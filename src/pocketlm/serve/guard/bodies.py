"""How large, how deep and how slow the body of a request may be.

JSON is read here, whole, before a route is asked: counted as it comes, whatever length it claims.
A blob passes as a stream; the store counts it.
"""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from pocketlm.serve.guard.hosts import has_body
from pocketlm.serve.guard.refusals import Refusal, refuse, values
from pocketlm.serve.observe.metrics import Metrics

MAX_DEPTH = 100  # json.loads recurses
MAX_BRACKETS = 1_000_000  # each is an object in memory of some 100 bytes
READ_S = 60.0  # for all of a body
_BLOB = re.compile(r"/api/blobs/[^/]+")
# Possessive: a body of unclosed quotes costs no more than any other.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.S)
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class Bodies:
    """Middleware: sizes of bodies. ``most``: bytes; ``seconds``: to send them in."""

    def __init__(
        self, app: ASGIApp, most: int, metrics: Metrics, *, seconds: float = READ_S
    ) -> None:
        self._app = app
        self._most = most
        self._metrics = metrics
        self._seconds = seconds

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        plain = scope["type"] == "http" and not _BLOB.fullmatch(scope["path"])
        if not plain or not has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await refuse(refusal, self._metrics, scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Connection, receive: Receive) -> bytes:
        """All of the body, within the limits."""
        length = values(scope, b"content-length")
        if length and length[0].isdigit() and int(length[0]) > self._most:
            raise self._too_large(f"{int(length[0]):,}")
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    body += message.get("body", b"")
                    if len(body) > self._most:
                        raise self._too_large("more")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refusal(
                408, "slow", f"the body did not come within {self._seconds:g} s"
            ) from None
        check_depth(bytes(body))
        return bytes(body)

    def _too_large(self, found: str) -> Refusal:
        return Refusal(
            413, "body", f"the body has {found} bytes, but requests may have {self._most:,}"
        )


def check_depth(body: bytes) -> None:
    """Refuses JSON that is nested too deep or has too many parts; linear in the body's length."""
    brackets = _STRING.sub(b"", body).translate(None, _BUT_BRACKETS)
    if len(brackets) > MAX_BRACKETS:
        raise Refusal(413, "depth", f"the JSON has more than {MAX_BRACKETS // 2:,} parts")
    if len(brackets) <= MAX_DEPTH:
        return
    depth = 0
    for one in brackets:
        depth += _STEP[one]
        if depth > MAX_DEPTH:
            raise Refusal(400, "depth", f"the JSON is nested more than {MAX_DEPTH} deep")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then whatever comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return left.pop() if left else await receive()

    return receiving
