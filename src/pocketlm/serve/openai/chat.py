"""``POST /v1/chat/completions``: answers to a conversation, whole or as they come."""

from __future__ import annotations

import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from pocketlm import __version__
from pocketlm.serve.answers import Content, Part, Reasoning, ToolCallArguments, ToolCallStart
from pocketlm.serve.generation import Ended, Generation, Scored, ServedModel, Started
from pocketlm.serve.openai.answering import AnswerStream, prompt_scores, reading, together, usage
from pocketlm.serve.openai.asking import headers, use
from pocketlm.serve.openai.chat_request import AskedChat, ChatBody, ask_chat
from pocketlm.serve.openai.chat_stream import ChatStream
from pocketlm.serve.openai.chunks import to_the_end
from pocketlm.serve.openai.logprobs import chat_logprobs
from pocketlm.serve.replies import unless_gone
from pocketlm.serve.services import Services


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/chat/completions", operation_id="create_chat_completion")
    async def chat(body: ChatBody, request: Request) -> Response:
        """Continues a conversation."""
        headers(services, request, body)  # refuses before a model is loaded
        answer = _stream if body.stream else _whole
        return await unless_gone(request, answer(services, request, body))

    return routes


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"pocketlm-{__version__}",
    }


async def _stream(services: Services, request: Request, body: ChatBody) -> Response:
    held = AsyncExitStack()
    try:
        used = use(services, body.model, keep_alive=body.keep_alive)
        model = await held.enter_async_context(used)
        asked = ask_chat(model.facts, body, services.config.max_messages)
        extra = headers(services, request, body, without_effect=asked.without_effect)
        answers = [await held.enter_async_context(model.answer(g)) for g in asked.generations]
    except BaseException:
        await held.aclose()
        raise
    head = _head("chat.completion.chunk", body.model or model.facts.name)
    stream = ChatStream(head, model.facts, body, asked, answers)
    return AnswerStream(to_the_end(stream.events()), held, extra)


async def _whole(services: Services, request: Request, body: ChatBody) -> Response:
    async with use(services, body.model, keep_alive=body.keep_alive) as model:
        asked = ask_chat(model.facts, body, services.config.max_messages)
        extra = headers(services, request, body, without_effect=asked.without_effect)
        choices = await together([_choice(model, asked, body, g) for g in asked.generations])
    ends = [(choice.ended, choice.reasoning_tokens) for choice in choices]
    record = {
        **_head("chat.completion", body.model or model.facts.name),
        "choices": [choice.record(i, body) for i, choice in enumerate(choices)],
        "usage": usage(ends, choices=len(ends)),
    }
    started = choices[0].started
    if body.prompt_logprobs is not None:
        record["prompt_logprobs"] = prompt_scores(started.prompt_scores)
    if body.return_token_ids:
        record["prompt_token_ids"] = list(started.prompt_ids)
    return JSONResponse(record, headers=extra)


@dataclass
class _Choice:
    """An answer as it grows."""

    started: Started
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    reasoning_tokens: int = 0
    finish: str = "stop"
    ended: Ended = field(default_factory=lambda: Ended(reason="stop"))

    def add(self, parts: list[Part]) -> None:
        for part in parts:
            match part:
                case Content(text):
                    self.content.append(text)
                case Reasoning(text):
                    self.reasoning.append(text)
                case ToolCallStart(_, id=id, name=name):
                    function = {"name": name, "arguments": ""}
                    self.calls.append({"id": id, "type": "function", "function": function})
                case ToolCallArguments(index, text):
                    self.calls[index]["function"]["arguments"] += text

    def record(self, index: int, body: ChatBody) -> dict[str, Any]:
        """OpenAI's choice."""
        content = "".join(self.content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self.calls and not content else content,
            "refusal": None,
        }
        if self.calls:
            message["tool_calls"] = self.calls
        if self.reasoning and body.include_reasoning:
            message["reasoning_content"] = message["reasoning"] = "".join(self.reasoning)
        best = body.best
        choice: dict[str, Any] = {
            "index": index,
            "message": message,
            "logprobs": None if best is None else chat_logprobs(self.scores, best),
            "finish_reason": self.finish,
            "stop_reason": self.ended.stop,
        }
        if body.return_token_ids:
            choice["token_ids"] = self.tokens
        return choice


async def _choice(
    model: ServedModel, asked: AskedChat, body: ChatBody, generation: Generation
) -> _Choice:
    async with model.answer(generation) as answer:
        choice = _Choice(answer.started)
        read = reading(
            model.facts,
            answer,
            tools=asked.tools,
            reasoning=asked.reasoning,
            keep_stop=body.include_stop_str_in_output,
        )
        async for piece in answer:
            choice.add(read.push(piece))
            choice.tokens += piece.tokens
            choice.scores += piece.scores or ()
    assert answer.ended is not None, "an answer without an end"
    choice.add(read.finish(answer.ended))
    choice.ended, choice.finish = answer.ended, read.finish_reason(answer.ended)
    choice.reasoning_tokens = read.reasoning_tokens
    return choice
