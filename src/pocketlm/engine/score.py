"""Whole texts through the model at once: log-probabilities for evaluation, vectors for search.

Both borrow blocks of the engine's cache and give them back, and share nothing with what the engine
runs besides: they are called between its steps, never during one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pocketlm._native import target_logprobs
from pocketlm.engine.engine import Engine
from pocketlm.engine.runner import Floats, StepBatch
from pocketlm.errors import CapacityError, ContextError, RequestError


def score(engine: Engine, tokens: Sequence[int]) -> NDArray[np.float64]:
    """Natural-log probability of each token after the first, given those before it.

    tokens: at least 2 ids, at most the context. Returns (len(tokens) - 1,). Perplexity is
    exp(-mean). Raises RequestError for too few tokens, CapacityError for too many.
    """
    if len(tokens) < 2:
        raise RequestError(f"{len(tokens)} tokens cannot be scored: at least 2 are needed")
    engine.check_ids(tokens)
    result = np.empty(len(tokens) - 1)
    targets = np.asarray(tokens[1:], np.int32)
    for start, logits in forward(engine, tokens[:-1]):
        end = start + len(logits)
        result[start:end] = target_logprobs(logits, targets[start:end])
    return result


def embed(engine: Engine, tokens: Sequence[int]) -> Floats:
    """The mean of the final (normed) hidden states of all tokens, scaled to length 1. (width,)

    Raises RequestError for an empty text, CapacityError for one that does not fit.
    """
    steps = embed_steps(engine, tokens)
    while True:
        try:
            advanced = next(steps)
        except StopIteration as done:
            return cast("Floats", done.value)
        if not advanced:
            steps.close()
            raise _no_room(engine, tokens)


def embed_steps(engine: Engine, tokens: Sequence[int]) -> Generator[bool, None, Floats]:
    """``embed`` one step at a time, so that ``Engine.step`` can be called between two of them.

    Yields True after a step, False where no KV blocks were free: the engine has to go on first, so
    only one text at a time can be under way. A step is as short as one that reads prompts beside
    the requests that run. Closing it gives its blocks back; after ``Engine.reset`` it cannot go on.
    """
    total = np.zeros(0)
    for _, hidden in _chunks(engine, tokens, hidden=True):
        if hidden is None:
            yield False
            continue
        if not len(total):
            total = np.zeros(hidden.shape[1])
        for row in hidden:  # one by one, so that it does not matter where the text is cut
            total += row
        yield True
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)


def forward(
    engine: Engine, tokens: Sequence[int], *, hidden: bool = False
) -> Iterator[tuple[int, Floats]]:
    """(first position, outputs (n, vocab or width)) for consecutive stretches of ``tokens``.

    Raises CapacityError where the tokens do not fit the context or the free blocks.
    """
    for start, outputs in _chunks(engine, tokens, hidden=hidden):
        if outputs is None:
            raise _no_room(engine, tokens)
        yield start, outputs


def _no_room(engine: Engine, tokens: Sequence[int]) -> CapacityError:
    free = " and ".join(str(pool.free) for pool in engine.cache.pools)
    return CapacityError(f"{len(tokens):,} tokens do not fit the {free} free KV blocks")


def _chunks(
    engine: Engine, tokens: Sequence[int], *, hidden: bool
) -> Iterator[tuple[int, Floats | None]]:
    """``forward``; None where there are no free blocks for the next stretch now.

    Stretches are as long as the runner allows, shorter where requests wait for their next token.
    """
    runner, cache = engine.runner, engine.cache
    if len(tokens) > engine.config.context:
        raise ContextError(
            f"the text has {len(tokens):,} tokens, but the context has {engine.config.context:,}"
        )
    engine.check_ids(tokens)
    variant = np.array([engine.variant(len(tokens))], np.int32)
    most = min(runner.max_rows, runner.max_tokens)
    table = cache.table(len(tokens))
    start = 0
    try:
        while start < len(tokens):
            part = np.asarray(tokens[start : start + min(most, engine.pace(start))], np.int32)
            if not cache.reserve(table, start + len(part)):
                yield start, None
                continue
            batch = StepBatch(
                tokens=part,
                lengths=np.array([len(part)], np.int32),
                starts=np.array([start], np.int32),
                block_tables=table.rows[:, None],
                variants=variant,
                rows=np.arange(len(part), dtype=np.int32),
            )
            yield start, runner.step(batch, hidden=hidden)
            start += len(part)
            cache.slide(table, start)
    finally:
        cache.release(table)
