"""What the page asks for itself: models with all their facts, the catalog, a live sample.

Not an API for others: it changes with the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from pocketlm import catalog
from pocketlm.catalog import size_class
from pocketlm.serve.generation import LoadedModel
from pocketlm.serve.page.live import sample
from pocketlm.serve.services import Services
from pocketlm.store import StoredModel


def router(services: Services) -> APIRouter:
    """Routes below ``/page/``."""
    made = APIRouter(prefix="/page")
    fleet = services.fleet

    @made.get("/models")
    async def models(response: Response) -> dict[str, Any]:
        """What is on this disk or in memory."""
        response.headers["Cache-Control"] = "no-store"
        stored = await asyncio.to_thread(services.store.list)
        return {"models": describe(stored, fleet.loaded())}

    @made.get("/memory")
    async def memory(model: Annotated[str, Query(min_length=1, max_length=512)]) -> dict[str, Any]:
        """What a model would take; asked for one at a time, since its file has to be looked at."""
        return {"model": model, "memory": await fleet.needs(model)}

    @made.get("/catalog")
    async def known() -> dict[str, Any]:
        """What can be pulled by name."""
        return {"models": [_catalogued(entry) for entry in catalog.entries()]}

    @made.get("/live")
    async def live(response: Response) -> dict[str, Any]:
        """What the server is doing just now."""
        response.headers["Cache-Control"] = "no-store"
        return sample(services)

    return made


def describe(stored: Sequence[StoredModel], loaded: Sequence[LoadedModel]) -> list[dict[str, Any]]:
    """One entry for each model: those of the store first, then files that are served as they are.

    Sizes are bytes; ``memory`` is None where a model is not loaded.
    """
    running = {one.facts.name: one for one in loaded}
    found = [_stored(model, running.pop(model.name, None)) for model in stored]
    return found + [_served(one) for one in running.values()]


def _stored(model: StoredModel, loaded: LoadedModel | None) -> dict[str, Any]:
    manifest = model.manifest
    assert manifest is not None, "the store lists what it has manifests of"
    facts = manifest.facts
    return {
        "name": model.name,
        "size": manifest.size,
        "class": facts.size_class,
        "family": facts.family,
        "parameters": facts.parameters,
        "quantization": facts.quantization,
        "licence": facts.licence,
        "context": facts.context,
        "memory": None if loaded is None else loaded.memory,
        "loaded": None if loaded is None else _loaded(loaded),
    }


def _served(model: LoadedModel) -> dict[str, Any]:
    facts = model.facts
    return {
        "name": facts.name,
        "size": None,
        "class": size_class(facts.parameters),
        "family": facts.family,
        "parameters": facts.parameters,
        "quantization": facts.quantization,
        "licence": None,
        "context": facts.trained_context,
        "memory": model.memory,
        "loaded": _loaded(model),
    }


def _loaded(model: LoadedModel) -> dict[str, Any]:
    return {
        "context": model.facts.context,
        "capabilities": sorted(model.facts.capabilities),
        "pinned": model.pinned,
        "expires": None if model.expires is None else model.expires.isoformat(),
        "running": model.running,
        "waiting": model.waiting,
    }


def _catalogued(entry: catalog.CatalogEntry) -> dict[str, Any]:
    return {
        "name": str(entry),
        "parameters": entry.parameters,
        "class": size_class(entry.parameters),
        "licence": entry.licence,
        "context": entry.context,
        "gated": entry.gated,
        "base": entry.base,
    }
