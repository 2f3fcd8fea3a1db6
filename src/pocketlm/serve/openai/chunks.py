"""Chunks of a stream, written at little cost: all but the text of most of them is the same."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from json.encoder import encode_basestring
from typing import Any

from pocketlm.errors import PocketLMError
from pocketlm.serve.failures import error_code, failure_body
from pocketlm.serve.replies import sse_event

DONE = b"data: [DONE]\n\n"
_MARK = "\0"

_log = logging.getLogger(__name__)


class TextChunk:
    """A chunk in which only one text changes.

    Args:
        chunk: the chunk; the text stands where it has ``TextChunk.HERE``.
    """

    HERE = _MARK

    def __init__(self, chunk: dict[str, Any]) -> None:
        written = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
        head, tail = written.split(json.dumps(_MARK))
        self._head = f"data: {head}"
        self._tail = f"{tail}\n\n"

    def event(self, text: str) -> bytes:
        """The event with a text."""
        return f"{self._head}{encode_basestring(text)}{self._tail}".encode()


async def to_the_end(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream's events with its last one; what goes wrong on the way is an event too."""
    try:
        async for chunk in chunks:
            yield chunk
    except PocketLMError as error:
        yield _failed(error.http_status, str(error), error_code(error))
    except Exception:
        _log.exception("an answer failed")
        yield _failed(500, "the server failed on this request; its log says why", None)
    finally:
        await chunks.aclose()
    yield DONE


def _failed(status: int, message: str, code: str | None) -> bytes:
    return sse_event(failure_body("/v1", status, message, code=code))
