"""``POST /v1/responses``: an answer as a list of items, whole or as events. Nothing is stored."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm.errors import NotFoundError, PocketLMError
from pocketlm.serve.generation import Answer, ModelFacts
from pocketlm.serve.openai.answering import AnswerStream, reading
from pocketlm.serve.openai.asking import headers, use
from pocketlm.serve.openai.chat_request import AskedChat, ask_chat
from pocketlm.serve.openai.responses_events import Event, ResponseEvents
from pocketlm.serve.openai.responses_request import ResponsesBody, as_chat
from pocketlm.serve.replies import sse_event, unless_gone
from pocketlm.serve.services import Services

_log = logging.getLogger(__name__)


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/responses", operation_id="create_response")
    async def responses(body: ResponsesBody, request: Request) -> Response:
        """Answers a conversation of items."""
        headers(services, request, body)  # refuses before a model is loaded
        return await unless_gone(request, _respond(services, request, body))

    async def missing(id: str) -> Response:
        """There is none: responses are not stored."""
        raise NotFoundError(f"there is no response {id!r:.80}: responses are not stored here")

    for method, name in (("GET", "retrieve"), ("DELETE", "delete")):
        routes.add_api_route(
            "/v1/responses/{id}", missing, methods=[method], operation_id=f"{name}_response"
        )
    return routes


async def _respond(services: Services, request: Request, body: ResponsesBody) -> Response:
    chat = as_chat(body)
    held = AsyncExitStack()
    try:
        used = use(services, body.model, keep_alive=body.keep_alive)
        model = await held.enter_async_context(used)
        asked = ask_chat(model.facts, chat, services.config.max_messages)
        idle = ["reasoning.effort"] * bool(asked.without_effect) + ["store"] * bool(body.store)
        extra = headers(services, request, body, without_effect=idle)
        answer = await held.enter_async_context(model.answer(asked.generations[0]))
        events = ResponseEvents(body, body.model or model.facts.name)
        steps = _events(events, model.facts, asked, answer)
        if body.stream:
            return AnswerStream(_encoded(steps, events), held, extra)
        async for _ in steps:
            pass
    except BaseException:
        await held.aclose()
        raise
    await held.aclose()
    return JSONResponse(events.response, headers=extra)


async def _events(
    events: ResponseEvents, facts: ModelFacts, asked: AskedChat, answer: Answer
) -> AsyncGenerator[Event, None]:
    read = reading(facts, answer, tools=asked.tools, reasoning=asked.reasoning, keep_stop=False)
    for event in events.begin():
        yield event
    async for piece in answer:
        events.score(piece.scores)
        for part in read.push(piece):
            for event in events.add(part):
                yield event
    assert answer.ended is not None, "an answer without an end"
    for part in read.finish(answer.ended):
        for event in events.add(part):
            yield event
    for event in events.end(answer.ended, read.reasoning_tokens):
        yield event


async def _encoded(
    steps: AsyncGenerator[Event, None], events: ResponseEvents
) -> AsyncGenerator[bytes, None]:
    """Server-sent events; what goes wrong on the way is the last of them."""
    try:
        async for event in steps:
            yield sse_event(event, event=event["type"])
    except PocketLMError as error:
        for event in events.fail(str(error)):
            yield sse_event(event, event=event["type"])
    except Exception:
        _log.exception("an answer failed")
        for event in events.fail("the server failed on this request; its log says why"):
            yield sse_event(event, event=event["type"])
    finally:
        await steps.aclose()
