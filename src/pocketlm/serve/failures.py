"""What went wrong, in the shape that the client of each API reads.

| path              | body                                                                       |
|-------------------|----------------------------------------------------------------------------|
| /v1/messages…     | {"type": "error", "error": {"type", "message"}, "request_id"}   (Anthropic)|
| /api/…            | {"error": message}                                                 (Ollama)|
| all others        | {"error": {"message", "type", "param", "code"}}                    (OpenAI)|
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

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
    if path.startswith("/v1/messages"):
        kind = _ANTHROPIC.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if path.startswith("/api/"):
        return {"error": message}
    kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


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
    return JSONResponse(body, status, dict(headers or {}))
