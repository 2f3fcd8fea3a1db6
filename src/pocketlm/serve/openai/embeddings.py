"""``POST /v1/embeddings``: texts as vectors of length 1.

A vector is the mean of the model's last hidden states over the text's tokens, normed.
``dimensions`` keeps that many first ones and norms again, as OpenAI does; models that were not
trained for it lose more by that than those that were.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from pocketlm.errors import RequestError
from pocketlm.serve.openai.asking import headers, use
from pocketlm.serve.openai.bodies import ModelBody, Number
from pocketlm.serve.openai.completion_request import Tokens
from pocketlm.serve.replies import unless_gone
from pocketlm.serve.services import Services

_MOST_INPUTS = 2048

Text = Annotated[str, Field(min_length=1)]
Inputs = (
    Text
    | Tokens
    | Annotated[list[Text], Field(min_length=1, max_length=_MOST_INPUTS)]
    | Annotated[list[Tokens], Field(min_length=1, max_length=_MOST_INPUTS)]
)


class EmbeddingsBody(ModelBody):
    """Texts or token ids."""

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    truncate: bool = False
    keep_alive: Number | None = None
    user: str | None = None


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/embeddings", operation_id="create_embedding")
    async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
        """Turns texts into vectors."""
        extra = headers(services, request, body)
        record = await unless_gone(request, _embeddings(services, body))
        return JSONResponse(record, headers=extra)

    return routes


async def _embeddings(services: Services, body: EmbeddingsBody) -> dict[str, Any]:
    async with use(services, body.model, keep_alive=body.keep_alive) as model:
        width = model.facts.width
        if body.dimensions is not None and body.dimensions > width:
            raise RequestError(f"dimensions is {body.dimensions:,}, the model has {width:,}")
        found = await model.embed(_listed(body.input, model.facts.vocab), truncate=body.truncate)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(_cut(vector, body), body)}
        for i, vector in enumerate(found.vectors)
    ]
    tokens = sum(found.tokens)
    return {
        "object": "list",
        "data": data,
        "model": body.model or model.facts.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _listed(given: Inputs, vocab: int) -> list[str | Sequence[int]]:
    one = isinstance(given, str) or isinstance(given[0], int)
    inputs: list[Any] = [given] if one else [*given]
    for tokens in inputs:
        if not isinstance(tokens, str) and max(tokens) >= vocab:
            raise RequestError(f"input has the token {max(tokens):,}, the model has {vocab:,}")
    return inputs


def _cut(vector: Sequence[float], body: EmbeddingsBody) -> Sequence[float]:
    if body.dimensions is None or body.dimensions == len(vector):
        return vector
    kept = vector[: body.dimensions]
    length = math.sqrt(math.fsum(value * value for value in kept))
    return [value / length for value in kept] if length else kept


def _encoded(vector: Sequence[float], body: EmbeddingsBody) -> Any:
    """A list of numbers, or the base64 of little-endian float32."""
    if body.encoding_format == "float":
        return list(vector)
    numbers = array("f", vector)
    if array("H", [1]).tobytes() != b"\x01\x00":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
