"""How far a model is from a reference, token by token of a text: what a quantization has lost.

Both models read the same windows at the same time, block of rows by block of rows, so no logits are
kept and none are written to a file. The arithmetic of a row is native and in full precision; no
probability is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketlm.backends import Backend, Floats, Ints
from pocketlm.errors import RequestError
from pocketlm.evaluate.clusters import clustered_mean
from pocketlm.evaluate.perplexity import Perplexity
from pocketlm.evaluate.rows import Doubles, divergences
from pocketlm.evaluate.windows import Window
from pocketlm.progress import Progress, ProgressCallback, silent


@dataclass(frozen=True)
class Divergence:
    """Standard errors are clustered by window (``clusters``) and None for one window.

    Attributes:
        mean: of KL(reference || candidate) over the tokens, nats; standard_error is its error.
        median, p99, max: of the same.
        top1: share of tokens for which both models hold the same token the likeliest.
        mean_delta_p: mean of p(candidate) - p(reference) of the token that came next.
        rms_delta_p: root of the mean of its square.
        perplexity, reference_perplexity: of the candidate and of the reference.
        log_perplexity_ratio: ln(perplexity / reference_perplexity). Its error is that of the paired
            differences, far smaller than those of the two.
        tokens: how many were compared.
        sequences: windows.
    """

    mean: float
    standard_error: float | None
    median: float
    p99: float
    max: float
    top1: float
    top1_standard_error: float | None
    mean_delta_p: float
    mean_delta_p_standard_error: float | None
    rms_delta_p: float
    rms_delta_p_standard_error: float | None
    perplexity: float
    perplexity_standard_error: float | None
    reference_perplexity: float
    reference_perplexity_standard_error: float | None
    log_perplexity_ratio: float
    log_perplexity_ratio_standard_error: float | None
    tokens: int
    sequences: int

    def own_perplexity(self) -> Perplexity:
        """The candidate's, as ``perplexity`` would have measured it."""
        error = self.perplexity_standard_error
        return Perplexity(
            perplexity=self.perplexity,
            standard_error=error,
            nll=math.log(self.perplexity),
            nll_standard_error=None if error is None else error / self.perplexity,
            tokens=self.tokens,
            sequences=self.sequences,
        )


class DivergenceMeter:
    """Takes logits block by block; keeps four numbers a token.

    A sequence is what is added between two calls of ``end_sequence``.
    """

    def __init__(self) -> None:
        self._open: list[Doubles] = []  # (4, rows) of each block: see ``divergences``
        self._sequences: list[Doubles] = []

    def add(self, reference: Floats, candidate: Floats, targets: Ints) -> None:
        """Logits (rows, vocabulary) of both models, and the tokens (rows,) that came next."""
        self._open.append(divergences(reference, candidate, targets))

    def end_sequence(self) -> None:
        if self._open:
            self._sequences.append(np.concatenate(self._open, axis=1))
            self._open = []

    def result(self) -> Divergence:
        """Of all sequences that have ended; at least one token."""
        if not self._sequences:
            raise RequestError("there is nothing to compare: no token was scored")
        parts = self._sequences
        kl = np.concatenate([part[0] for part in parts])
        delta = [np.exp(part[2]) - np.exp(part[1]) for part in parts]
        mean = clustered_mean([part[0] for part in parts])
        top1 = clustered_mean([part[3] for part in parts])
        delta_p = clustered_mean(delta)
        rms = clustered_mean([np.square(values) for values in delta]).sqrt()
        own = clustered_mean([-part[2] for part in parts]).exp()
        other = clustered_mean([-part[1] for part in parts]).exp()
        ratio = clustered_mean([part[1] - part[2] for part in parts])
        return Divergence(
            mean=mean.value,
            standard_error=mean.standard_error,
            median=float(np.median(kl)),
            p99=float(np.quantile(kl, 0.99)),
            max=float(kl.max()),
            top1=top1.value,
            top1_standard_error=top1.standard_error,
            mean_delta_p=delta_p.value,
            mean_delta_p_standard_error=delta_p.standard_error,
            rms_delta_p=rms.value,
            rms_delta_p_standard_error=rms.standard_error,
            perplexity=own.value,
            perplexity_standard_error=own.standard_error,
            reference_perplexity=other.value,
            reference_perplexity_standard_error=other.standard_error,
            log_perplexity_ratio=ratio.value,
            log_perplexity_ratio_standard_error=ratio.standard_error,
            tokens=len(kl),
            sequences=len(parts),
        )


def divergence(
    reference: Backend,
    candidate: Backend,
    plan: Sequence[Window],
    *,
    progress: ProgressCallback = silent,
) -> Divergence:
    """Both models on the same windows; progress is in tokens read.

    Raises RequestError where their vocabularies differ in size.
    """
    require_same_vocabulary(reference.vocabulary, candidate.vocabulary)
    meter = DivergenceMeter()
    rows = min(reference.block_rows, candidate.block_rows)
    task, total, done = "divergence", sum(len(w.tokens) for w in plan), 0
    progress(Progress(task, 0, total))
    for window in plan:
        tokens, at = window.tokens[:-1], window.first
        for expected, found in zip(
            reference.blocks(tokens, first=at, rows=rows),
            candidate.blocks(tokens, first=at, rows=rows),
            strict=True,
        ):
            meter.add(expected, found, window.tokens[at + 1 : at + 1 + len(found)])
            at += len(found)
            del expected, found  # not kept while the next blocks are computed
        meter.end_sequence()
        done += len(window.tokens)
        progress(Progress(task, done, total))
    return meter.result()


def require_same_vocabulary(reference: int, candidate: int) -> None:
    if reference != candidate:
        raise RequestError(
            f"the reference has {reference:,} tokens in its vocabulary and the model has "
            f"{candidate:,}: their logits cannot be compared",
            hint="A reference is the same model before it was quantized.",
        )
