"""``GET /metrics``: for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pocketlm.serve.services import Services

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def router(services: Services) -> APIRouter:
    """The route; it needs any valid key where there are keys."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/metrics")
    async def metrics() -> Response:
        """All metrics, as text."""
        return Response(services.metrics.render(), media_type=_TYPE)

    return routes
