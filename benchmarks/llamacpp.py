"""llama.cpp through the C API that the ``xllamacpp`` wheel exports: the benchmarks' peer.

Only what the benchmarks need: load a model, decode tokens, read logits. Parameter structs are
passed as opaque bytes whose first fields are checked against llama.cpp's documented defaults, so a
changed layout fails instead of lying.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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


def _library() -> ctypes.CDLL:
    import xllamacpp.xllamacpp as extension

    library = ctypes.CDLL(extension.__file__)
    pointer = ctypes.c_void_p
    signatures = {
        "llama_backend_init": (None, []),
        "llama_print_system_info": (ctypes.c_char_p, []),
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
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_batch_init": (_Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        "llama_decode": (ctypes.c_int32, [pointer, _Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _no_log(level: int, text: bytes, data: int) -> None:
    """Silences llama.cpp."""


class LlamaCpp:
    """One model and one context of ``context`` positions, ``threads`` threads, sequence 0."""

    def __init__(self, path: Path, *, context: int, threads: int) -> None:
        self._c = _library()
        self._c.llama_log_set(_no_log, None)
        self._c.llama_backend_init()
        self._model = self._c.llama_model_load_from_file(
            str(path).encode(), self._c.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        params = self._c.llama_context_default_params()
        if list(params.words[:4]) != [512, 2048, 512, 1]:
            raise RuntimeError("llama_context_params has another layout than this program knows")
        params.words[0] = context  # n_ctx; n_batch 2048 and n_ubatch 512 stay
        self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")
        self._c.llama_set_n_threads(self._context, threads, threads)
        self.vocabulary: int = self._c.llama_vocab_n_tokens(
            self._c.llama_model_get_vocab(self._model)
        )
        self._batch = self._c.llama_batch_init(2048, 0, 1)

    @property
    def system_info(self) -> str:
        return str(self._c.llama_print_system_info().decode())

    def clear(self) -> None:
        """Forgets all positions."""
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def decode(self, tokens: list[int], start: int, *, all_logits: bool = False) -> None:
        """Computes ``tokens`` at positions from ``start`` on; logits of the last one, or of all."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_logits or i == len(tokens) - 1
        status = self._c.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def logits(self, i: int) -> NDArray[np.float32]:
        """Logits [vocabulary] of token ``i`` of the last decode (-1: the last one)."""
        values = self._c.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(values, shape=(self.vocabulary,)).copy()

    def close(self) -> None:
        self._c.llama_free(self._context)
        self._c.llama_model_free(self._model)
