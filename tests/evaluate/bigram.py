"""A backend whose logits are a table's row for the last token: everything about it can be said in
NumPy. It counts the rows that it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pocketlm.backends import Floats, Ints


class Bigram:
    def __init__(self, vocabulary: int, seed: int, *, block_rows: int = 5) -> None:
        self.table = 3 * np.random.default_rng(seed).standard_normal((vocabulary, vocabulary))
        self.table = self.table.astype(np.float32)
        self.vocabulary = vocabulary
        self.context = 1 << 20
        self.block_rows = block_rows
        self.rows_given: list[int] = []

    def blocks(self, tokens: Ints, *, first: int = 0, rows: int | None = None) -> Iterator[Floats]:
        size = rows or self.block_rows
        assert size <= self.block_rows
        for start in range(first, len(tokens), size):
            block = self.table[tokens[start : start + size]]
            self.rows_given.append(len(block))
            yield block

    def logits(self, tokens: Ints) -> Floats:
        return self.table[tokens]

    def close(self) -> None:
        pass

    def logprobs(self, tokens: Ints) -> np.ndarray:
        """log p(tokens[i + 1] | tokens[i]) in float64, (T - 1,)."""
        return log_softmax(self.table[tokens[:-1]])[np.arange(len(tokens) - 1), tokens[1:]]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
