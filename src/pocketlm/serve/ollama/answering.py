"""``/api/generate`` and ``/api/chat``: one answer, line by line or whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm.errors import NotFoundError, RequestError
from pocketlm.serve.generation import ServedModel
from pocketlm.serve.ollama.asked import asked_of, check, is_load
from pocketlm.serve.ollama.bodies import ChatBody, GenerateBody
from pocketlm.serve.ollama.lines import (
    Delta,
    Line,
    Shape,
    chat_line,
    deltas,
    end_line,
    generate_line,
    head,
    nothing_line,
)
from pocketlm.serve.ollama.names import called
from pocketlm.serve.ollama.options import Options
from pocketlm.serve.ollama.route import renamed
from pocketlm.serve.ollama.streams import stream_lines
from pocketlm.serve.replies import unless_gone
from pocketlm.serve.services import Services


def add_routes(routes: APIRouter, services: Services) -> None:
    """Both routes."""

    @routes.post("/generate")
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Continues a prompt, by the model's chat template unless it is raw."""
        return await _respond(services, request, body, generate_line)

    @routes.post("/chat")
    async def chat(body: ChatBody, request: Request) -> Response:
        """Answers a conversation."""
        if len(body.messages or ()) > services.config.max_messages:
            raise RequestError(
                f"the conversation has {len(body.messages or ()):,} messages, "
                f"at most {services.config.max_messages:,} are taken"
            )
        return await _respond(services, request, body, chat_line)


async def _respond(
    services: Services, request: Request, body: GenerateBody | ChatBody, shape: Shape
) -> Response:
    options, headers = check(body, services.config)
    if is_load(body):
        line = await unless_gone(request, _load(services, body, shape))
        return JSONResponse(line, headers=headers)
    if body.stream is None or body.stream:
        lines = _lines(services, body, options, shape)
        return await stream_lines(request, lines, headers)
    whole = await unless_gone(request, _whole(services, body, options, shape))
    return JSONResponse(whole, headers=headers)


@asynccontextmanager
async def use(
    services: Services, name: str, keep_alive: float | None
) -> AsyncIterator[ServedModel]:
    """The model that a client names. Raises NotFoundError in Ollama's words."""
    ours = await asyncio.to_thread(called, services, name)
    entered = False
    try:
        async with services.fleet.use(ours, keep_alive=keep_alive) as model:
            entered = True
            yield model
    except NotFoundError as error:
        if entered:
            raise
        raise renamed(error, name) from error


async def _load(services: Services, body: GenerateBody | ChatBody, shape: Shape) -> Line:
    """Loads the model; unloads it where nothing is asked and it is not to stay."""
    ours = await asyncio.to_thread(called, services, body.model)
    try:
        if body.keep_alive == 0:
            await services.fleet.unload(ours)
            return nothing_line(body.model, shape, "unload")
        await services.fleet.load(ours, keep_alive=body.keep_alive)
    except NotFoundError as error:
        raise renamed(error, body.model) from error
    return nothing_line(body.model, shape, "load")


async def _lines(
    services: Services, body: GenerateBody | ChatBody, options: Options, shape: Shape
) -> AsyncGenerator[Line, None]:
    """The lines of an answer; closing it ends the request to the model."""
    begun = time.monotonic()
    async with use(services, body.model, body.keep_alive) as model:
        asked = asked_of(body, options, model.facts)
        async with (
            model.answer(asked.generation) as answer,
            aclosing(deltas(answer, model.facts, asked)) as parts,
        ):
            last = Delta()
            async for delta in parts:
                if delta:
                    delta.scores[:0] = last.scores
                    yield {**head(body.model), **shape(delta), "done": False}
                    last = Delta()
                else:
                    last = delta
            total = time.monotonic() - begun
            end = end_line(answer.ended, total_s=total, load_s=model.load_s)
        yield {**head(body.model), **shape(last), **end}


async def _whole(
    services: Services, body: GenerateBody | ChatBody, options: Options, shape: Shape
) -> Line:
    begun = time.monotonic()
    async with use(services, body.model, body.keep_alive) as model:
        asked = asked_of(body, options, model.facts)
        whole = Delta()
        async with model.answer(asked.generation) as answer:
            async for delta in deltas(answer, model.facts, asked):
                whole.add(delta)
            total = time.monotonic() - begun
            end = end_line(answer.ended, total_s=total, load_s=model.load_s)
    return {**head(body.model), **shape(whole), **end}
