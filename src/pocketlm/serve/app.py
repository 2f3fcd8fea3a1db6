"""The HTTP application: the APIs, and what all of them share.

A part of the server is a function ``router(services) -> APIRouter``; ``ROUTERS`` lists them. A
guard or an observer of all requests is a function ``install(app, services)`` that adds its
middleware; ``MIDDLEWARE`` lists those, the outermost first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pocketlm import __version__
from pocketlm.errors import BusyError, PocketLMError
from pocketlm.serve import admin, anthropic, health, ollama, openai, page
from pocketlm.serve.failures import error_code, failure
from pocketlm.serve.services import Services

ROUTERS: Sequence[Callable[[Services], APIRouter]] = (
    health.router,
    admin.router,
    page.router,
    anthropic.router,
    openai.router,
    ollama.router,
)
MIDDLEWARE: Sequence[Callable[[FastAPI, Services], None]] = ()

_log = logging.getLogger(__name__)


def make_app(services: Services) -> FastAPI:
    """The application over a fleet, a store and a configuration."""
    app = FastAPI(
        title="PocketLM",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(PocketLMError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _broken)
    for router in ROUTERS:
        app.include_router(router(services))
    for install in reversed(MIDDLEWARE):
        install(app, services)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PocketLMError)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    path, code = request.url.path, error_code(error)
    return failure(path, error.http_status, str(error), code=code, headers=headers)


async def _malformed(request: Request, error: Exception) -> Response:
    """A body that does not have the shape of its route: 400, as the APIs of the models have it."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = next(iter(error.errors()), {})
    where = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    message = first.get("msg", "the request is malformed").removeprefix("Value error, ")
    if where:
        message = f"{where}: {message}"
    return failure(request.url.path, 400, message, param=where or None)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return failure(request.url.path, error.status_code, message, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    """A bug of ours; its trace is in the log."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return failure(request.url.path, 500, "the server failed on this request; its log says why")
