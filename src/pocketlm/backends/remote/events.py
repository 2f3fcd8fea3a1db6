"""An answer's bytes as JSON objects: server-sent events (HTML standard, 9.2), or one document.

An endpoint that cannot stream answers with the whole completion at once; both are read. Lines and
the whole are bounded: an endpoint that never ends cannot fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pocketlm.errors import SourceError

MAX_LINE = 1 << 20
MAX_ANSWER = 64 << 20


def events(chunks: Iterable[bytes], *, streamed: bool) -> Iterator[dict[str, Any]]:
    """The objects of an answer, up to its ``[DONE]`` or its end.

    Args:
        streamed: whether it is a stream of events, by its Content-Type.

    Raises SourceError for what is no JSON object and for an answer beyond the limits.
    """
    if not streamed:
        yield _object(b"".join(_bounded(chunks, MAX_LINE)))
        return
    for line in _lines(_bounded(chunks, MAX_ANSWER)):
        field, _, value = line.partition(b":")
        if field != b"data":  # comments, which keep a connection open, and fields of no use here
            continue
        value = value.removeprefix(b" ")
        if value.strip() == b"[DONE]":
            return
        yield _object(value)


def _bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise SourceError(f"the endpoint's answer exceeds {limit:,} bytes")
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            raise SourceError(f"a line of the endpoint's answer exceeds {MAX_LINE:,} bytes")
        for line in lines:
            yield line.removesuffix(b"\r")
    yield rest


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError("the endpoint's answer is no JSON where it should be") from error
    if not isinstance(value, dict):
        raise SourceError("the endpoint's answer is no JSON object where it should be one")
    return value
