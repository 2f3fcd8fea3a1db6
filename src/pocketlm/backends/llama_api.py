"""The C API that llama.cpp and its fork ik_llama.cpp have in common, driven by ctypes.

Only what comparisons need: decode tokens, read logits. ``llamacpp`` and ``ik`` find the libraries
in their Python packages, load a model with their best settings and say how they differ. What is
passed in a batch is memory of NumPy, so that no peer pays for a loop of ours.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pocketlm.backends.backend import Floats, Ints
from pocketlm.errors import PocketLMError, RequestError, UnsupportedError

PeerKvType = Literal["f16", "f32", "q8"]
GGML_TYPES: dict[PeerKvType, int] = {"f32": 0, "f16": 1, "q8": 8}

_MOST_TOKENS = 2048  # n_batch, by default in both
_POINTER = ctypes.c_void_p
_INTS = ctypes.POINTER(ctypes.c_int32)


class Words(ctypes.Structure):
    """Room for a struct of parameters of any version: by value it may be longer than is read."""

    _fields_ = (("words", ctypes.c_uint32 * 128),)


class Batch(ctypes.Structure):
    """``llama_batch``; the last three fields are of the fork alone, and the last in memory."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", _INTS),
        ("embd", _POINTER),
        ("pos", _INTS),
        ("n_seq_id", _INTS),
        ("seq_id", ctypes.POINTER(_INTS)),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
        ("all_pos_0", ctypes.c_int32),
        ("all_pos_1", ctypes.c_int32),
        ("all_seq_id", ctypes.c_int32),
    )


Signatures = dict[str, tuple[Any, list[Any]]]


def declare(library: ctypes.CDLL, params: tuple[Any, Any], extra: Signatures) -> None:
    """Gives the functions of a library their types; ``params`` are those of model and context."""
    of_model, of_context = params
    common: Signatures = {
        "llama_backend_init": (None, []),
        "llama_print_system_info": (ctypes.c_char_p, []),
        "llama_log_set": (None, [_POINTER, _POINTER]),
        "llama_model_default_params": (of_model, []),
        "llama_context_default_params": (of_context, []),
        "llama_model_load_from_file": (_POINTER, [ctypes.c_char_p, of_model]),
        "llama_model_get_vocab": (_POINTER, [_POINTER]),
        "llama_vocab_n_tokens": (ctypes.c_int32, [_POINTER]),
        "llama_init_from_model": (_POINTER, [_POINTER, of_context]),
        "llama_free": (None, [_POINTER]),
        "llama_set_n_threads": (None, [_POINTER, ctypes.c_int32, ctypes.c_int32]),
        "llama_decode": (ctypes.c_int32, [_POINTER, Batch]),
        "llama_get_logits_ith": (_POINTER, [_POINTER, ctypes.c_int32]),
    }
    for name, (result, arguments) in (common | extra).items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


