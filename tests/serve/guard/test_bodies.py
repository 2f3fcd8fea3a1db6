"""Bodies that are too large, too deep or too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serve.guard.conftest import MESSAGE, Site

from pocketlm.serve.guard.bodies import MAX_DEPTH, Bodies, check_depth
from pocketlm.serve.guard.refusals import Refusal
from pocketlm.serve.observe.metrics import Metrics

JSON = {"Content-Type": "application/json"}


def test_a_length_that_is_too_large_is_refused_unread(make_site: Callable[..., Site]) -> None:
    site = make_site(max_body=1000)
    answer = site.client.post("/v1/messages", content=b"x" * 1001, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"
    assert answer.headers["connection"] == "close"


def test_a_body_without_length_is_counted(make_site: Callable[..., Site]) -> None:
    site = make_site(max_body=1000)
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b" " * 100

    answer = site.client.post("/v1/messages", content=chunks(), headers=JSON)
    assert answer.status_code == 413
    whole = json.dumps(MESSAGE).encode()
    parts = [whole[:30], whole[30:]]
    answer = site.client.post("/v1/messages", content=iter(parts), headers=JSON)
    assert answer.status_code == 200


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_depth() -> None:
    check_depth(deep(MAX_DEPTH))
    check_depth(b'{"a": "' + b"[" * 1000 + b'\\"' + b"{" * 1000 + b'"}')
    for body in (deep(MAX_DEPTH + 1), b'"\\\\"' + deep(MAX_DEPTH + 1), b'{"a":' * 101):
        with pytest.raises(Refusal, match="nested"):
            check_depth(body)
    with pytest.raises(Refusal, match="parts"):
        check_depth(b"[]," * 600_000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", [b'\\"', b'"', b"\\", b'"\\', b'"a'])
def test_no_text_is_slow_to_look_through(unit: bytes) -> None:
    """Where looking for strings were quadratic this would take minutes."""
    check_depth(b'"' + unit * (4_000_000 // len(unit)))


def test_deep_json_is_the_callers_fault(site: Site) -> None:
    answer = site.client.post("/v1/messages", content=deep(100_000), headers=JSON)
    assert answer.status_code == 400
    assert site.refused() == {"depth": 1}


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the body never came")

    headers = [(b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers}
    asyncio.run(Bodies(app, 1000, Metrics(), seconds=0.05)(scope, receive, send))
    assert sent[0]["status"] == 408


def test_a_blob_passes_as_a_stream(make_site: Callable[..., Site]) -> None:
    site = make_site(max_body=10)
    answer = site.client.post("/api/blobs/sha256:" + "0" * 64, content=b"x" * 100)
    assert answer.status_code != 413
