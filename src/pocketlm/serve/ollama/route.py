"""Errors in Ollama's words, for every route below ``/api``."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from pocketlm.errors import BusyError, ContextError, NotFoundError, PocketLMError, RequestError
from pocketlm.serve.failures import failure
from pocketlm.serve.ollama.names import not_found

BUSY = "server busy, please try again.  maximum pending requests exceeded"

_log = logging.getLogger(__name__)


class OllamaRoute(APIRoute):
    """A route whose errors are ``{"error": text}`` with the texts that clients look for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if not await request.body():
                    return failure(request.url.path, 400, "missing request body")
                return failure(request.url.path, 400, _malformed(error))
            except PocketLMError as error:
                headers = {}
                if isinstance(error, BusyError):
                    headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
                return failure(request.url.path, status_of(error), text_of(error), headers=headers)

        return handled


def status_of(error: PocketLMError) -> int:
    """The status; what is asked of a model that cannot do it is the caller's fault here."""
    return error.http_status


def text_of(error: PocketLMError) -> str:
    """What an error says to a client of Ollama."""
    return BUSY if isinstance(error, BusyError) else str(error)


def error_line(error: Exception) -> dict[str, str]:
    """The last line of a stream that cannot go on. Bugs of ours are logged."""
    if isinstance(error, PocketLMError):
        return {"error": text_of(error)}
    _log.error("an answer failed", exc_info=error)
    return {"error": "the server failed on this request; its log says why"}


def renamed(error: NotFoundError, name: str) -> NotFoundError:
    """The same for the name that the client used."""
    found = not_found(name)
    found.__cause__ = error
    return found


def too_long(error: ContextError) -> RequestError:
    """Ollama's words for an input of embeddings that is too long, and the numbers."""
    return RequestError(f"the input length exceeds the context length: {error}")


def _malformed(error: RequestValidationError) -> str:
    first: dict[str, Any] = next(iter(error.errors()), {})
    where = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    message = first.get("msg", "the request is malformed").removeprefix("Value error, ")
    return f"{where}: {message}" if where else json.dumps(message).strip('"')
