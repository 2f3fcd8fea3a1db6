"""llama.cpp as an oracle: one sequence, a float32 KV cache and no flash attention, whose float16
arithmetic would hide what is looked for."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.backends import llamacpp


class LlamaCpp(llamacpp.LlamaCpp):
    """A model in llama.cpp; a context manager."""

    def __init__(self, path: Path, *, context: int = 256) -> None:
        pytest.importorskip("xllamacpp")
        super().__init__(path, context=context, threads=1, kv="f32", flash_attention=False)

    def __enter__(self) -> LlamaCpp:
        return self

    def tokenize(self, text: str) -> list[int]:
        """Ids with BOS where the file says so; control tokens in the text stay text."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        vocabulary = ctypes.c_void_p(self._c.llama_model_get_vocab(self._model))
        count = self._c.llama_tokenize(vocabulary, data, len(data), ids, len(ids), True, False)
        assert count >= 0
        return list(ids[:count])

    def all_logits(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Logits [tokens, vocabulary] of one sequence."""
        self.clear()
        self.decode(tokens, 0, all_logits=True)
        return np.stack([self.logits(i) for i in range(len(tokens))])
