"""One step of a model: a ragged batch in, logits out. The seam between policy and arithmetic.

The engine drives anything that answers as ``Runner`` does: the native executor here, a mock in
tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pocketlm import _native

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Masks = NDArray[np.uint32]

Asked = tuple[_native.Sampler, int, int, Sequence[int], Masks | None]
"""Sampler, output position, first row, guesses, masks; see ``_native.draw_rows``."""

Drawn = tuple[int, float, tuple[tuple[int, float], ...]]
"""A token, its log-probability, the best tokens with theirs."""

Draws = tuple[list[Drawn], str | None, bool]
"""What one sequence drew, why there is no more of it, and whether that is the caller's fault."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """New tokens of several sequences: T tokens, S sequences, R rows, tables of B blocks.

    Layers that see as many positions share block tables: G groups of them.

    Attributes:
        tokens: (T,) ids, sequence after sequence.
        lengths: (S,) how many of them each sequence brings, at least 1.
        starts: (S,) how many positions of it are computed already.
        block_tables: (G, S, B) the pages of its positions; entries that lie before the window of
            the first new token or after the last one are not read.
        variants: (S,) which rope table it uses.
        rows: (R,) indices into tokens whose outputs are wanted, ascending.
    """

    tokens: Ints
    lengths: Ints
    starts: Ints
    block_tables: Ints
    variants: Ints
    rows: Ints


class Runner(Protocol):
    """A model with its KV cache. One step at a time."""

    @property
    def page_positions(self) -> int:
        """Positions in a page of the KV cache."""

    @property
    def windows(self) -> Sequence[int]:
        """Of each group of layers the positions that a token sees; 0 for all."""

    @property
    def pages(self) -> Sequence[int]:
        """Pages of each group."""

    @property
    def max_tokens(self) -> int:
        """New tokens in a step."""

    @property
    def max_sequences(self) -> int: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def vocab(self) -> int: ...

    def populate_cache(self) -> None:
        """Takes the memory of the KV cache now, not page by page at their first use, which holds up
        the step that comes to them. Any thread may call it."""

    def step(self, batch: StepBatch, *, hidden: bool = False) -> Floats:
        """Logits (R, vocab), or with ``hidden`` the final normed hidden states (R, width).

        They may be overwritten by the next step.
        """

    def draw(self, logits: Floats, asked: Sequence[Asked]) -> list[Draws]:
        """What several sequences draw from logits; see ``_native.draw_rows``."""

    def score(self, logits: Floats, targets: Ints, best: int) -> list[Drawn]:
        """Each row's target and the best tokens of it; see ``_native.score_rows``."""


@dataclass(frozen=True)
class RunnerLimits:
    """What a native runner allocates for; see ``Runner``. ``kv`` is "f16", "q8" or "f32"."""

    max_tokens: int
    max_sequences: int
    max_rows: int
    pages: Sequence[int]
    kv: str = "f16"


class NativeRunner:
    """The C++ executor with its KV cache allocated."""

    def __init__(self, executor: _native.Executor, limits: RunnerLimits, *, vocab: int) -> None:
        self._executor = executor
        self._threads = executor
        self.limits = limits
        self.page_positions = _native.PAGE_POSITIONS
        self.windows = executor.windows
        self.pages = list(limits.pages)
        self.max_tokens = limits.max_tokens
        self.max_sequences = limits.max_sequences
        self.max_rows = limits.max_rows
        self.vocab = vocab
        executor.allocate(
            limits.max_tokens, limits.max_sequences, limits.max_rows, self.pages, limits.kv
        )

    def populate_cache(self) -> None:
        self._executor.populate_cache()

    def step(self, batch: StepBatch, *, hidden: bool = False) -> Floats:
        return self._executor.step(
            batch.tokens,
            batch.lengths,
            batch.starts,
            batch.block_tables,
            batch.variants,
            batch.rows,
            hidden,
            True,
        )

    def draw(self, logits: Floats, asked: Sequence[Asked]) -> list[Draws]:
        return _native.draw_rows(logits, asked, self._threads)

    def score(self, logits: Floats, targets: Ints, best: int) -> list[Drawn]:
        return _native.score_rows(logits, targets, best, self._threads)
