"""llama.cpp's logits of one sequence, through the C API that the ``xllamacpp`` wheel exports.

With a float32 KV cache and without flash attention, whose float16 arithmetic would hide what is
looked for. Parameter structs are passed as opaque bytes; the words that are set here are checked
against llama.cpp's documented defaults, so that a changed layout fails instead of lying.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_F16, _F32 = 1, 0
_CONTEXT, _FLASH_ATTENTION, _TYPE_K, _TYPE_V = 0, 13, 26, 27  # words of llama_context_params
_AUTO = 0xFFFFFFFF


class _Params(ctypes.Structure):
    """Room for a parameter struct of any version: by value it may be longer than is read."""

    _fields_ = (("words", ctypes.c_uint32 * 128),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _no_log(level: int, text: bytes, data: int) -> None:
    """Silences llama.cpp."""


@cache
def _library() -> ctypes.CDLL:
    extension = pytest.importorskip("xllamacpp.xllamacpp")
    library = ctypes.CDLL(extension.__file__)
    pointer = ctypes.c_void_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_backend_init": (None, []),
        "llama_log_set": (None, [pointer, pointer]),
        "llama_model_default_params": (_Params, []),
        "llama_context_default_params": (_Params, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _Params]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_n_tokens": (ctypes.c_int32, [pointer]),
        "llama_init_from_model": (pointer, [pointer, _Params]),
        "llama_free": (None, [pointer]),
        "llama_set_n_threads": (None, [pointer, ctypes.c_int32, ctypes.c_int32]),
        "llama_batch_init": (_Batch, [ctypes.c_int32] * 3),
        "llama_batch_free": (None, [_Batch]),
        "llama_decode": (ctypes.c_int32, [pointer, _Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
        "llama_tokenize": (
            ctypes.c_int32,
            [
                pointer,
                ctypes.c_char_p,
                ctypes.c_int32,
                ctypes.POINTER(ctypes.c_int32),
                ctypes.c_int32,
                ctypes.c_bool,
                ctypes.c_bool,
            ],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_no_log, None)
    library.llama_backend_init()
    return library


class LlamaCpp:
    """A model in llama.cpp; a context manager."""

    def __init__(self, path: Path) -> None:
        self._c = _library()
        self._model = self._c.llama_model_load_from_file(
            str(path).encode(), self._c.llama_model_default_params()
        )
        assert self._model, f"llama.cpp could not load {path}"
        self._vocab = self._c.llama_model_get_vocab(self._model)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *args: object) -> None:
        self._c.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Ids with BOS where the file says so; control tokens in the text stay text."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self._c.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, False)
        assert count >= 0
        return list(ids[:count])

    def logits(self, tokens: np.ndarray[Any, Any], *, context: int) -> np.ndarray[Any, Any]:
        """Logits [tokens, vocabulary] of one sequence in a cache of ``context`` positions."""
        params = self._c.llama_context_default_params()
        words = params.words
        assert (words[_FLASH_ATTENTION], words[_TYPE_K], words[_TYPE_V]) == (_AUTO, _F16, _F16)
        words[_CONTEXT], words[_FLASH_ATTENTION] = context, 0
        words[_TYPE_K] = words[_TYPE_V] = _F32
        state = self._c.llama_init_from_model(self._model, params)
        assert state, "llama.cpp could not make a context"
        self._c.llama_set_n_threads(state, 1, 1)
        batch = self._c.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        try:
            assert self._c.llama_decode(state, batch) == 0
            size = self._c.llama_vocab_n_tokens(self._vocab)
            rows = [self._c.llama_get_logits_ith(state, i) for i in range(len(tokens))]
            return np.stack([np.ctypeslib.as_array(row, shape=(size,)).copy() for row in rows])
        finally:
            self._c.llama_batch_free(batch)
            self._c.llama_free(state)
