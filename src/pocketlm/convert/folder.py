"""A Hugging Face folder as a stream of GGUF's tensors and metadata.

The folder is opened as the engine opens it, which refuses what is unknown before any weight is
read and gives tensors under GGUF's names in the engine's values: norms as plain multipliers, BitNet
in ternary blocks. GGUF's llama keeps rows of q and k in another order, which is all that is left
to change.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from pocketlm.convert.architecture import Architecture, architecture_of
from pocketlm.convert.card import card_metadata, read_card
from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.convert.tokenizer import tokenizer_metadata
from pocketlm.gguf import BlockType, Value
from pocketlm.models.config import ModelConfig
from pocketlm.models.families.llama import Q_OR_K, halves_from_pairs
from pocketlm.models.generation import gguf_sampling
from pocketlm.models.sources import Bytes, Floats, checked_floats
from pocketlm.models.spec import ModelSpec
from pocketlm.models.ternary import with_unit_scale

_QUANTIZATION_VERSION = 2  # of ggml's block types


def folder_stream(spec: ModelSpec) -> TensorStream:
    """The stream of an open folder, whose files stay open as long as ``spec`` does.

    Raises:
        UnsupportedError: GGUF cannot say what the configuration or the tokenizer says.
        ModelFileError: a file of the folder breaks its format.
    """
    architecture = architecture_of(spec.config, spec.path)
    metadata: dict[str, Value] = {
        "general.architecture": architecture.name,
        "general.type": "model",
        "general.name": spec.name,
        "general.size_label": size_label(spec.parameters),
        **card_metadata(read_card(spec.path)),
        **gguf_sampling(spec.generation),
        **architecture.keys,
        **tokenizer_metadata(spec.path, spec.config.vocab, architecture.name),
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    return TensorStream(spec.path, architecture.name, metadata, _tensors(spec, architecture))


def size_label(parameters: int) -> str:
    """Parameters as names of models have them: ``135M``, ``1.7B``."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= 0.9995 * unit:
            digits = 1 if parameters < 9.95 * unit else 0
            return f"{parameters / unit:.{digits}f}".removesuffix(".0") + letter
    return str(parameters)


def _tensors(spec: ModelSpec, architecture: Architecture) -> list[StreamTensor]:
    tensors = [_given(name, values) for name, values in architecture.factors.items()]
    maps = _row_maps(spec.config) if architecture.name == "llama" else {}
    shapes = spec.program.shapes()
    # the embedding first, then block by block, as readers load them
    for name in sorted(shapes, key=_place):
        if len(shapes[name]) == 1:
            tensors.append(_vector(spec, name, shapes[name]))
        elif spec.config.family == "bitnet":
            tensors += _bitnet_matrix(spec, name, shapes[name])
        else:
            match = Q_OR_K.fullmatch(name)
            row_map = maps.get(match[1]) if match else None
            tensors.append(_matrix(spec, name, shapes[name], row_map))
    return tensors


def _place(name: str) -> tuple[int, int]:
    if name.startswith("token_embd"):
        return 0, 0
    match = re.match(r"blk\.(\d+)\.", name)
    return (1, int(match[1])) if match else (2, 0)


def _row_maps(config: ModelConfig) -> dict[str, npt.NDArray[np.int32]]:
    """Row r of a file's q or k is row ``map[r]`` of the folder's: halves become pairs."""
    return {
        which: np.argsort(halves_from_pairs(heads, config.head_dim, config.rope.dim)).astype(
            np.int32
        )
        for which, heads in (("q", config.heads), ("k", config.kv_heads))
    }


def _nothing() -> None:
    """The release of a tensor that lies in no file."""


def _as_bytes(values: Floats) -> Bytes:
    return np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8)


def _given(name: str, values: Floats) -> StreamTensor:
    return StreamTensor(name, BlockType.F32, values.shape, lambda: _as_bytes(values), _nothing)


def _vector(spec: ModelSpec, name: str, shape: tuple[int, ...]) -> StreamTensor:
    def read() -> Bytes:
        return _as_bytes(checked_floats(name, spec.source.vector(name), spec.path))

    return StreamTensor(name, BlockType.F32, shape, read, spec.source.release_pages)


def _matrix(
    spec: ModelSpec,
    name: str,
    shape: tuple[int, ...],
    row_map: npt.NDArray[np.int32] | None,
) -> StreamTensor:
    def read() -> Bytes:
        matrix = spec.source.matrix(name)
        if row_map is None:
            return matrix.data
        return matrix.data.reshape(matrix.rows, -1)[row_map].reshape(-1)

    return StreamTensor(name, spec.source.type(name), shape, read, spec.source.release_pages)


def _bitnet_matrix(spec: ModelSpec, name: str, shape: tuple[int, ...]) -> list[StreamTensor]:
    """A matrix, and beside it the scale of one whose scale float16 would round.

    It is read here a first time, since only then is known what holds it exactly.
    """
    source = spec.source
    first = source.matrix(name)
    type, scale = first.type, None
    if type == BlockType.I2_S:  # which nobody but bitnet.cpp and this engine reads
        type, scale = BlockType.TQ2_0, with_unit_scale(first)[1]
    source.release_pages()

    def read() -> Bytes:
        matrix = source.matrix(name)
        return matrix.data if scale is None else with_unit_scale(matrix)[0]

    tensor = StreamTensor(name, type, shape, read, source.release_pages)
    if scale is None:
        return [tensor]
    values = np.array([scale], dtype=np.float32)
    return [tensor, _given(name.removesuffix("weight") + "scale", values)]
