"""A runner without a model: logits are a hash of what the KV pages in the block tables contain.

It keeps its own pages and writes into them as the native one does, so a block that is shared, freed
or overwritten wrongly changes the logits of whoever reads it. Each window stands for a group of
layers: it has pages of its own, and what a token sees of them is in the hash.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlm._native import draw_rows, score_rows
from pocketlm.engine.runner import Asked, Drawn, Draws, Floats, Ints, StepBatch

EMPTY = -1


class MockRunner:
    def __init__(
        self,
        *,
        pages: int | Sequence[int] = 64,
        page_positions: int = 4,
        max_tokens: int = 16,
        max_sequences: int = 8,
        max_rows: int | None = None,
        vocab: int = 32,
        windows: Sequence[int] = (0,),
    ) -> None:
        self.windows = windows
        self.pages = [pages] * len(windows) if isinstance(pages, int) else pages
        self.page_positions = page_positions
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self.max_rows = max_sequences if max_rows is None else max_rows
        self.vocab = vocab
        shapes = [(count, page_positions, 2) for count in self.pages]
        self.caches = [np.full(shape, EMPTY, np.int64) for shape in shapes]  # (token, variant)
        self.steps: list[StepBatch] = []

    def step(self, batch: StepBatch, *, hidden: bool = False) -> Floats:
        self.steps.append(batch)
        assert len(batch.tokens) <= self.max_tokens
        assert len(batch.lengths) <= self.max_sequences
        assert len(batch.rows) <= self.max_rows
        assert (batch.lengths > 0).all()
        assert sum(batch.lengths) == len(batch.tokens)
        size = self.page_positions
        first = 0
        logits = np.zeros((len(batch.rows), self.vocab), np.float32)
        for s, length in enumerate(batch.lengths):
            tables, start = batch.block_tables[:, s], int(batch.starts[s])
            for i in range(length):
                page, slot = divmod(start + i, size)
                for cache, table in zip(self.caches, tables, strict=True):
                    cache[table[page], slot] = (batch.tokens[first + i], batch.variants[s])
            for i in range(length):
                for row in np.flatnonzero(batch.rows == first + i):
                    logits[row] = self._logits(tables, start + i + 1, int(batch.variants[s]))
            first += length
        return logits

    def draw(self, logits: Floats, asked: Sequence[Asked]) -> list[Draws]:
        return draw_rows(logits, asked)

    def score(self, logits: Floats, targets: Ints, best: int) -> list[Drawn]:
        return score_rows(logits, targets, best)

    def _logits(self, tables: np.ndarray, length: int, variant: int) -> np.ndarray:
        """Of the last token of a sequence of ``length``, from what it sees in the pages."""
        groups = []
        for window, cache, table in zip(self.windows, self.caches, tables, strict=True):
            seen = np.arange(first_seen(window, length), length)
            entries = cache[table[seen // self.page_positions], seen % self.page_positions]
            assert (entries[:, 1] == variant).all(), "mixed rope variants"
            groups.append(entries[:, 0])
        return _hash(groups, length, variant, self.vocab)


def first_seen(window: int, length: int) -> int:
    """The first position that the last of ``length`` tokens sees."""
    return max(0, length - window) if window else 0


def mock_logits(
    tokens: np.ndarray, variant: int, vocab: int, windows: Sequence[int] = (0,)
) -> np.ndarray:
    """A fixed function of the tokens that the last one sees, their positions and the variant."""
    groups = [tokens[first_seen(window, len(tokens)) :] for window in windows]
    return _hash(groups, len(tokens), variant, vocab)


def _hash(groups: Sequence[np.ndarray], length: int, variant: int, vocab: int) -> np.ndarray:
    state = np.array([variant], np.uint64)
    for i, tokens in enumerate(groups):
        positions = np.arange(length - len(tokens) + 1, length + 1, dtype=np.uint64)
        weights = positions * np.uint64(0x9E3779B97F4A7C15 + 2 * i)
        state += (tokens.astype(np.uint64) + np.uint64(1)).dot(weights)
    mixed = (np.arange(vocab, dtype=np.uint64) + state) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(40)).astype(np.float32) / 2**21).astype(np.float32)
