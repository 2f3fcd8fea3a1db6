"""The HTTP application: the APIs, and what all of them share.

A part of the server is a function ``router(services) -> APIRouter``; ``ROUTERS`` lists them. A
guard or an observer of all requests is a function ``install(app, services)`` that adds its
middleware; ``MIDDLEWARE`` lists those, the outermost first.
"""

from __future__ import annotations

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
from pocketlm.serve.guard import install as guard
from pocketlm.serve.observe import requests as observe
from pocketlm.serve.observe import routes as metrics
from pocketlm.serve.services import Services

ROUTERS: Sequence[Callable[[Services], APIRouter]] = (
    health.router,
    admin.router,
    page.router,
    anthropic.router,
    openai.router,
    ollama.router,
    metrics.router,
)
MIDDLEWARE: Sequence[Callable[[FastAPI, Services], None]] = (observe.install, guard.install)


def make_app(services: Services) -> FastAPI:
    """The application over a fleet, a store and a configuration.

    Routes get the fleet and the store as far as the key of a request goes.
    """
    app = FastAPI(
        title="PocketLM",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(PocketLMError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _no_route)
    services = guard.guarded(services)
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
