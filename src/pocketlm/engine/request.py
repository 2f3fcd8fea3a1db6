"""One sequence in the engine: its tokens, how far they are computed, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Protocol

from pocketlm._native import Sampler
from pocketlm.engine.blocks import Key, root
from pocketlm.engine.cache import BlockTable
from pocketlm.engine.constraint import Constraint
from pocketlm.engine.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""An end-of-turn token or a stop string · max_tokens or the context's end · abort · a failure."""


class Decoder(Protocol):
    """Turns ids into text as they come; ``pocketlm.text.StreamDecoder`` is one."""

    def push(self, token: int, /) -> str: ...
    def finish(self) -> str: ...
    @property
    def stopped(self) -> str | None: ...


class Status(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logs, from the raw logits: of the chosen token, and (id, value) best first."""

    logprob: float
    best: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Timing:
    """When things happened, in seconds of ``time.perf_counter``."""

    arrived: float
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None


class Request:
    """A prompt, its options and everything the engine knows about it.

    ``tokens`` is prompt and output; positions below ``computed`` have their keys and values in the
    blocks of ``table``, as far as they will still be seen. The engine computes until ``computed``
    has caught up with ``len(tokens)``, then draws.
    """

    __slots__ = (
        "accepted",
        "cached",
        "computed",
        "constraint",
        "decoder",
        "drafted",
        "dropped",
        "error",
        "finish_reason",
        "id",
        "key",
        "max_total",
        "params",
        "preemptions",
        "prompt_logprobs",
        "prompt_scores",
        "prompt_tokens",
        "published",
        "sampler",
        "status",
        "stop_ids",
        "table",
        "timing",
        "tokens",
        "variant",
    )

    def __init__(
        self,
        id: int,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        max_total: int,
        stop_ids: frozenset[int],
        sampler: Sampler,
        table: BlockTable,
        variant: int = 0,
        decoder: Decoder | None = None,
        dropped: int = 0,
        constraint: Constraint | None = None,
        prompt_logprobs: int | None = None,
    ) -> None:
        self.id = id
        self.tokens = list(prompt)
        self.prompt_tokens = len(self.tokens)
        self.params = params
        self.max_total = max_total  # prompt and output together
        self.stop_ids = stop_ids
        self.sampler = sampler
        self.decoder = decoder
        self.dropped = dropped  # oldest prompt tokens left out by on_overflow="truncate"
        self.constraint = constraint
        self.prompt_logprobs = prompt_logprobs  # best ones for each of its tokens; None: no scores
        self.prompt_scores: list[TokenLogprobs] = []  # of the tokens after the first
        self.status = Status.WAITING
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cached = 0  # prompt tokens found in the prefix cache when first admitted
        self.preemptions = 0
        self.drafted = 0  # tokens that were guessed (engine.speculation),
        self.accepted = 0  # and of them the right ones
        self.timing = Timing(perf_counter())
        self.variant = variant
        self.table = table
        self.forget()

    def forget(self) -> None:
        """Back to nothing computed; whoever held blocks for it has released them."""
        self.computed = 0
        self.published = 0  # pages of the table whose content is published
        self.key: Key = root(self.variant)  # of the page after them

    @property
    def missing(self) -> int:
        """Tokens still to be computed before the next one can be drawn."""
        return len(self.tokens) - self.computed

    @property
    def reusable(self) -> int:
        """How many of its first tokens need no logits of their own."""
        if self.prompt_logprobs is None:
            return len(self.tokens)
        scored = len(self.prompt_scores) + 1  # what the next row scores
        return len(self.tokens) if scored >= self.prompt_tokens else scored

    def unscored(self, count: int) -> range:
        """Positions among the next ``count`` to be computed whose logits score a prompt's token."""
        if self.prompt_logprobs is None:
            return range(0)
        first = max(self.computed, len(self.prompt_scores))
        return range(first, min(self.computed + count, self.prompt_tokens - 1))

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]
