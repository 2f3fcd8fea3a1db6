"""A thousand requests of all kinds at once, and nothing is left of them.

pytest tests/serve/test_faults.py -s        shows the figures before and after
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pocketlm.store import Store

from .running import RunningServer, running_server, wait

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

REQUESTS, AT_ONCE, TOKENS = 1000, 64, 6
# Room for what allocators keep; a leak of 40 KiB in each request would be seen.
MORE_BYTES = 40 << 20


@pytest.fixture
def server(tmp_path: Path, real_model: Callable[[str], Path]) -> Iterator[RunningServer]:
    home = tmp_path / "served"
    Store(home).import_path(real_model("smollm2:135m"), "smollm2")
    with running_server(home, "smollm2", "--threads", "2", "--kv-tokens", "4096") as running:
        running.wait_ready()
        yield running


@dataclass(frozen=True)
class Figures:
    """What a process holds."""

    threads: int
    descriptors: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Figures:
        process = psutil.Process(pid)
        return cls(process.num_threads(), process.num_fds(), process.memory_info().rss)

    def __str__(self) -> str:
        return (
            f"{self.threads} threads, {self.descriptors} descriptors, {self.memory / 2**20:.1f} MiB"
        )


class Client:
    """Sends requests byte by byte as it likes."""

    def __init__(self, url: str, seed: int) -> None:
        self._port = int(url.rpartition(":")[2])
        self._random = random.Random(seed)
        self.seen: Counter[str] = Counter()

    async def whole(self) -> None:
        """A valid request, streamed or not: it is answered exactly once."""
        stream = self._random.random() < 0.6
        status, body = await self._send(self._question(stream=stream))
        assert status == 200, body
        if not stream:
            answer = json.loads(body)
            assert answer["usage"]["completion_tokens"] == TOKENS
            assert len(answer["choices"]) == 1
            return
        events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
        assert events.count("[DONE]") == 1
        assert events[-1] == "[DONE]"
        read = [json.loads(event) for event in events[:-1]]
        reasons = [c["finish_reason"] for e in read for c in e["choices"] if c["finish_reason"]]
        assert reasons == ["length"]
        assert [e["usage"]["completion_tokens"] for e in read if e.get("usage")] == [TOKENS]

    async def slow(self) -> None:
        """A stream that is read with pauses: it comes whole all the same."""
        body = b""
        async for data in self._read(self._question(stream=True), pause=0.03):
            body += data
        assert body.count(b"data: [DONE]") == 1

    async def gone(self) -> None:
        """A client that goes in the middle, or before anything has come."""
        question = self._question(stream=self._random.random() < 0.7, max_tokens=500)
        left = self._random.choice([0, 0, 1, 2, 5])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._request(question))
        for _ in range(left):
            await reader.readline()
        await asyncio.sleep(self._random.random() * 0.1)
        writer.transport.abort()

    async def wrong(self) -> None:
        """What no client should send: it is refused, and never our fault."""
        status, body = await self._send(self._random.choice(WRONG))
        assert 400 <= status < 500, (status, body[:300])
        assert json.loads(body)["error"]["message"]

    async def huge(self) -> None:
        """More than the server takes: refused, or cut off while it is sent."""
        try:
            status, _ = await self._send(b'{"prompt": "' + b"x" * (17 << 20) + b'"}')
        except ConnectionError:
            return
        assert 400 <= status < 500

    def _question(self, *, stream: bool, max_tokens: int = TOKENS) -> bytes:
        question = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": f"Count to {self._random.randrange(1000)}"}],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": stream,
            "seed": 1,
        }
        if stream:
            question["stream_options"] = {"include_usage": True}
        return json.dumps(question).encode()

    def _request(self, body: bytes) -> bytes:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def _send(self, body: bytes) -> tuple[int, bytes]:
        answer = b"".join([data async for data in self._read(body)])
        if not answer:
            raise ConnectionError("nothing was answered")
        head, _, content = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if b"chunked" in head.lower():
            content = _unchunked(content)
        return status, content

    async def _read(self, body: bytes, pause: float = 0.0) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 12)
        try:
            writer.write(self._request(body))
            await writer.drain()
            while data := await reader.read(1 << 10):
                yield data
                await asyncio.sleep(pause)
        finally:
            writer.close()

    async def run(self, count: int) -> None:
        """So many requests of all kinds, some at once."""
        kinds = (self.whole, self.slow, self.gone, self.wrong, self.huge)
        chosen = self._random.choices(kinds, (50, 5, 25, 19, 1), k=count)
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(kind: Callable[[], Awaitable[None]]) -> None:
            async with turn:
                await kind()
                self.seen[kind.__name__] += 1

        await asyncio.gather(*map(one, chosen))


def _unchunked(content: bytes) -> bytes:
    """The body of chunks; fails where the last one is missing."""
    body = b""
    while True:
        size, _, content = content.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return body
        body, content = body + content[:length], content[length + 2 :]


def _with(**fields: Any) -> bytes:
    asked = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps(asked).encode()


WRONG = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b'{"model": "smollm2", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"model": "smollm2", "messages": [{"role": "user", "content": "\\ud800"}]}',
    _with(messages=[]),
    _with(messages="hi"),
    _with(messages=[1]),
    _with(messages=[{"role": "nobody", "content": "x"}]),
    _with(model=3),
    _with(model="nosuch"),
    _with(model="/etc/passwd"),
    _with(max_tokens=-1),
    _with(max_tokens="many"),
    _with(max_tokens=10**9),
    _with(temperature="warm"),
    _with(temperature=-1),
    _with(top_p=1e400),
    _with(stop=[1]),
    _with(logit_bias={"a": 1}),
    _with(n=0),
    _with(tools="hammer"),
    _with(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}),
    _with(messages=[{"role": "user", "content": "word " * 5000}]),
]


@pytest.mark.timeout(300)
def test_nothing_is_left_of_a_thousand_requests(server: RunningServer) -> None:
    (model,) = server.get("/admin/models").json()["models"]
    worker, promised = model["pid"], model["memory"]
    asyncio.run(Client(server.url, 1).run(200))  # the cache is touched, what is made once is made
    _wait_idle(server)
    before = {pid: Figures.of(pid) for pid in (server.process.pid, worker)}
    client = Client(server.url, 2)
    asyncio.run(client.run(REQUESTS))
    _wait_idle(server)
    wait(lambda: all(Figures.of(pid).descriptors <= one.descriptors for pid, one in before.items()))
    after = {pid: Figures.of(pid) for pid in before}
    print(f"\n{dict(client.seen)}")
    for name, pid in (("front", server.process.pid), ("worker", worker)):
        print(f"{name}: before {before[pid]}; after {after[pid]}")
    assert client.seen.total() == REQUESTS
    assert server.workers() == [worker]
    for pid, figures in after.items():
        assert figures.threads <= before[pid].threads + 2  # of a pool that grows to its bound
        assert figures.descriptors <= before[pid].descriptors
        assert figures.memory <= before[pid].memory + MORE_BYTES
    assert after[worker].memory <= promised


def _wait_idle(server: RunningServer) -> None:
    """Until no request runs or waits and no block of the KV cache is held."""

    def idle() -> bool:
        (model,) = server.get("/admin/models").json()["models"]
        return (model["running"], model["waiting"], model["kv_used"]) == (0, 0, 0)

    wait(idle)
