"""One sequence in a native executor, fed chunk by chunk: the smallest driver of ``step``."""

from __future__ import annotations

from typing import Any

import numpy as np

from pocketlm import _native
from pocketlm.models.build import build_executor
from pocketlm.models.spec import ModelSpec

Array = np.ndarray[Any, np.dtype[Any]]


class NativeSequence:
    """Keeps the position; pages are handed out back to front, so a mix-up shows."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        positions: int = 512,
        threads: int = 1,
        kv: str = "f32",
        variant: int = 0,
    ) -> None:
        pages = -(-positions // _native.PAGE_POSITIONS)
        self._executor = build_executor(spec, threads=threads)
        groups = len(self._executor.windows)
        self._executor.allocate(positions, 1, positions, [pages] * groups, kv)
        self._tables = np.tile(np.arange(pages, dtype=np.int32)[::-1], (groups, 1, 1))
        self._variant = np.array([variant], dtype=np.int32)
        self._start = 0

    def feed(self, tokens: Array) -> Array:
        """Logits of all new tokens [tokens, vocab]."""
        n = len(tokens)
        logits = self._executor.step(
            tokens.astype(np.int32),
            np.array([n], dtype=np.int32),
            np.array([self._start], dtype=np.int32),
            self._tables,
            self._variant,
            np.arange(n, dtype=np.int32),
        )
        self._start += n
        return logits
