"""Answers under way, as the routes read them: parts of text, what was counted, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pocketlm.serve.answers import AnswerReader, Content, Part, Reasoning, ToolCallStart
from pocketlm.serve.generation import Answer, Ended, ModelFacts, Piece, Scored
from pocketlm.serve.replies import event_stream

T = TypeVar("T")


class Reading:
    """Reads one answer and counts what it is made of. Not thread-safe.

    Attributes:
        reasoning_tokens: tokens of the model's thinking, its tags included.
        called: whether it calls a tool.
    """

    def __init__(
        self,
        facts: ModelFacts,
        answer: Answer,
        *,
        tools: bool,
        reasoning: bool,
        keep_stop: bool = False,
    ) -> None:
        self._reader = AnswerReader(facts, answer.started, tools=tools, reasoning=reasoning)
        self._keep_stop = keep_stop
        self._undecided = 0  # tokens of which no part has come yet
        self.reasoning_tokens = 0
        self.called = False

    def push(self, piece: Piece) -> list[Part]:
        """The parts that are certain after a piece."""
        parts = self._reader.push(piece.text)
        self._undecided += len(piece.tokens)
        if parts:
            self._count(parts)
        return parts

    def finish(self, ended: Ended) -> list[Part]:
        """What was held back, with the stop string where it is wanted."""
        parts: list[Part] = []
        if self._keep_stop and ended.stop:
            parts += self._reader.push(ended.stop)
        parts += self._reader.finish()
        self._count(parts)
        return parts

    def _count(self, parts: list[Part]) -> None:
        if parts and isinstance(parts[-1], Reasoning):
            self.reasoning_tokens += self._undecided
        elif any(isinstance(part, Reasoning) for part in parts):
            self.reasoning_tokens += max(0, self._undecided - 1)
        self._undecided = 0
        self.called = self.called or any(isinstance(part, ToolCallStart) for part in parts)

    def finish_reason(self, ended: Ended) -> str:
        """OpenAI's word for how it ended."""
        if ended.reason == "stop":
            return "tool_calls" if self.called else "stop"
        return "length" if ended.reason == "length" else "stop"


class PlainReading(Reading):
    """One for a model that neither thinks nor is offered tools: the text is the content."""

    def push(self, piece: Piece) -> list[Part]:
        return [Content(piece.text)] if piece.text else []

    def finish(self, ended: Ended) -> list[Part]:
        return [Content(ended.stop)] if self._keep_stop and ended.stop else []


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; where one fails the others are cancelled and have ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def pieces_of(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Piece | None], None]:
    """(which answer, a piece) as they come; None at the end of each."""
    if len(answers) == 1:
        async for piece in answers[0]:
            yield 0, piece
        yield 0, None
        return
    queue: asyncio.Queue[tuple[int, Piece | BaseException | None]] = asyncio.Queue(4 * len(answers))

    async def read(index: int) -> None:
        try:
            async for piece in answers[index]:
                await queue.put((index, piece))
            await queue.put((index, None))
        except Exception as error:
            await queue.put((index, error))

    tasks = [asyncio.ensure_future(read(index)) for index in range(len(answers))]
    try:
        left = len(answers)
        while left:
            index, found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            left -= found is None
            yield index, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AnswerStream(StreamingResponse):
    """Events of answers. However it ends, also if it never began, ``held`` is closed: the requests
    to the model end with it."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], held: AsyncExitStack, headers: dict[str, str]
    ) -> None:
        made = event_stream(chunks, headers)
        super().__init__(chunks, media_type=made.media_type)
        self.raw_headers = made.raw_headers
        self._chunks = chunks
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._chunks.aclose()
            await self._held.aclose()


def usage(endings: Sequence[tuple[Ended, int]], *, choices: int = 1) -> dict[str, Any]:
    """What answers cost.

    Args:
        endings: each with the tokens of its thinking.
        choices: how many have one prompt in common, which counts once.
    """
    prompt = sum(ended.prompt_tokens for ended, _ in endings[::choices])
    cached = sum(ended.cached_tokens for ended, _ in endings[::choices])
    output = sum(ended.completion_tokens for ended, _ in endings)
    return usage_record(prompt, cached, output, sum(thought for _, thought in endings))


def usage_record(prompt: int, cached: int, output: int, thought: int) -> dict[str, Any]:
    """OpenAI's ``usage``."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def prompt_scores(scores: Sequence[Scored | None] | None) -> list[dict[str, Any] | None] | None:
    """vLLM's ``prompt_logprobs``: for each token of the prompt what was likely there, by id.

    The rank of a token that is none of the best is not known: null.
    """
    if scores is None:
        return None
    records: list[dict[str, Any] | None] = []
    for scored in scores:
        if scored is None:
            records.append(None)
            continue
        ranked = {token.id: (token, rank) for rank, token in enumerate(scored.best, 1)}
        ranked.setdefault(scored.chosen.id, (scored.chosen, 0))
        records.append(
            {
                str(id): {
                    "logprob": token.logprob,
                    "rank": rank or None,
                    "decoded_token": token.data.decode(errors="replace"),
                }
                for id, (token, rank) in ranked.items()
            }
        )
    return records


def reading(
    facts: ModelFacts, answer: Answer, *, tools: bool, reasoning: bool, keep_stop: bool
) -> Reading:
    """The reading of an answer: of its parts where it may have any, else of its text."""
    kind = Reading if tools or reasoning else PlainReading
    return kind(facts, answer, tools=tools, reasoning=reasoning, keep_stop=keep_stop)
