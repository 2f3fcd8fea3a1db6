"""Messages between the front process and a worker: JSON in frames, over a socket pair.

A frame is four bytes, the length of what follows (big-endian), and a JSON value in UTF-8. Nothing
that runs code is ever read (no pickle): a worker parses files and templates of strangers, so what
comes from it is data, of a bounded size.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pocketlm.errors import RequestError

MOST_BYTES = 128 << 20
"""Of one message. A request's body is smaller; what JSON makes of it may be twice as long."""

_HEAD = struct.Struct("!I")


def _as_json(value: object) -> object:
    """What JSON has no word for: sets, and mappings that are no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise RequestError(f"the request holds a {type(value).__name__}, which is no JSON")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_as_json).encode


def frame(message: Any) -> bytes:
    """The bytes of a message.

    Half surrogates pass: JSON of clients may hold them, and the tokenizer says what is wrong.
    Raises RequestError for a message that is too long or nested too deeply.
    """
    try:
        body = _encode(message).encode("utf-8", "surrogatepass")
    except RecursionError as error:
        raise RequestError("the request is nested too deeply") from error
    if len(body) > MOST_BYTES:
        raise RequestError(f"the request has {len(body):,} bytes, at most {MOST_BYTES:,} can be")
    return _HEAD.pack(len(body)) + body


class Frames:
    """Takes bytes as they arrive and gives out the messages that are whole."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that ``data`` completes. Raises ValueError for what is no message."""
        self._bytes += data
        start, end = 0, len(self._bytes)
        try:
            while end - start >= _HEAD.size:
                (size,) = _HEAD.unpack_from(self._bytes, start)
                if size > MOST_BYTES:
                    raise ValueError(f"a message of {size:,} bytes, at most {MOST_BYTES:,} can be")
                if end - start - _HEAD.size < size:
                    break
                body = self._bytes[start + _HEAD.size : start + _HEAD.size + size]
                start += _HEAD.size + size
                yield json.loads(body.decode("utf-8", "surrogatepass"))
        finally:
            del self._bytes[:start]
