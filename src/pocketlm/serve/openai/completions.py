"""``POST /v1/completions``: texts continued, whole or as they come."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm import __version__
from pocketlm.serve.generation import Answer, Ended, Generation, Piece, ServedModel
from pocketlm.serve.openai.answering import (
    AnswerStream,
    pieces_of,
    prompt_scores,
    together,
    usage,
)
from pocketlm.serve.openai.asking import headers, use
from pocketlm.serve.openai.chunks import TextChunk, to_the_end
from pocketlm.serve.openai.completion_request import AskedText, CompletionBody, ask_completion
from pocketlm.serve.openai.logprobs import CompletionLogprobs, joined
from pocketlm.serve.replies import sse_event, unless_gone
from pocketlm.serve.services import Services

Record = dict[str, Any]


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/completions", operation_id="create_completion")
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continues texts, or fills the gap before a suffix."""
        headers(services, request, body)  # refuses before a model is loaded
        answer = _stream if body.stream else _whole
        return await unless_gone(request, answer(services, request, body))

    return routes


def _head(model: str) -> Record:
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"pocketlm-{__version__}",
    }


async def _whole(services: Services, request: Request, body: CompletionBody) -> Response:
    async with use(services, body.model, keep_alive=body.keep_alive) as model:
        asked = ask_completion(model.facts, body)
        extra = headers(services, request, body)
        work = [_choice(model, body, one, g) for one in asked for g in one.generations]
        found = await together(work)
    record = {
        **_head(body.model or model.facts.name),
        "choices": [{"index": i, **choice} for i, (choice, _) in enumerate(found)],
        "usage": usage([(ended, 0) for _, ended in found], choices=body.n or 1),
    }
    return JSONResponse(record, headers=extra)


async def _choice(
    model: ServedModel, body: CompletionBody, asked: AskedText, generation: Generation
) -> tuple[Record, Ended]:
    async with model.answer(generation) as answer:
        writer = ChoiceWriter(model, body, asked, answer)
        records = [await writer.opening()]
        records += [writer.piece(piece) async for piece in answer]
    assert answer.ended is not None, "an answer without an end"
    ended = writer.counted(answer.ended)
    records.append(writer.end(ended))
    whole = {**records[-1], "text": "".join(record["text"] for record in records)}
    if body.logprobs is not None:
        parts = [record["logprobs"] for record in records if record["logprobs"]]
        whole["logprobs"] = joined(parts)
    if body.prompt_logprobs is not None:
        whole["prompt_logprobs"] = records[0]["prompt_logprobs"]
    if body.return_token_ids:
        whole["prompt_token_ids"] = records[0]["prompt_token_ids"]
        whole["token_ids"] = [id for record in records for id in record["token_ids"]]
    return whole, ended


class ChoiceWriter:
    """Writes one choice as records: its opening, one for each piece, its end."""

    def __init__(
        self, model: ServedModel, body: CompletionBody, asked: AskedText, answer: Answer
    ) -> None:
        self._model = model
        self._body = body
        self._asked = asked
        self._started = answer.started
        self._logprobs: CompletionLogprobs | None = None
        if body.logprobs is not None:
            self._logprobs = CompletionLogprobs(body.logprobs)
        self.silent = body.max_tokens == 0  # one token is made, and not shown
        self.tokens = 0

    async def opening(self) -> Record:
        """The prompt, as far as it is wanted."""
        body, started = self._body, self._started
        text, logprobs = "", None
        if body.echo:
            text = self._asked.text or await self._detokenize(started.prompt_ids)
            if self._logprobs is not None and started.prompt_scores:
                first = await self._first()
                rest = [one for one in started.prompt_scores if one is not None]
                logprobs = joined([first, self._logprobs.add(rest)])
        record = self._record(text, logprobs, [])
        if body.prompt_logprobs is not None:
            record["prompt_logprobs"] = prompt_scores(started.prompt_scores)
        if body.return_token_ids:
            record["prompt_token_ids"] = list(started.prompt_ids)
        return record

    def piece(self, piece: Piece) -> Record:
        """Some of the answer."""
        self.tokens += len(piece.tokens)
        if self.silent:
            return self._record("", None, [])
        logprobs = None
        if self._logprobs is not None and piece.scores:
            logprobs = self._logprobs.add(piece.scores)
        return self._record(piece.text, logprobs, list(piece.tokens))

    def end(self, ended: Ended) -> Record:
        """How it ended."""
        keep = self._body.include_stop_str_in_output and ended.stop and not self.silent
        record = self._record(ended.stop or "" if keep else "", None, [])
        reason = "stop" if ended.reason == "stop" and not self.silent else "length"
        return {**record, "finish_reason": reason, "stop_reason": ended.stop}

    def counted(self, ended: Ended) -> Ended:
        """What the client pays for."""
        if not self.silent:
            return ended
        return Ended(
            reason="length",
            prompt_tokens=ended.prompt_tokens,
            cached_tokens=ended.cached_tokens,
        )

    def _record(self, text: str, logprobs: Record | None, tokens: list[int]) -> Record:
        record: Record = {"text": text, "logprobs": logprobs, "finish_reason": None}
        if self._body.return_token_ids:
            record["token_ids"] = tokens
        return record

    async def _detokenize(self, tokens: Any) -> str:
        return await self._model.detokenize(list(tokens)) if tokens else ""

    async def _first(self) -> Record:
        """The first token of the prompt, which has no score."""
        assert self._logprobs is not None
        id = self._started.prompt_ids[0]
        text = await self._detokenize([id])
        special = id in self._model.facts.special_texts.values()
        shown = not (special and self._asked.text is not None)
        return self._logprobs.first(text.encode(), shown=shown)


