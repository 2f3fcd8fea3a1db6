"""``POST /v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm.errors import PocketLMError, RequestError
from pocketlm.serve.answers import AnswerReader
from pocketlm.serve.anthropic.events import Event, Events, whole_message
from pocketlm.serve.anthropic.request import CountRequest, MessagesRequest, ignored_fields
from pocketlm.serve.anthropic.translate import generation, offers_tools, prompt
from pocketlm.serve.failures import failure_body, request_id
from pocketlm.serve.generation import Answer, Piece
from pocketlm.serve.replies import (
    asks_strict,
    event_stream,
    ignored_header,
    sse_event,
    unless_gone,
)
from pocketlm.serve.services import Services

_log = logging.getLogger(__name__)

# Seconds without a piece after which a client hears that the answer is still being made.
_QUIET = 10.0


def router(services: Services) -> APIRouter:
    """The routes of the Messages API."""
    routes = APIRouter(tags=["Anthropic"])

    @routes.post("/v1/messages")
    async def messages(body: MessagesRequest, request: Request) -> Response:
        """Answers a conversation."""
        headers = _headers(services, body, request)
        if not body.stream:
            events = await unless_gone(request, _all(_events(services, body)))
            return JSONResponse(whole_message(events), headers=headers)
        stream = _events(services, body)
        # What goes wrong before the first event is an HTTP error.
        first = await unless_gone(request, anext(stream))
        return event_stream(_encoded(first, stream), headers)

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountRequest, request: Request) -> Response:
        """Counts the tokens of a conversation as the model's template writes it."""
        headers = _headers(services, body, request)
        async with services.fleet.use(body.model) as model:
            ids, _ = await model.tokenize(prompt(model.facts, body))
        return JSONResponse({"input_tokens": len(ids)}, headers=headers)

    return routes


def _headers(services: Services, body: CountRequest, request: Request) -> dict[str, str]:
    """Checks what concerns no model; the headers of the response."""
    config = services.config
    if len(body.messages) > config.max_messages:
        raise RequestError(
            f"messages has {len(body.messages):,} entries, at most {config.max_messages:,} can be"
        )
    strict = asks_strict(request) or config.strict
    ignored = ignored_header(ignored_fields(body), strict=strict)
    return {"request-id": request_id(), **ignored}


async def _events(services: Services, body: MessagesRequest) -> AsyncGenerator[Event, None]:
    """The events of an answer; closing this ends the request to the model."""
    async with (
        services.fleet.use(body.model) as model,
        model.answer(generation(model.facts, body)) as answer,
    ):
        reader = AnswerReader(model.facts, answer.started, tools=offers_tools(body), reasoning=True)
        events = Events(body.model, answer.started, body.max_tokens)
        for event in events.begin():
            yield event
        async with aclosing(_with_pauses(answer)) as pieces:
            async for piece in pieces:
                if piece is None:
                    yield {"type": "ping"}
                    continue
                for part in reader.push(piece.text):
                    for event in events.add(part):
                        yield event
        for part in reader.finish():
            for event in events.add(part):
                yield event
        assert answer.ended is not None, "an answer without an end"
        for event in events.end(answer.ended):
            yield event


async def _with_pauses(answer: Answer) -> AsyncGenerator[Piece | None, None]:
    """The pieces of an answer, and None whenever there was none for a while."""
    pieces = aiter(answer)
    waiting = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_QUIET)
            if not done:
                yield None
                continue
            piece = waiting.result()
            if piece is None:
                return
            yield piece
            waiting = asyncio.ensure_future(anext(pieces, None))
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _all(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


async def _encoded(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    """Server-sent events; what goes wrong now is the last of them."""
    try:
        yield sse_event(first, event=first["type"])
        async for event in rest:
            yield sse_event(event, event=event["type"])
    except PocketLMError as error:
        yield _failed(error.http_status, str(error))
    except Exception:
        _log.exception("an answer failed")
        yield _failed(500, "the server failed on this request; its log says why")
    finally:
        await rest.aclose()


def _failed(status: int, message: str) -> bytes:
    return sse_event(failure_body("/v1/messages", status, message), event="error")
