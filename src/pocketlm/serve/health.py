"""``/health``: the process lives. ``/ready``: it can answer; for load balancers."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from pocketlm.serve.services import Services


def router(services: Services) -> APIRouter:
    """Both routes; neither loads a model."""
    routes = APIRouter(tags=["health"])

    @routes.get("/health")
    async def health() -> JSONResponse:
        """200 as long as the server answers at all."""
        return JSONResponse({"status": "ok"})

    @routes.get("/ready")
    async def ready() -> JSONResponse:
        """200 where a model is loaded or could be; else 503, with the reason."""
        reason = await _unready(services)
        if reason is not None:
            return JSONResponse({"status": "unavailable", "reason": reason}, 503)
        loaded = [model.facts.name for model in services.fleet.loaded()]
        return JSONResponse({"status": "ready", "loaded": loaded})

    return routes


async def _unready(services: Services) -> str | None:
    """Why the server should get no requests; None if it should."""
    fleet, wanted = services.fleet, services.config.models
    if fleet.draining:
        return "the server is shutting down"
    if wanted:
        missing = len(wanted) - sum(model.pinned for model in fleet.loaded())
        return f"{missing} of {len(wanted)} models are still loading" if missing > 0 else None
    if fleet.loaded():
        return None
    stored = await asyncio.to_thread(services.store.list)
    return None if stored else "there is no model in the store"
