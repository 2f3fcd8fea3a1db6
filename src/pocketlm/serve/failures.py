"""What went wrong, in the shape that the client of each API reads.

| path              | body                                                                       |
|-------------------|----------------------------------------------------------------------------|
| /v1/messages…     | {"type": "error", "error": {"type", "message"}, "request_id"}   (Anthropic)|
| /api/…            | {"error": message}                                                 (Ollama)|
| all others        | {"error": {"message", "type", "param", "code"}}                    (OpenAI)|
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from pocketlm.errors import BusyError, ContextError, NotFoundError, PocketLMError

_MESSAGES = "/v1/messages"
_OPENAI = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_ANTHROPIC = {**_OPENAI, 413: "request_too_large", 529: "overloaded_error"}


def failure_body(
    path: str, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error in the shape of the API that ``path`` belongs to."""
    message = message.encode("utf-8", "replace").decode()  # it may quote half a character
    if path.startswith(_MESSAGES):
        kind = _ANTHROPIC.get(status, "api_error")
        error = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": request_id()}
    if path.startswith("/api/"):
        return {"error": message}
    kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_code(error: PocketLMError) -> str | None:
    """OpenAI's ``code`` of an error; None where it has none."""
    if isinstance(error, ContextError):
        return "context_length_exceeded"
    if isinstance(error, NotFoundError):
        return "model_not_found"
    return "server_overloaded" if isinstance(error, BusyError) else None


def failure(
    path: str,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The whole response."""
    body = failure_body(path, status, message, param=param, code=code)
    named = {"request-id": body["request_id"]} if path.startswith(_MESSAGES) else {}
    return JSONResponse(body, status, {**named, **(headers or {})})


def request_id() -> str:
    """A new name for a request, as Anthropic's clients read it from the header ``request-id``."""
    return f"req_{secrets.token_hex(12)}"
