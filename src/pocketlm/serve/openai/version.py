"""``GET /version``."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from pocketlm import __version__


def router() -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/version", operation_id="version")
    async def version() -> JSONResponse:
        """The version of this server."""
        return JSONResponse({"version": __version__})

    return routes
