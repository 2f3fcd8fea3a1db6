"""``GET /v1/models`` and ``/v1/models/{id}``: what is here, loaded or on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from pocketlm.errors import NotFoundError
from pocketlm.serve.services import Services

Model = dict[str, Any]


def router(services: Services) -> APIRouter:
    """Both routes; neither loads a model."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/v1/models", operation_id="list_models")
    async def models() -> JSONResponse:
        """The models that requests may name."""
        return JSONResponse({"object": "list", "data": await _models(services)})

    @routes.get("/v1/models/{id:path}", operation_id="retrieve_model")
    async def model(id: str) -> JSONResponse:
        """One of them."""
        found = await _models(services)
        for one in found:
            if id in (one["id"], one["id"].removesuffix(":latest")):
                return JSONResponse({**one, "id": id})
        names = ", ".join(one["id"] for one in found[:20])
        raise NotFoundError(
            f"there is no model {id!r}",
            hint=f"There are: {names}." if names else "There is none yet.",
        )

    return routes


async def model_names(services: Services) -> list[str]:
    """The names that requests may use."""
    return [model["id"] for model in await _models(services)]


async def _models(services: Services) -> list[Model]:
    """Those that the server was started with first, then aliases, the loaded and the stored."""
    found: dict[str, Model] = {}
    for ref in services.config.models:
        name = Path(ref).stem if ref.endswith(".gguf") else ref
        found[name] = _model(name, 0)
    for alias, name in services.config.aliases.items():
        found[alias] = {**_model(alias, 0), "root": name}
    for stored in await asyncio.to_thread(services.store.list):
        manifest = stored.manifest
        created = 0 if manifest is None else int(manifest.created.timestamp())
        found[stored.name] = _model(stored.name, created)
    for loaded in services.fleet.loaded():
        facts = loaded.facts
        created = int(loaded.loaded.timestamp())
        one = found.setdefault(facts.name, _model(facts.name, created))
        one["max_model_len"] = facts.context
    return [*found.values()]


def _model(name: str, created: int) -> Model:
    """OpenAI's shape with vLLM's ``root`` and ``max_model_len``, null until the model is loaded."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "pocketlm",
        "root": name,
        "parent": None,
        "max_model_len": None,
    }