class Log:
    """What a library says while it works: kept, since its functions return no reasons."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.lines: list[str] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _POINTER)(self._add)
        library.llama_log_set(ctypes.cast(self._callback, _POINTER), None)

    def _add(self, level: int, text: bytes, data: int) -> None:
        self.lines += text.decode(errors="replace").splitlines()

    def reason(self) -> str:
        """The last line that speaks of an error."""
        found = [line.strip() for line in self.lines if "error" in line.lower()]
        return found[-1] if found else "it gives no reason"


class LlamaApi(ABC):
    """One model and one context of some sequences; a context manager that frees both.

    Attributes:
        name: of the engine.
        vocabulary: logits in a row.
        sequences: how many there may be, from 0 on.
        log: what the library has said.
    """

    name: str
    log: Log
    vocabulary: int
    sequences: int
    _c: ctypes.CDLL
    _model: int
    _context: int

    def _load(self, path: Path, library: ctypes.CDLL, params: Any) -> None:
        self._c = library
        self.log = Log(library)
        library.llama_backend_init()
        self._model = library.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise UnsupportedError(f"{self.name} cannot load it: {self.log.reason()}", path=path)

    def _open(
        self, path: Path, params: Any, *, sequences: int, positions: int, threads: int
    ) -> None:
        c = self._c
        self._context = c.llama_init_from_model(self._model, params)
        if not self._context:
            self._free_model()
            raise UnsupportedError(f"{self.name} makes no context: {self.log.reason()}", path=path)
        c.llama_set_n_threads(self._context, threads, threads)
        self.vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))
        self.sequences = sequences
        self._most = min(_MOST_TOKENS, positions)  # more of them abort
        self._row = ctypes.c_float * self.vocabulary
        self._make_batch()

    def _make_batch(self) -> None:
        """The arrays that the struct points to; they live as long as it does."""
        ids = np.arange(self.sequences, dtype=np.int32)
        size = ids.itemsize
        self._id_addresses = ids.ctypes.data + size * np.arange(self.sequences, dtype=np.uint64)
        self._ids = ids
        self._token = np.zeros(_MOST_TOKENS, np.int32)
        self._position = np.zeros(_MOST_TOKENS, np.int32)
        self._one = np.ones(_MOST_TOKENS, np.int32)
        self._sequence = np.zeros(_MOST_TOKENS, np.uint64)
        self._wanted = np.zeros(_MOST_TOKENS, np.int8)
        self._batch = Batch(
            token=self._token.ctypes.data_as(_INTS),
            pos=self._position.ctypes.data_as(_INTS),
            n_seq_id=self._one.ctypes.data_as(_INTS),
            seq_id=self._sequence.ctypes.data_as(ctypes.POINTER(_INTS)),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def __enter__(self) -> LlamaApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model. It cannot be used afterwards."""
        self._c.llama_free(self._context)
        self._free_model()

    @property
    def system_info(self) -> str:
        """The instruction sets that the library was built for, as it names them."""
        text = str(self._c.llama_print_system_info().decode())
        found = [part.split("=")[0].strip(" :") for part in text.split("|") if "= 1" in part]
        return " ".join(name.removeprefix("CPU : ") for name in found)

    def decode(
        self,
        tokens: Ints | Sequence[int],
        start: int,
        *,
        sequence: int = 0,
        all_logits: bool = False,
    ) -> None:
        """Computes tokens of a sequence from position ``start`` on; logits of the last, or of all.

        At most 2,048 of them, and no more than the context has. Raises PocketLMError where the
        library says no.
        """
        count = len(tokens)
        self._require(count)
        self._token[:count] = tokens
        self._position[:count] = np.arange(start, start + count)
        self._sequence[:count] = self._id_addresses[sequence]
        self._wanted[:count] = all_logits
        self._wanted[count - 1] = 1
        self._run(count)

    def decode_each(self, tokens: Ints, start: int) -> None:
        """One token for each of the first sequences, all at position ``start``, with its logits."""
        count = len(tokens)
        self._require(count)
        self._token[:count] = tokens
        self._position[:count] = start
        self._sequence[:count] = self._id_addresses[:count]
        self._wanted[:count] = 1
        self._run(count)

    def logits(self, i: int) -> Floats:
        """Logits (vocabulary,) of token ``i`` of the last decode (-1: the last one).

        They are the library's memory until it decodes again.
        """
        address = self._c.llama_get_logits_ith(self._context, i)
        if not address:
            raise PocketLMError(f"{self.name} has no logits of token {i}")
        row: Floats = np.ctypeslib.as_array(self._row.from_address(address))
        return row

    def _require(self, count: int) -> None:
        if not 1 <= count <= self._most:
            raise RequestError(f"a batch of {count:,} tokens, expected 1 to {self._most:,}")

    def _run(self, count: int) -> None:
        self._batch.n_tokens = count
        status = self._c.llama_decode(self._context, self._batch)
        if status != 0:
            raise PocketLMError(f"{self.name}: llama_decode returned {status}")

    @abstractmethod
    def clear(self) -> None:
        """Forgets all positions of all sequences."""

    @abstractmethod
    def _free_model(self) -> None: ...


def require_layout(name: str, found: object, wanted: object) -> None:
    """Raises UnsupportedError where a struct's defaults are not where this program looks."""
    if found != wanted:
        raise UnsupportedError(
            f"this version of {name} lays out its parameters in another way than is known here: "
            f"found {found} where the defaults {wanted} should be"
        )
