"""A runner without a model: logits are a hash of what the KV pages in the block table contain.

It keeps its own pages and writes into them as the native one does, so a block that is shared, freed
or overwritten wrongly changes the logits of whoever reads it.
"""

from __future__ import annotations

import numpy as np

from pocketlm.engine.runner import Floats, StepBatch

EMPTY = -1


class MockRunner:
    def __init__(
        self,
        *,
        pages: int = 64,
        page_positions: int = 4,
        max_tokens: int = 16,
        max_sequences: int = 8,
        max_rows: int | None = None,
        vocab: int = 32,
    ) -> None:
        self.pages = pages
        self.page_positions = page_positions
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self.max_rows = max_sequences if max_rows is None else max_rows
        self.vocab = vocab
        self.cache = np.full((pages, page_positions, 2), EMPTY, np.int64)  # (token, variant)
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
            table, start = batch.block_tables[s], int(batch.starts[s])
            for i in range(length):
                position = start + i
                page = table[position // size]
                entry = (batch.tokens[first + i], batch.variants[s])
                self.cache[page, position % size] = entry
            for i in range(length):
                for row in np.flatnonzero(batch.rows == first + i):
                    seen = self.cache[table].reshape(-1, 2)[: start + i + 1]
                    assert (seen[:, 1] == batch.variants[s]).all(), "mixed rope variants"
                    logits[row] = mock_logits(seen[:, 0], int(batch.variants[s]), self.vocab)
            first += length
        return logits


def mock_logits(tokens: np.ndarray, variant: int, vocab: int) -> np.ndarray:
    """A fixed function of every token up to here, its position and the variant."""
    weights = np.arange(1, len(tokens) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = np.uint64(variant) + (tokens.astype(np.uint64) + np.uint64(1)).dot(weights)
    mixed = (np.arange(vocab, dtype=np.uint64) + state) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(40)).astype(np.float32) / 2**21).astype(np.float32)
