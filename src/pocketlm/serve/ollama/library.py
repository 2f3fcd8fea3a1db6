"""The models that are here: tags, show, ps, copy, delete; and the version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response

from pocketlm import __version__
from pocketlm.serve.generation import LoadedModel
from pocketlm.serve.ollama import info
from pocketlm.serve.ollama.bodies import CopyBody, DeleteBody, ShowBody
from pocketlm.serve.ollama.names import called, ref_of, stored
from pocketlm.serve.services import Services
from pocketlm.store import Manifest, StoredModel
from pocketlm.store.modelfile import parameter_lines, write_modelfile
from pocketlm.store.setup import read_records

# The version of Ollama whose API this is: clients refuse older ones.
API_VERSION = "0.33.0"
_FOR_EVER = timedelta(days=100 * 365)


def add_routes(routes: APIRouter, services: Services) -> None:
    """The routes that answer at once."""
    store, fleet = services.store, services.fleet

    @routes.head("/version", include_in_schema=False)
    @routes.get("/version")
    async def version() -> dict[str, str]:
        """Ollama's, for its clients, and ours."""
        return {"version": API_VERSION, "pocketlm": __version__}

    @routes.head("/tags", include_in_schema=False)
    @routes.get("/tags")
    async def tags() -> dict[str, Any]:
        """The models on this disk, the newest first."""
        models = await asyncio.to_thread(store.list)
        made = [_listed(m, m.manifest) for m in models if m.manifest is not None]
        return {"models": sorted(made, key=lambda one: str(one["modified_at"]), reverse=True)}

    @routes.post("/show")
    async def show(body: ShowBody) -> dict[str, Any]:
        """All that is known of a model."""
        return await asyncio.to_thread(_shown, services, body)

    @routes.get("/ps")
    async def ps() -> dict[str, Any]:
        """The models in memory, the one that stays longest first."""
        models = {m.name: m for m in await asyncio.to_thread(store.list)}
        made = [_running(one, models.get(one.facts.name)) for one in fleet.loaded()]
        return {"models": sorted(made, key=lambda one: str(one["expires_at"]), reverse=True)}

    @routes.post("/copy")
    async def copy(body: CopyBody) -> Response:
        """Gives a model a second name; no bytes are copied."""
        target = ref_of(body.destination)

        def work() -> None:
            model, _ = stored(services, body.source)
            store.copy(model.name, target)

        await asyncio.to_thread(work)
        return Response(status_code=200)

    @routes.delete("/delete")
    async def delete(body: DeleteBody) -> Response:
        """Removes a model; one that is loaded ends its answers and is unloaded first."""
        model, _ = await asyncio.to_thread(stored, services, body.called)
        if any(one.facts.name == model.name for one in fleet.loaded()):
            await fleet.unload(model.name)
        await asyncio.to_thread(store.remove, model.name)
        return Response(status_code=200)


def _listed(model: StoredModel, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _time(manifest.created),
        "size": manifest.size,
        "digest": info.digest_of(manifest),
        "details": info.details(manifest),
    }


def _running(one: LoadedModel, model: StoredModel | None) -> dict[str, Any]:
    manifest = None if model is None else model.manifest
    facts = one.facts
    expires = one.expires if one.expires is not None else one.loaded + _FOR_EVER
    return {
        "name": facts.name,
        "model": facts.name,
        "size": one.memory,
        "digest": facts.digest if manifest is None else info.digest_of(manifest),
        "details": info.served_details(facts),
        "expires_at": _time(expires),
        "size_vram": 0,
        "context_length": facts.context,
    }


def _shown(services: Services, body: ShowBody) -> dict[str, Any]:
    model, manifest = stored(services, body.called)
    verbose = bool(body.verbose)
    card = info.read_card(model, manifest, tensors=verbose)
    records = read_records(services.store.shelf, model)
    setup = services.store.setup(model)
    texts = {record.role: text for record, text in records}
    params: Mapping[str, Any] = json.loads(texts.get("params", "{}"))
    licences = [text for record, text in records if record.role == "license"]
    template = setup.template or card.template
    width = {} if card.width is None else {"embedding_length": card.width}
    made = {
        "modelfile": write_modelfile(
            model.name, template=texts.get("template"), system=setup.system, params=params,
            messages=setup.messages, licences=licences,
        ),
        "template": template or "",
        "details": {**info.details(manifest), **width},
        "model_info": info.model_info(card, verbose=verbose),
        "capabilities": _capabilities(services, model, card, template),
        "modified_at": _time(manifest.created),
    }  # fmt: skip
    optional = {
        "parameters": "\n".join(parameter_lines(params)),
        "system": setup.system,
        "license": "\n".join(licences) or manifest.facts.licence,
        "messages": [dict(message) for message in setup.messages],
        "tensors": card.tensors,
    }
    return made | {name: value for name, value in optional.items() if value}


def _capabilities(
    services: Services, model: StoredModel, card: info.Card, template: str | None
) -> list[str]:
    """As the loaded model says, else as its files do."""
    ours = called(services, model.name)
    for one in services.fleet.loaded():
        if one.facts.name == ours:
            return info.ordered(one.facts.capabilities)
    return info.capabilities(card, template)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
