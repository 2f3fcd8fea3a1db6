"""The one way to a model: who may use it, how much may be asked, how long the answer may take, and
what is noted of it.

Stands before the fleet, so that no route of no API can forget any of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pocketlm.errors import BusyError, PocketLMError, RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.generation import (
    Answer,
    ChatPrompt,
    Constraint,
    Embeddings,
    Ended,
    Fleet,
    Generation,
    LoadedModel,
    ModelFacts,
    Piece,
    Prompt,
    ServedModel,
    Started,
)
from pocketlm.serve.guard.shelf import Permits
from pocketlm.serve.observe.entry import Entry, current
from pocketlm.serve.observe.metrics import Metrics

MAX_SCHEMA_BYTES = 256 << 10
MAX_SCHEMA_DEPTH = 64


@dataclass(frozen=True)
class GuardedFleet:
    """``generation.Fleet`` before another one."""

    inner: Fleet
    config: ServeConfig
    permits: Permits
    metrics: Metrics

    @property
    def draining(self) -> bool:
        return self.inner.draining

    @asynccontextmanager
    async def use(
        self, name: str, *, keep_alive: float | None = None
    ) -> AsyncIterator[ServedModel]:
        await self._require(name)
        async with AsyncExitStack() as stack:
            model = await self._enter(stack, name, keep_alive)
            entry = current.get()
            if entry is not None:
                entry.model = model.facts.name
            try:
                yield _Guarded(model, self.config, self.metrics, entry)
            except BusyError:
                self.metrics.refused("queue")
                raise

    async def _enter(
        self, stack: AsyncExitStack, name: str, keep_alive: float | None
    ) -> ServedModel:
        """The model, loaded; not waited for without end."""
        wait = self.config.max_seconds
        try:
            async with asyncio.timeout(wait):
                return await stack.enter_async_context(self.inner.use(name, keep_alive=keep_alive))
        except TimeoutError as error:
            self.metrics.refused("queue")
            message = f"the model was not loaded after {wait:g} s"
            raise BusyError(message, retry_after=5.0) from error
        except BusyError:
            self.metrics.refused("queue")
            raise

    def loaded(self) -> Sequence[LoadedModel]:
        """Those that the key may use."""
        return [one for one in self.inner.loaded() if self.permits.sees(one.facts.name)]

    async def load(
        self, name: str, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> None:
        await self._require(name)
        await self.inner.load(name, keep_alive=keep_alive, pin=pin)

    async def needs(self, name: str) -> int:
        await self._require(name)
        return await self.inner.needs(name)

    async def unload(self, name: str) -> bool:
        await self._require(name)
        return await self.inner.unload(name)

    async def _require(self, name: str) -> None:
        if self.permits.limited():
            await asyncio.to_thread(self.permits.require, name or self._default())

    def _default(self) -> str:
        return self.config.models[0] if self.config.models else ""


class _Guarded:
    """``generation.ServedModel`` for one request."""

    def __init__(
        self, inner: ServedModel, config: ServeConfig, metrics: Metrics, entry: Entry | None
    ) -> None:
        self.facts: ModelFacts = inner.facts
        self.load_s = inner.load_s
        self._inner = inner
        self._config = config
        self._metrics = metrics
        self._entry = entry

    def answer(self, generation: Generation) -> AbstractAsyncContextManager[Answer]:
        return self._answer(generation)

    @asynccontextmanager
    async def _answer(self, generation: Generation) -> AsyncIterator[Answer]:
        check_prompt(generation.prompt, self._config.max_messages)
        if generation.constraint is not None:
            check_constraint(generation.constraint)
        asked = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + self._config.max_seconds
        context = self._inner.answer(generation)
        try:
            async with asyncio.timeout_at(deadline):
                inner = await context.__aenter__()
        except TimeoutError as error:
            raise BusyError(
                f"the answer had not begun after {self._config.max_seconds:g} s", retry_after=5.0
            ) from error
        answer = _Watched(inner, deadline)
        failure: BaseException | None = None
        try:
            yield answer
        except BaseException as error:
            failure = error
            if not await context.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await context.__aexit__(None, None, None)
        finally:
            self._note(answer, asked, failure)

    def _note(self, answer: _Watched, asked: float, failure: BaseException | None) -> None:
        """Counts an answer that is over, however it ended."""
        name, now = self.facts.name, time.perf_counter()
        if answer.times:
            self._metrics.first_token(name, answer.times[0] - asked)
            gaps = (b - a for a, b in zip(answer.times, answer.times[1:], strict=False))
            self._metrics.gaps(name, gaps)
            if self._entry is not None and self._entry.ttft is None:
                self._entry.ttft = answer.times[0] - self._entry.began
        if answer.ended is None and isinstance(failure, PocketLMError):
            self._metrics.failed(name)
            return
        ended = answer.ended or Ended(
            reason="cancelled",
            prompt_tokens=answer.started.prompt_tokens,
            completion_tokens=answer.tokens,
        )
        self._metrics.ended(name, ended, now - asked)
        if self._entry is not None:
            self._entry.end(ended)

    async def embed(
        self, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> Embeddings:
        found = await self._inner.embed(inputs, truncate=truncate)
        if self._entry is not None:
            self._entry.prompt_tokens += sum(found.tokens)
        return found

    async def tokenize(self, prompt: Prompt) -> tuple[list[int], list[bytes]]:
        check_prompt(prompt, self._config.max_messages)
        return await self._inner.tokenize(prompt)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return await self._inner.detokenize(tokens)


class _Watched:
    """``generation.Answer`` that ends at a deadline, and knows when its pieces came."""

    def __init__(self, inner: Answer, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline
        self._expired = False
        self._waiting: asyncio.Task[Any] | None = None
        self.started: Started = inner.started
        self.ended: Ended | None = None
        self.times: list[float] = []
        self.tokens = 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        pieces = aiter(self._inner)
        loop = asyncio.get_running_loop()
        timer = loop.call_at(self._deadline, self._expire)
        clock = time.perf_counter
        try:
            while not self._expired:
                piece = await self._next(pieces)
                if piece is None:
                    break
                if piece.tokens or piece.text:
                    self.times.append(clock())
                    self.tokens += len(piece.tokens)
                yield piece
        finally:
            timer.cancel()
        self.ended = self._inner.ended or Ended(
            reason="length",
            prompt_tokens=self.started.prompt_tokens,
            completion_tokens=self.tokens,
        )

    async def _next(self, pieces: AsyncIterator[Piece]) -> Piece | None:
        """None at the end of the answer, or of its time."""
        task = self._waiting = asyncio.current_task()
        assert task is not None
        try:
            return await anext(pieces, None)
        except asyncio.CancelledError:
            if self._expired and task.uncancel() == 0:
                return None
            raise
        finally:
            self._waiting = None

    def _expire(self) -> None:
        self._expired = True
        if self._waiting is not None:
            self._waiting.cancel()


def check_prompt(prompt: Prompt, most: int) -> None:
    """Raises RequestError for a conversation of too many messages."""
    if isinstance(prompt, ChatPrompt) and len(prompt.messages) > most:
        raise RequestError(
            f"the conversation has {len(prompt.messages):,} messages, but may have {most:,}"
        )


def check_constraint(constraint: Constraint) -> None:
    """Raises RequestError for a schema or grammar that is too large or too deep."""
    deep = _depth(constraint.value)
    if deep > MAX_SCHEMA_DEPTH:
        raise RequestError(f"the schema is nested more than {MAX_SCHEMA_DEPTH} deep")
    size = len(json.dumps(constraint.value))
    if size > MAX_SCHEMA_BYTES:
        raise RequestError(
            f"the schema or grammar has {size:,} characters, but may have {MAX_SCHEMA_BYTES:,}"
        )


def _depth(value: Any) -> int:
    """How deep a JSON value is nested; stops looking beyond the limit."""
    level, depth = [value], 0
    while level and depth <= MAX_SCHEMA_DEPTH:
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        depth += bool(level)
    return depth
