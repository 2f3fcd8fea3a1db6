"""Perplexity of a text: exp of the mean negative log-likelihood of the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketlm.backends import Backend
from pocketlm.evaluate.clusters import clustered_mean
from pocketlm.evaluate.rows import Doubles, logprobs
from pocketlm.evaluate.windows import Window
from pocketlm.progress import Progress, ProgressCallback, silent


@dataclass(frozen=True)
class Perplexity:
    """Attributes:
    perplexity: exp(nll).
    standard_error: perplexity * nll_standard_error, the delta method; None for one window.
    nll: mean negative log-likelihood of a token, nats.
    nll_standard_error: clustered by window, see ``clusters``; None for one window.
    tokens: how many were scored.
    sequences: windows.
    """

    perplexity: float
    standard_error: float | None
    nll: float
    nll_standard_error: float | None
    tokens: int
    sequences: int


def perplexity(
    backend: Backend, plan: Sequence[Window], *, progress: ProgressCallback = silent
) -> Perplexity:
    """Reads the windows one by one; progress is in tokens read."""
    found = _logprobs(backend, plan, progress)
    nll = clustered_mean([-values for values in found])
    ppl = nll.exp()
    return Perplexity(
        perplexity=ppl.value,
        standard_error=ppl.standard_error,
        nll=nll.value,
        nll_standard_error=nll.standard_error,
        tokens=sum(map(len, found)),
        sequences=len(found),
    )


def _logprobs(
    backend: Backend, plan: Sequence[Window], progress: ProgressCallback
) -> list[Doubles]:
    """Log-probabilities of the tokens that count, window by window."""
    task, total, done = "perplexity", sum(len(w.tokens) for w in plan), 0
    progress(Progress(task, 0, total))
    found = []
    for window in plan:
        at, parts = window.first, []
        for block in backend.blocks(window.tokens[:-1], first=at):
            parts.append(logprobs(block, window.tokens[at + 1 : at + 1 + len(block)]))
            at += len(block)
            del block  # not kept while the next one is computed
        found.append(np.concatenate(parts))
        done += len(window.tokens)
        progress(Progress(task, done, total))
    return found
