"""ik_llama.cpp, in the library of the ``ik-llama-cpp-python`` package, for side-by-side runs.

Its best settings on a CPU are on: weights repacked at run time (which excludes memory mapping), the
matrices of q, k and v merged, flash attention, fused up and gate products, the graph of a step used
again. Its flash attention is for one sequence only: with several it gives other logits or aborts,
so there it is off.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pocketlm.backends.llama_api import GGML_TYPES, LlamaApi, PeerKvType, declare
from pocketlm.backends.llama_api import require_layout as require
from pocketlm.errors import UnsupportedError

PACKAGE = "ik-llama-cpp-python"

# The package has the structs of the very library that it ships; these are their defaults there.
_MODEL_DEFAULTS = {"use_mmap": True, "repack_tensors": False, "merge_qkv": False}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "type_k": 1,
    "type_v": 1,
    "flash_attn": True,
    "fused_up_gate": True,
    "graph_reuse": True,
}


class IkLlamaCpp(LlamaApi):
    """A model in ik_llama.cpp: ``sequences`` that share ``sequences * context`` positions."""

    name = "ik_llama.cpp"

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        sequences: int = 1,
        kv: PeerKvType = "f16",
    ) -> None:
        """Raises UnsupportedError where the package is not installed or cannot load the file."""
        library = _library()
        model = library.llama_model_default_params()
        params = library.llama_context_default_params()
        for struct, wanted in ((model, _MODEL_DEFAULTS), (params, _CONTEXT_DEFAULTS)):
            require(self.name, {name: getattr(struct, name) for name in wanted}, wanted)
        model.repack_tensors, model.use_mmap, model.merge_qkv = True, False, True
        self._load(path, library, model)
        positions = sequences * context
        params.n_ctx, params.n_seq_max = positions, sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn = sequences == 1
        params.type_k = params.type_v = GGML_TYPES[kv]
        self._open(path, params, sequences=sequences, positions=positions, threads=threads)

    def clear(self) -> None:
        self._c.llama_kv_cache_clear(self._context)

    def _free_model(self) -> None:
        self._c.llama_free_model(self._model)

    @property
    def version(self) -> str:
        """Of the package."""
        return f"{PACKAGE} {version(PACKAGE)}"


def library_path() -> Path:
    """The package's folder of libraries. Raises UnsupportedError where it is not installed."""
    found = importlib.util.find_spec("ik_llama_cpp")
    if found is None or found.origin is None:
        raise UnsupportedError(
            f"ik_llama.cpp comes with the package {PACKAGE}, which is not installed",
            hint="Install it with: pip install 'pocketlm[ik]'.",
        )
    return Path(found.origin).parent / "lib"


def _library() -> ctypes.CDLL:
    library_path()
    structs = importlib.import_module("ik_llama_cpp._ctypes_api")
    library: ctypes.CDLL = importlib.import_module("ik_llama_cpp._lib_loader").load_shared_library()
    pointer = ctypes.c_void_p
    extra: dict[str, tuple[Any, list[Any]]] = {
        "llama_free_model": (None, [pointer]),
        "llama_kv_cache_clear": (None, [pointer]),
    }
    declare(library, (structs.llama_model_params, structs.llama_context_params), extra)
    return library
