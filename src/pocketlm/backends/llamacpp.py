"""llama.cpp, in the library of the ``xllamacpp`` package, for side-by-side runs and as an oracle.

Its defaults are its best settings on a CPU: weights are repacked where it knows how, and flash
attention is on where the KV type allows it.
"""

from __future__ import annotations

import ctypes
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pocketlm.backends.llama_api import GGML_TYPES, LlamaApi, PeerKvType, Words, declare
from pocketlm.backends.llama_api import require_layout as require
from pocketlm.errors import UnsupportedError

PACKAGE = "xllamacpp"

# Words of llama_context_params, and what they are by default: n_ctx, n_batch, n_ubatch, n_seq_max;
# flash_attn_type (auto); type_k and type_v (F16).
_CONTEXT, _SEQUENCES, _FLASH_ATTENTION, _KV = 0, 3, 13, slice(26, 28)
_DEFAULTS = ((slice(4), [512, 2048, 512, 1]), (slice(13, 14), [0xFFFFFFFF]), (_KV, [1, 1]))
_STREAM = 256  # positions of a sequence are rounded up to so many


class LlamaCpp(LlamaApi):
    """A model in llama.cpp: ``sequences`` of ``context`` positions each."""

    name = "llama.cpp"

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        sequences: int = 1,
        kv: PeerKvType = "f16",
        flash_attention: bool = True,
    ) -> None:
        """Raises UnsupportedError where the package is not installed or cannot load the file."""
        library = _library()
        self._load(path, library, library.llama_model_default_params())
        params = library.llama_context_default_params()
        for place, wanted in _DEFAULTS:
            require(self.name, params.words[place], wanted)
        positions = sequences * (-(-context // _STREAM) * _STREAM)
        params.words[_CONTEXT] = positions
        params.words[_SEQUENCES] = sequences
        if not flash_attention:
            params.words[_FLASH_ATTENTION] = 0
        params.words[_KV] = [GGML_TYPES[kv]] * 2
        self._open(path, params, sequences=sequences, positions=positions, threads=threads)

    def clear(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def _free_model(self) -> None:
        self._c.llama_model_free(self._model)

    @property
    def version(self) -> str:
        """Of the package."""
        return f"{PACKAGE} {version(PACKAGE)}"


def library_path() -> Path:
    """The package's library. Raises UnsupportedError where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    folders = [] if found is None else list(found.submodule_search_locations or ())
    for folder in folders:
        for file in sorted(Path(folder).glob(f"{PACKAGE}*")):
            if file.suffix in (".so", ".pyd", ".dylib"):
                return file
    raise UnsupportedError(
        f"llama.cpp comes with the package {PACKAGE}, which is not installed",
        hint="Install it with: pip install 'pocketlm[llamacpp]'.",
    )


def _library() -> ctypes.CDLL:
    pointer = ctypes.c_void_p
    extra: dict[str, tuple[Any, list[Any]]] = {
        "llama_model_free": (None, [pointer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
    }
    library = ctypes.CDLL(str(library_path()))
    declare(library, (Words, Words), extra)
    return library
