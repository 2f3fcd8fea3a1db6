"""From the shares of a step to the arrays that the runner takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pocketlm.engine.cache import block_tables
from pocketlm.engine.request import Request
from pocketlm.engine.runner import StepBatch
from pocketlm.engine.scheduler import Share


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A batch, and whose its rows of logits are.

    Attributes:
        drawing: requests that draw, with their first row: each has one, and one for each guess.
        scoring: requests whose prompt is scored, with their first row and how many they have.
        reading: stretches of prompts, as (tokens computed before, tokens); without them the step
            has the last token of each request, and guesses.
    """

    batch: StepBatch
    drawing: list[tuple[Request, int]]
    scoring: list[tuple[Request, int, int]]
    reading: list[tuple[int, int]]


def plan_step(shares: Sequence[Share], drafts: Mapping[Request, Sequence[int]]) -> PlannedStep:
    """The batch of these shares with the guessed tokens behind them."""
    # Python is out of the caches after every step, so this keeps to few calls of numpy.
    lengths: list[int] = []
    starts: list[int] = []
    variants: list[int] = []
    tokens: list[int] = []
    rows: list[int] = []
    drawing: list[tuple[Request, int]] = []
    scoring: list[tuple[Request, int, int]] = []
    reading: list[tuple[int, int]] = []
    for share in shares:
        request, draft = share.request, drafts.get(share.request, ())
        start, end = request.computed, request.computed + share.count
        lengths.append(share.count + len(draft))
        starts.append(start)
        variants.append(request.variant)
        scored = request.unscored(share.count)
        if scored:
            first = len(tokens) + scored.start - start
            scoring.append((request, len(rows), len(scored)))
            rows += range(first, first + len(scored))
        tokens += request.tokens[start:end]
        if share.count > 1 or end < len(request.tokens):
            reading.append((start, share.count))
        if end == len(request.tokens):
            drawing.append((request, len(rows)))
            rows += range(len(tokens) - 1, len(tokens) + len(draft))
        tokens += draft
    facts = np.array((lengths, starts, variants), np.int32)
    batch = StepBatch(
        np.array(tokens, np.int32),
        facts[0],
        facts[1],
        block_tables([share.request.table for share in shares]),
        facts[2],
        np.array(rows, np.int32),
    )
    return PlannedStep(batch, drawing, scoring, reading)
