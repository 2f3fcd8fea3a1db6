"""The table of llama.cpp's mixes: models to ask about, and how llama.cpp was asked.

    python -m tests.oracle.mixes LIBLLAMA.so BUILD

writes ``data/mixes.json`` anew from a build of llama.cpp: for each model here it runs
``llama_model_quantize`` without writing (``dry_run``), for every file type, with and without an
importance matrix, and takes the type of each tensor from its log. The table in the repository is of
build 11434. The bindings that the tests install do not export that function, so ``test_mix.py``
holds ``plan`` to the table instead.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.gguf import BlockType, TensorData, tensor_nbytes, write_gguf
from pocketlm.quantize.file_types import FILE_TYPES

TABLE = Path(__file__).parent / "data" / "mixes.json"
VOCAB = 32
Types = dict[str, str]


@dataclass(frozen=True)
class Model:
    """What a mix may depend on."""

    arch: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool = True


MODELS = {
    "llama, 4 layers": Model("llama", 4, 256, 512, 4, 4, 64),
    "llama, 4 layers, untied": Model("llama", 4, 512, 768, 8, 2, 64, tied=False),
    "llama, 12 layers": Model("llama", 12, 512, 768, 8, 2, 64),
    "llama, 32 layers, untied": Model("llama", 32, 256, 512, 4, 1, 64, tied=False),
    "llama, 32 layers, 8 heads over one": Model("llama", 32, 256, 512, 8, 1, 32, tied=False),
    "llama, 32 layers, 6 heads over two": Model("llama", 32, 256, 512, 6, 2, 64),
    "SmolLM2 135M": Model("llama", 30, 576, 1536, 9, 3, 64),
    "llama, no blocks fit": Model("llama", 2, 80, 144, 5, 5, 16, tied=False),
    "llama, rows of 32": Model("llama", 9, 96, 288, 3, 1, 32),
    "Gemma 3 270M": Model("gemma3", 18, 640, 2048, 4, 1, 256),
    "gemma3, 26 layers": Model("gemma3", 26, 256, 512, 4, 1, 64),
    "qwen2, rows of 896": Model("qwen2", 24, 896, 1024, 14, 2, 64),
    "qwen3": Model("qwen3", 28, 256, 512, 4, 2, 128),
    "qwen3, untied": Model("qwen3", 12, 512, 256, 8, 2, 64, tied=False),
    "phi3": Model("phi3", 32, 256, 512, 4, 4, 64, tied=False),
    "phi3, four heads over one": Model("phi3", 4, 512, 768, 8, 2, 64, tied=False),
    "bitnet": Model("bitnet", 26, 256, 512, 4, 4, 64),
}


def stream(model: Model) -> TensorStream:
    """The model with matrices of zeros in F16."""
    keys: dict[str, Any] = {
        "block_count": model.layers,
        "context_length": 512,
        "embedding_length": model.hidden,
        "feed_forward_length": model.ffn,
        "attention.head_count": model.heads,
        "attention.head_count_kv": model.kv_heads,
        "attention.key_length": model.head_dim,
        "attention.value_length": model.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.sliding_window": 16,
        "rope.dimension_count": model.head_dim,
        "vocab_size": VOCAB,
    }
    metadata: dict[str, Any] = {"general.architecture": model.arch}
    metadata |= {f"{model.arch}.{key}": value for key, value in keys.items()}
    metadata["tokenizer.ggml.model"] = "no_vocab"
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, model.hidden)}
    if not model.tied:
        shapes["output.weight"] = (VOCAB, model.hidden)
    shapes["output_norm.weight"] = (model.hidden,)
    for i in range(model.layers):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in _layer(model).items()}
    tensors = [_tensor(name, shape) for name, shape in shapes.items()]
    return TensorStream(Path("mix.gguf"), model.arch, metadata, tensors)


def _layer(model: Model) -> dict[str, tuple[int, ...]]:
    """One layer's matrices: llama.cpp does not ask for the vectors to plan."""
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_output": (model.hidden, q),
        "ffn_up": (model.ffn, model.hidden),
        "ffn_down": (model.hidden, model.ffn),
    }
    if model.arch == "phi3":
        qkv = (q + 2 * kv, model.hidden)
        return shapes | {"attn_qkv": qkv, "ffn_up": (2 * model.ffn, model.hidden)}
    attention = {"attn_q": q, "attn_k": kv, "attn_v": kv}
    shapes |= {name: (rows, model.hidden) for name, rows in attention.items()}
    return shapes | {"ffn_gate": (model.ffn, model.hidden)}


