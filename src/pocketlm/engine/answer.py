"""From the engine's outputs to what a caller reads: chunks as they come, or one completion."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from pocketlm.engine.context import Overflow
from pocketlm.engine.request import Decoder, FinishReason, Request, TokenLogprobs
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.shared import SharedEngine
from pocketlm.errors import PocketLMError


@dataclass(frozen=True, slots=True)
class Stats:
    """What an answer cost.

    Attributes:
        prompt_tokens: tokens of the prompt, the cached ones included.
        cached_tokens: of them, those whose keys and values were still in memory.
        completion_tokens: tokens of the answer, an end-of-turn token included.
        dropped_tokens: prompt tokens left out by on_overflow="truncate".
        dropped_messages: messages left out by it.
        ttft_s: seconds from the call to the first token; None before it.
        prefill_tps: prompt tokens computed in a second.
        decode_tps: tokens after the first in a second.
        drafted_tokens: tokens guessed by speculation.
        accepted_tokens: of them, those that were right and saved a step.
        seed: gives the same text again.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    dropped_tokens: int
    dropped_messages: int
    ttft_s: float | None
    prefill_tps: float | None
    decode_tps: float | None
    drafted_tokens: int
    accepted_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. ``finish_reason`` and ``stats`` come with the last one."""

    text: str
    token: int | None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    stats: Stats | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. ``logprobs`` has one entry for each token where they were asked for."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in tokens, and what was left out of it to make it fit."""

    tokens: list[int]
    keep: int = 0  # tokens at the head that truncation keeps
    dropped_messages: int = 0
    dropped_tokens: int = 0


def answer(
    shared: SharedEngine,
    prompt: Prompt,
    params: SamplingParams,
    decoder: Decoder,
    on_overflow: Overflow,
    cancel: threading.Event | None,
) -> Iterator[Chunk]:
    """The answer piece by piece.

    The first is empty: once it is taken the request is queued, and closing this ends it.
    """
    request = shared.submit(
        prompt.tokens, params, decoder=decoder, on_overflow=on_overflow, keep=prompt.keep
    )
    try:
        yield Chunk("", None)
        for output in shared.outputs(request, cancel):
            if isinstance(output.error, PocketLMError):
                raise output.error
            if output.error is not None:
                message = f"the answer could not go on: {output.error}"
                raise PocketLMError(message) from output.error
            stats = _stats(request, prompt) if output.finish_reason else None
            yield Chunk(output.text, output.token, output.logprobs, output.finish_reason, stats)
    finally:
        shared.release(request)


def collect(chunks: Iterator[Chunk]) -> Completion:
    """The whole answer."""
    pieces, tokens, logprobs = [], [], []
    for chunk in chunks:
        pieces.append(chunk.text)
        if chunk.token is not None:
            tokens.append(chunk.token)
        if chunk.logprobs is not None:
            logprobs.append(chunk.logprobs)
    assert chunk.finish_reason is not None, "an answer without an end"
    assert chunk.stats is not None, "an answer without its stats"
    return Completion(
        "".join(pieces),
        tuple(tokens),
        chunk.finish_reason,
        chunk.stats,
        tuple(logprobs) if logprobs else None,
    )


def _stats(request: Request, prompt: Prompt) -> Stats:
    timing, count = request.timing, len(request.tokens) - request.prompt_tokens
    ttft = prefill = decode = None
    if timing.first_token is not None and timing.admitted is not None:
        ttft = timing.first_token - timing.arrived
        prefill = (request.prompt_tokens - request.cached) / (timing.first_token - timing.admitted)
        if count > 1 and timing.last_token is not None:
            decode = (count - 1) / max(timing.last_token - timing.first_token, 1e-9)
    return Stats(
        prompt_tokens=request.prompt_tokens,
        cached_tokens=request.cached,
        completion_tokens=count,
        dropped_tokens=prompt.dropped_tokens + request.dropped,
        dropped_messages=prompt.dropped_messages,
        ttft_s=ttft,
        prefill_tps=prefill,
        decode_tps=decode,
        drafted_tokens=request.drafted,
        accepted_tokens=request.accepted,
        seed=request.params.seed or 0,
    )
