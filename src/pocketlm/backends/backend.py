"""The interface of a backend. Logits come in blocks of rows, as whole windows of them are large:
512 rows over 262,144 tokens are 537 MB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Backend(Protocol):
    """A model that gives logits for one sequence at a time."""

    @property
    def vocabulary(self) -> int:
        """Logits in a row."""

    @property
    def context(self) -> int:
        """The most tokens that a sequence may have."""

    @property
    def block_rows(self) -> int:
        """The most rows of logits that ``blocks`` gives at once."""

    def blocks(self, tokens: Ints, *, first: int = 0, rows: int | None = None) -> Iterator[Floats]:
        """The logits of tokens[first:], block by block; row i of a block is given tokens[: at + i].

        tokens: (T,) ids of one sequence from position 0 on. Each block is (rows, vocabulary), the
        last one what is left; rows is at most ``block_rows``, which is the default. The logits of
        a block are the caller's to keep. A second call ends the iterators of earlier ones.

        Raises RequestError for ids outside the vocabulary, CapacityError for more tokens than the
        context has.
        """

    def logits(self, tokens: Ints) -> Floats:
        """All of them at once, (T, vocabulary); for short sequences."""

    def close(self) -> None:
        """Frees the model. It cannot be used afterwards."""