def _tensor(name: str, shape: tuple[int, ...]) -> StreamTensor:
    type = BlockType.F32 if len(shape) == 1 else BlockType.F16
    return StreamTensor(
        name, type, shape, lambda: np.zeros(tensor_nbytes(type, shape), np.uint8), lambda: None
    )


def key(file_type: str, importance: bool) -> str:
    return f"{file_type} + imatrix" if importance else file_type


def compact(types: Mapping[str, str]) -> dict[str, str]:
    """Matrices by kind: ``{"Q4_K": "attn_q attn_k", "attn_v": "Q6_K*2 Q4_K*4"}``.

    A kind that has one type in all layers stands under the type, any other has its types in the
    order of the layers. Vectors are left out.
    """
    kinds: dict[str, list[str]] = {}
    for name, type in types.items():
        kinds.setdefault(_kind(name), []).append(type)
    found: dict[str, str] = {}
    for kind, row in kinds.items():
        runs = [(type, len(list(run))) for type, run in itertools.groupby(row)]
        if len(runs) == 1:
            found[row[0]] = f"{found[row[0]]} {kind}" if row[0] in found else kind
        else:
            found[kind] = " ".join(f"{type}*{count}" for type, count in runs)
    return found


def _kind(name: str) -> str:
    return re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")


class Llama:
    """``llama_model_quantize`` of a library, asked without writing."""

    def __init__(self, library: Path) -> None:
        for name in ("ggml-base", "ggml-cpu", "ggml"):
            ctypes.CDLL(str(library.with_name(f"lib{name}.so")), ctypes.RTLD_GLOBAL)
        self._c = ctypes.CDLL(str(library))
        self._c.llama_model_quantize_default_params.restype = _Params
        self._c.llama_model_quantize.argtypes = [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.POINTER(_Params),
        ]
        self._c.llama_model_quantize.restype = ctypes.c_uint32
        self._log: list[str] = []
        self._heard = _LOG(lambda level, text, data: self._log.append(text.decode()))
        self._c.llama_log_set(self._heard, None)
        self._c.llama_backend_init()

    def types(self, model: Path, file_type: str, *, importance: bool) -> Types:
        """The type of each matrix that it would write."""
        params = self._c.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.dry_run = 1, FILE_TYPES[file_type].id, True
        ones = (ctypes.c_float * 1)(1.0)
        matrix = (_Importance * 2)(_Importance(b"any.weight", ones, 1), _Importance())
        if importance:
            params.imatrix = ctypes.addressof(matrix)
        self._log.clear()
        status = self._c.llama_model_quantize(str(model).encode(), b"none.gguf", params)
        log = "".join(self._log)
        if status:
            raise RuntimeError(f"llama_model_quantize returned {status}: {log}")
        lines = re.findall(r"\[ *\d+/ *\d+\] (\S+) .*type = +(\w+), size = .*MiB(.*)", log)
        return {
            name: (re.findall(r"\((\w+)\)", rest) or [own])[0].upper()
            for name, own, rest in lines
            if own != "f32"
        }


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Params(ctypes.Structure):
    _fields_ = (
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int32),
        ("output_tensor_type", ctypes.c_int32),
        ("token_embedding_type", ctypes.c_int32),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.c_void_p),
        ("rest", ctypes.c_uint64 * 16),
    )


class _Importance(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.POINTER(ctypes.c_float)),
        ("size", ctypes.c_size_t),
    )


def table(llama: Llama, folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """By model, by file type; with an importance matrix only where that changes something."""
    found = {}
    for name, model in MODELS.items():
        path = folder / "mix.gguf"
        source = stream(model)
        tensors = [TensorData(t.name, t.type, t.shape, t.read) for t in source.tensors]
        write_gguf(path, source.metadata, tensors)
        rows: dict[str, dict[str, str]] = {}
        for kind in FILE_TYPES:
            plain, guided = (
                compact(llama.types(path, kind, importance=has)) for has in (False, True)
            )
            rows[kind] = plain
            if guided != plain:
                rows[key(kind, True)] = guided
        found[name] = rows
    return found


def main() -> None:
    library, build = Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        found = table(Llama(library), Path(folder))
    lines = []
    for name, rows in found.items():
        entries = [f"{json.dumps(k)}: {json.dumps(row)}" for k, row in rows.items()]
        lines.append(f"{json.dumps(name)}: {{\n  " + ",\n  ".join(entries) + "\n }")
    head = f'{{\n"llama.cpp": {json.dumps(build)},\n"models": {{\n '
    TABLE.write_text(head + ",\n ".join(lines) + "\n}\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
