"""Whole texts through the model at once: log-probabilities for evaluation, vectors for search.

Both borrow blocks of the engine's cache and give them back, and share nothing with what the engine
runs besides: call them between steps, never during one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    """The mean of the final (normed) hidden states of all tokens, scaled to length 1. (width,)"""
    total: NDArray[np.float64] | None = None
    for _, hidden in forward(engine, tokens, hidden=True):
        part = hidden.sum(axis=0, dtype=np.float64)
        total = part if total is None else total + part
    if total is None:
        raise RequestError("an empty text has no embedding")
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)


def forward(
    engine: Engine, tokens: Sequence[int], *, hidden: bool = False
) -> Iterator[tuple[int, Floats]]:
    """(first position, outputs (n, vocab or width)) for consecutive stretches of ``tokens``.

    Raises CapacityError where the tokens do not fit the context or the free blocks.
    """
    runner, cache = engine.runner, engine.cache
    if len(tokens) > engine.config.context:
        raise ContextError(
            f"the text has {len(tokens):,} tokens, but the context has {engine.config.context:,}"
        )
    engine.check_ids(tokens)
    variant = np.array([engine.variant(len(tokens))], np.int32)
    chunk = min(runner.max_rows, runner.max_tokens)
    if not cache.fits(len(tokens), chunk):
        free = " and ".join(str(pool.free) for pool in cache.pools)
        raise CapacityError(f"{len(tokens):,} tokens do not fit the {free} free KV blocks")
    table = cache.table(len(tokens))
    try:
        for start in range(0, len(tokens), chunk):
            part = np.asarray(tokens[start : start + chunk], np.int32)
            reserved = cache.reserve(table, start + len(part))
            assert reserved, "a text that fits did not fit"
            batch = StepBatch(
                tokens=part,
                lengths=np.array([len(part)], np.int32),
                starts=np.array([start], np.int32),
                block_tables=table.rows[:, None],
                variants=variant,
                rows=np.arange(len(part), dtype=np.int32),
            )
            yield start, runner.step(batch, hidden=hidden)
            cache.slide(table, start + len(part))
    finally:
        cache.release(table)
