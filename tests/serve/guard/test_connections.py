"""Heads of requests that are too large or too slow, sent over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from pocketlm.serve.guard.connections import MOST_BYTES, bounded_http
from pocketlm.serve.observe.metrics import Metrics

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
GET = HEAD + b"\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


@asynccontextmanager
async def serving(metrics: Metrics, seconds: float) -> AsyncIterator[int]:
    """The port of a server whose requests must begin within ``seconds``."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        answer,
        http=bounded_http(metrics, seconds=seconds),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def tell(port: int, *pieces: bytes, pause: float = 0) -> bytes:
    """What the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return said


def refusals(metrics: Metrics, reason: str) -> bool:
    return f'pocketlm_requests_refused_total{{reason="{reason}"}} 1.0' in metrics.render().decode()


def test_a_connection_that_says_nothing_is_closed() -> None:
    metrics = Metrics()

    async def run() -> None:
        async with serving(metrics, 0.2) as port:
            assert await tell(port) == b""

    asyncio.run(run())
    assert refusals(metrics, "slow")


def test_a_head_that_never_ends_is_cut_off_however_steadily_it_comes() -> None:
    metrics = Metrics()

    async def run() -> None:
        async with serving(metrics, 0.3) as port:
            drops = [b"x-%d: y\r\n" % i for i in range(100)]
            assert await asyncio.wait_for(tell(port, HEAD, *drops, pause=0.05), 9) == b""

    asyncio.run(run())
    assert refusals(metrics, "slow")


def test_a_header_without_end_is_refused() -> None:
    metrics = Metrics()

    async def run() -> None:
        async with serving(metrics, 60) as port:
            endless = [b"x" * 8192] * (2 * MOST_BYTES // 8192 + 64)
            said = await tell(port, HEAD + b"x-long: ", *endless, pause=0.001)
            assert said.startswith(b"HTTP/1.1 431 ") or said == b""

    asyncio.run(run())
    assert refusals(metrics, "headers")


def test_requests_on_one_connection_each_have_the_whole_time() -> None:
    metrics = Metrics()

    async def run() -> None:
        async with serving(metrics, 0.4) as port:
            head, rest = GET[:20], GET[20:]
            last = HEAD + b"Connection: close\r\n\r\n"
            said = await tell(port, head, rest, GET, last, pause=0.25)
            assert said.count(b"HTTP/1.1 200 OK") == 3

    asyncio.run(run())
    assert 'reason="slow"' not in metrics.render().decode()