async def _stream(services: Services, request: Request, body: CompletionBody) -> Response:
    held = AsyncExitStack()
    try:
        used = use(services, body.model, keep_alive=body.keep_alive)
        model = await held.enter_async_context(used)
        asked = ask_completion(model.facts, body)
        extra = headers(services, request, body)
        answers, writers = [], []
        for one in asked:
            for generation in one.generations:
                answer = await held.enter_async_context(model.answer(generation))
                answers.append(answer)
                writers.append(ChoiceWriter(model, body, one, answer))
    except BaseException:
        await held.aclose()
        raise
    head = _head(body.model or model.facts.name)
    return AnswerStream(to_the_end(_events(head, body, answers, writers)), held, extra)


async def _events(
    head: Record, body: CompletionBody, answers: list[Answer], writers: list[ChoiceWriter]
) -> AsyncGenerator[bytes, None]:
    """All events but the last, ``[DONE]``."""
    options = body.stream_options
    running = options is not None and options.continuous_usage_stats
    asked = options is not None and options.include_usage
    endings: list[Ended | None] = [None] * len(answers)

    def total() -> Record:
        found = [
            ended
            or Ended(
                reason="stop",
                prompt_tokens=answer.started.prompt_tokens,
                completion_tokens=0 if writer.silent else writer.tokens,
            )
            for ended, answer, writer in zip(endings, answers, writers, strict=True)
        ]
        return usage([(ended, 0) for ended in found], choices=body.n or 1)

    def chunk(index: int, record: Record) -> Record:
        whole = {**head, "choices": [{"index": index, **record}]}
        if running or asked:
            whole["usage"] = total() if running else None
        return whole

    plain = not running and body.logprobs is None and not body.return_token_ids
    blank = {"text": TextChunk.HERE, "logprobs": None, "finish_reason": None}
    patterns = [TextChunk(chunk(i, blank)) for i in range(len(answers))] if plain else []
    for index, writer in enumerate(writers):
        opening = await writer.opening()
        if opening["text"] or "prompt_logprobs" in opening or "prompt_token_ids" in opening:
            yield sse_event(chunk(index, opening))
    async for index, piece in pieces_of(answers):
        writer = writers[index]
        if piece is None:
            ended = answers[index].ended
            assert ended is not None, "an answer without an end"
            endings[index] = ended = writer.counted(ended)
            yield sse_event(chunk(index, writer.end(ended)))
        elif patterns:
            record = writer.piece(piece)
            if record["text"]:
                yield patterns[index].event(record["text"])
        else:
            record = writer.piece(piece)
            if record["text"] or record["logprobs"] or record.get("token_ids"):
                yield sse_event(chunk(index, record))
    if asked:
        yield sse_event({**head, "choices": [], "usage": total()})
