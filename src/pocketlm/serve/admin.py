"""``/admin``: what the people who run the server ask of it; ``pocketlm ps`` and ``stop`` do.

All of it is also said by the Ollama API, but for pinning a model and ending the server.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from pocketlm.serve.generation import LoadedModel
from pocketlm.serve.services import Services


class LoadRequest(BaseModel):
    """Which model to load, and how long it stays; ``pin`` false unpins it."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(min_length=1, max_length=512)
    keep_alive: float | None = Field(default=None, allow_inf_nan=False)
    pin: bool | None = None


class UnloadRequest(BaseModel):
    """Which model to unload."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(min_length=1, max_length=512)


def router(services: Services) -> APIRouter:
    """The routes below ``/admin``."""
    routes = APIRouter(prefix="/admin", tags=["admin"])
    fleet = services.fleet

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The models in memory."""
        return {"models": [record(model) for model in fleet.loaded()]}

    @routes.post("/load")
    async def load(body: LoadRequest) -> dict[str, Any]:
        """Loads a model; answers when it is loaded."""
        await fleet.load(body.model, keep_alive=body.keep_alive, pin=body.pin)
        return {"loaded": body.model}

    @routes.post("/unload")
    async def unload(body: UnloadRequest) -> dict[str, Any]:
        """Unloads a model once its requests have ended."""
        return {"unloaded": await fleet.unload(body.model)}

    @routes.post("/stop")
    async def stop() -> dict[str, Any]:
        """Ends the server as SIGTERM does: requests under way may finish."""
        os.kill(os.getpid(), signal.SIGTERM)
        return {"stopping": True}

    return routes


def record(model: LoadedModel) -> dict[str, Any]:
    """A loaded model as JSON."""
    facts = model.facts
    return {
        "name": facts.name,
        "digest": facts.digest,
        "family": facts.family,
        "parameters": facts.parameters,
        "quantization": facts.quantization,
        "context": facts.context,
        "memory": model.memory,
        "kv_tokens": model.kv_tokens,
        "kv_used": model.kv_used,
        "loaded": model.loaded.isoformat(),
        "expires": None if model.expires is None else model.expires.isoformat(),
        "pinned": model.pinned,
        "running": model.running,
        "waiting": model.waiting,
        "pid": model.pid,
    }
