"""A fleet whose models answer what the test says, for the tests of the HTTP APIs.

    fleet = ScriptedFleet(Script("Hello", " world"))
    ...
    assert fleet.asked[0].options["temperature"] == 0

A scripted model's tokens are the bytes of a text: ids below 256.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pocketlm.errors import ContextError, NotFoundError, PocketLMError
from pocketlm.serve.generation import (
    ChatPrompt,
    Embeddings,
    Ended,
    FillPrompt,
    FinishReason,
    Generation,
    LoadedModel,
    ModelFacts,
    Piece,
    Prompt,
    Scored,
    Started,
    TextPrompt,
    TokenPrompt,
    TokenScore,
)

FACTS = ModelFacts(
    name="tiny:latest",
    digest="ab" * 32,
    family="llama",
    parameters=134_515_008,
    quantization="Q4_1",
    context=4096,
    trained_context=8192,
    vocab=256,
    width=4,
    template="{{ messages }}",
    capabilities=frozenset({"completion", "tools", "thinking", "insert", "embedding"}),
    special_texts={},
)


@dataclass(frozen=True)
class Script:
    """The pieces of an answer and how it ends; ``error`` is raised after them."""

    pieces: Sequence[str] = ("Hello", " world")
    reason: FinishReason = "stop"
    stop: str | None = None  # the stop string that ended it
    prompt_tail: str = ""
    error: Exception | None = None
    refuses: PocketLMError | None = None  # raised before the answer begins
    delay: float = 0.0  # seconds before each piece


@dataclass
class ScriptedAnswer:
    started: Started
    script: Script
    generation: Generation
    ended: Ended | None = None

    async def __aiter__(self) -> AsyncIterator[Piece]:
        count = 0
        limit = self.generation.options.get("max_tokens")
        reason = self.script.reason
        for text in self.script.pieces:
            await asyncio.sleep(self.script.delay)
            data = text.encode()
            if limit is not None and count + len(data) > limit:
                data, reason = data[: limit - count], "length"
            count += len(data)
            scores = None
            if self.generation.options.get("logprobs") is not None:
                scores = tuple(_scored(i, self.generation.options["logprobs"]) for i in data)
            yield Piece(data.decode(errors="replace"), tuple(data), scores)
            if reason == "length":
                break
        if self.script.error is not None:
            raise self.script.error
        self.ended = Ended(
            reason=reason,
            stop=self.script.stop,
            prompt_tokens=self.started.prompt_tokens,
            completion_tokens=count,
            queue_s=0.001,
            prefill_s=0.01,
            decode_s=0.1,
        )


@dataclass
class ScriptedModel:
    fleet: ScriptedFleet
    facts: ModelFacts
    load_s: float = 0.0

    @asynccontextmanager
    async def answer(self, generation: Generation) -> AsyncIterator[ScriptedAnswer]:
        script = self.fleet.script(generation)
        self.fleet.asked.append(generation)
        if script.refuses is not None:
            raise script.refuses
        tokens = list(prompt_text(generation.prompt).encode())
        if isinstance(generation.prompt, TokenPrompt):
            tokens = list(generation.prompt.tokens)
        context = generation.context or self.facts.context
        if len(tokens) >= context:
            raise ContextError(
                f"the prompt has {len(tokens):,} tokens, but the context has {context:,}"
            )
        scores: list[Scored | None] | None = None
        if generation.prompt_logprobs is not None:
            best = generation.prompt_logprobs
            scores = [None, *(_scored(i, best) for i in tokens[1:])]
        started = Started(
            prompt_tokens=len(tokens),
            prompt_tail=script.prompt_tail,
            prompt_ids=tokens,
            prompt_scores=scores,
            seed=generation.options.get("seed") or 0,
        )
        self.fleet.open += 1
        try:
            yield ScriptedAnswer(started, script, generation)
        finally:
            self.fleet.open -= 1

    async def embed(
        self, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> Embeddings:
        sizes = [len(one.encode() if isinstance(one, str) else one) for one in inputs]
        if not truncate and max(sizes) > self.facts.context:
            raise ContextError(
                f"the text has {max(sizes):,} tokens, but the context has {self.facts.context:,}"
            )
        vectors = [[0.5] * 4 for _ in inputs]
        return Embeddings(vectors=vectors, tokens=[min(n, self.facts.context) for n in sizes])

    async def tokenize(self, prompt: Prompt) -> tuple[list[int], list[bytes]]:
        data = prompt_text(prompt).encode()
        return list(data), [bytes([i]) for i in data]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


@dataclass
class ScriptedFleet:
    """``script`` is one for all requests, or a function of the request.

    Attributes:
        asked: every generation, in order. kept: the keep_alive of every use. open: answers under
            way. names: the models there are.
    """

    script_or_function: Script | Callable[[Generation], Script] = field(default_factory=Script)
    facts: ModelFacts = FACTS
    names: Mapping[str, ModelFacts] | None = None
    asked: list[Generation] = field(default_factory=list)
    kept: list[float | None] = field(default_factory=list)
    loaded_names: dict[str, float | None] = field(default_factory=dict)
    open: int = 0
    draining: bool = False
    load_delay: float = 0.0  # seconds that a model takes to be there

    def script(self, generation: Generation) -> Script:
        given = self.script_or_function
        return given if isinstance(given, Script) else given(generation)

    @asynccontextmanager
    async def use(
        self, name: str, *, keep_alive: float | None = None
    ) -> AsyncIterator[ScriptedModel]:
        facts = self._facts(name)
        await asyncio.sleep(self.load_delay)
        self.kept.append(keep_alive)
        self.loaded_names[facts.name] = keep_alive
        yield ScriptedModel(self, facts)
        if keep_alive == 0:
            self.loaded_names.pop(facts.name, None)

    def loaded(self) -> Sequence[LoadedModel]:
        now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        return [
            LoadedModel(
                facts=self._facts(name),
                memory=200_000_000,
                loaded=now,
                expires=now,
                pinned=False,
                running=0,
                waiting=0,
                pid=1,
            )
            for name in self.loaded_names
        ]

    async def load(
        self, name: str, *, keep_alive: float | None = None, pin: bool | None = None
    ) -> None:
        self.loaded_names[self._facts(name).name] = keep_alive

    async def needs(self, name: str) -> int:
        return self._facts(name).parameters

    async def unload(self, name: str) -> bool:
        return self.loaded_names.pop(self._facts(name).name, "no") != "no"

    def _facts(self, name: str) -> ModelFacts:
        names = self.names or {self.facts.name: self.facts}
        for known, facts in names.items():
            if name in (known, known.removesuffix(":latest")):
                return replace(facts, name=known)
        raise NotFoundError(f"there is no model {name}")


def prompt_text(prompt: Prompt) -> str:
    """What a scripted model reads."""
    match prompt:
        case ChatPrompt():
            return "".join(f"<{m['role']}>{_content(m)}" for m in prompt.messages)
        case TextPrompt():
            return prompt.text
        case FillPrompt():
            return f"{prompt.prefix}<gap>{prompt.suffix}"
        case TokenPrompt():
            return bytes(prompt.tokens).decode(errors="replace")


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


def _scored(token: int, best: int) -> Scored:
    others = tuple(
        TokenScore((token + i) % 256, bytes([(token + i) % 256]), -0.5 - i) for i in range(best)
    )
    return Scored(TokenScore(token, bytes([token]), -0.5), others)
