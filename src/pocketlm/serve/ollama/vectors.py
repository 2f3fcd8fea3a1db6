"""``/api/embed`` and the older ``/api/embeddings``: texts as vectors of length 1."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from pocketlm.errors import ContextError, RequestError
from pocketlm.serve.generation import Embeddings
from pocketlm.serve.ollama.answering import use
from pocketlm.serve.ollama.asked import ignored_header, unknown_fields
from pocketlm.serve.ollama.bodies import EmbedBody, EmbeddingsBody
from pocketlm.serve.ollama.options import read_options
from pocketlm.serve.ollama.route import too_long
from pocketlm.serve.replies import unless_gone
from pocketlm.serve.services import Services

_MOST_INPUTS = 2048


def add_routes(routes: APIRouter, services: Services) -> None:
    """Both routes."""

    @routes.post("/embed")
    async def embed(body: EmbedBody, request: Request, response: Response) -> dict[str, Any]:
        """One vector for each input; none only loads the model."""
        begun = time.monotonic()
        response.headers.update(_ignored(body, services))
        inputs = [body.input] if isinstance(body.input, str) else body.input or []
        inputs = inputs if any(inputs) else []
        found, load_s = await unless_gone(request, _embed(services, body, inputs))
        return {
            "model": body.model,
            "embeddings": [_shortened(vector, body.dimensions) for vector in found.vectors],
            "total_duration": round((time.monotonic() - begun) * 1e9),
            "load_duration": round(load_s * 1e9),
            "prompt_eval_count": sum(found.tokens),
        }

    @routes.post("/embeddings")
    async def embeddings(
        body: EmbeddingsBody, request: Request, response: Response
    ) -> dict[str, Any]:
        """The vector of one prompt."""
        response.headers.update(_ignored(body, services))
        inputs = [body.prompt] if body.prompt else []
        found, _ = await unless_gone(request, _embed(services, body, inputs))
        return {"embedding": found.vectors[0] if found.vectors else []}


def _ignored(body: EmbedBody | EmbeddingsBody, services: Services) -> dict[str, str]:
    """Options of sampling and of running mean nothing here, so all of them are listed."""
    read_options(body.options)
    unknown = unknown_fields(body)
    if unknown and services.config.strict:
        raise RequestError(f"unknown parameters: {', '.join(unknown)}")
    return ignored_header([*unknown, *(f"options.{name}" for name in body.options or {})])


async def _embed(
    services: Services, body: EmbedBody | EmbeddingsBody, inputs: Sequence[str]
) -> tuple[Embeddings, float]:
    if len(inputs) > _MOST_INPUTS:
        raise RequestError(f"input has {len(inputs):,} texts, at most {_MOST_INPUTS:,} are taken")
    async with use(services, body.model, body.keep_alive) as model:
        if not inputs:
            return Embeddings(vectors=[], tokens=[]), model.load_s
        if not all(inputs):
            raise RequestError("input has an empty text")
        try:
            found = await model.embed(inputs, truncate=bool(body.truncate))
        except ContextError as error:
            raise too_long(error) from error
        return found, model.load_s


def _shortened(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """The first ``dimensions`` of a vector, scaled to length 1 again."""
    if not dimensions or dimensions >= len(vector):
        return vector
    head = vector[:dimensions]
    length = math.sqrt(sum(value * value for value in head)) or 1.0
    return [value / length for value in head]
