"""The native quantizers against ggml's, called in the shared object of the xllamacpp wheel, and
against the gguf package's.

Rounding must give the same bytes. The search must leave less weighted error than ggml's own, with
an importance matrix and without.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketlm import _native
from pocketlm.gguf import BlockType, GGUFFile, dequantize, tensor_nbytes

pytestmark = pytest.mark.oracle

Array = np.ndarray[Any, np.dtype[Any]]

QUANTIZED = [
    BlockType.Q4_0,
    BlockType.Q4_1,
    BlockType.Q5_0,
    BlockType.Q5_1,
    BlockType.Q8_0,
    BlockType.Q2_K,
    BlockType.Q3_K,
    BlockType.Q4_K,
    BlockType.Q5_K,
    BlockType.Q6_K,
    BlockType.TQ1_0,
    BlockType.TQ2_0,
]
ALL = [BlockType.F16, BlockType.BF16, *QUANTIZED]
# Those that the gguf package quantizes too.
SIMPLE = [type for type in ALL if not type.name.endswith("_K")]


@cache
def ggml() -> ctypes.CDLL:
    extension = pytest.importorskip("xllamacpp.xllamacpp")
    library = ctypes.CDLL(extension.__file__)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return library


def ggml_blocks(values: Array, type: BlockType, importance: Array | None = None) -> Array:
    values = np.ascontiguousarray(values, np.float32)
    out = np.zeros(tensor_nbytes(type, values.shape), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = ggml().ggml_quantize_chunk(
        int(type), values.ctypes.data, out.ctypes.data, 0, *values.shape, weights
    )
    assert written == out.size
    return out


def our_blocks(
    values: Array, type: BlockType, method: str, importance: Array | None = None
) -> Array:
    rows, cols = values.shape
    data = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
    return _native.quantize(0, data, rows, cols, int(type), method, importance, 2)


def rows_of_every_kind() -> dict[str, Array]:
    random = np.random.default_rng(1)

    def normal(scale: Any = 1.0, shape: tuple[int, int] = (24, 512)) -> Array:
        values: Array = random.normal(0, 1, shape) * scale
        return values

    sizes = 10.0 ** random.integers(-12, 3, (24, 16))
    return {
        "normal": normal(0.02, (48, 1280)),
        "heavy-tailed": random.standard_t(2, (48, 768)) * 0.01,
        "zero": np.zeros((2, 256)),
        "negative zero": -np.zeros((2, 256)),
        "constant": np.repeat(normal(1, (24, 1)), 256, axis=1),
        "above zero": np.abs(normal()),
        "below zero": -np.abs(normal()),
        "sparse": normal() * (random.random((24, 512)) < 0.05),
        "ties": np.round(normal(2)),
        "halves": random.integers(-15, 16, (24, 512)) * 0.5,
        "grid of 16": random.integers(-8, 8, (24, 512)) * 0.125,
        "weights of many sizes": normal(10.0 ** random.integers(-12, 3, (24, 512))),
        "blocks of many sizes": normal(np.repeat(sizes, 32, axis=1)),
        "large": normal(1e4),
        **{f"of size {size}": normal(size) for size in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)},
        **{f"of size {size}": normal(size) for size in (1e-12, 1e-15, 1e-18, 1e-30, 1e-38, 1e-41)},
    }


@pytest.mark.parametrize("type", ALL, ids=lambda type: type.name)
def test_nearest_gives_the_bytes_of_ggml(type: BlockType) -> None:
    chosen = _native.isa()
    for kind, values in rows_of_every_kind().items():
        wanted = ggml_blocks(values, type)
        for isa in _native.isas():
            _native.select_isa(isa)
            try:
                found = our_blocks(values, type, "nearest")
            finally:
                _native.select_isa(chosen)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{kind} on {isa}")


@settings(max_examples=100, deadline=None)
@given(
    values=arrays(
        np.float32, (1, 512), elements=st.floats(-6e4, 6e4, width=32, allow_subnormal=True)
    ),
    type=st.sampled_from(ALL),
)
def test_nearest_gives_the_bytes_of_ggml_for_any_row(values: Array, type: BlockType) -> None:
    np.testing.assert_array_equal(our_blocks(values, type, "nearest"), ggml_blocks(values, type))


@pytest.mark.parametrize("type", SIMPLE, ids=lambda type: type.name)
def test_nearest_gives_the_bytes_of_the_gguf_package(type: BlockType) -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(2).standard_t(4, (40, 512)).astype(np.float32)
    wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType(int(type)))
    np.testing.assert_array_equal(
        our_blocks(values, type, "nearest"), np.ascontiguousarray(wanted).view(np.uint8).reshape(-1)
    )


def weighted_error(values: Array, blocks: Array, type: BlockType, importance: Any) -> float:
    rest = dequantize(type, blocks, values.shape).astype(np.float64) - values
    return float((importance * rest**2).sum())


def assert_search_is_better(values: Array, type: BlockType, seed: int) -> None:
    importance = np.exp(np.random.default_rng(seed).normal(0, 1, values.shape[1])).astype("f4")
    for weights in (None, importance):
        weight = 1.0 if weights is None else weights
        theirs = weighted_error(values, ggml_blocks(values, type, weights), type, weight)
        ours = weighted_error(values, our_blocks(values, type, "search", weights), type, weight)
        assert ours < 0.99 * theirs, "with importance" if weights is not None else "without"


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
@pytest.mark.parametrize("rows", ["normal", "heavy-tailed"])
def test_search_leaves_less_error_than_ggml(type: BlockType, rows: str) -> None:
    assert_search_is_better(rows_of_every_kind()[rows].astype(np.float32), type, int(type))


@pytest.mark.parametrize("model", ["smollm2:135m", "gemma3:270m"])
@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_search_leaves_less_error_than_ggml_on_real_weights(
    type: BlockType, model: str, real_model: Callable[[str], Path]
) -> None:
    for name, values in real_matrices(real_model(model)).items():
        assert_search_is_better(values, type, len(name))


@cache
def real_matrices(path: Path) -> dict[str, Array]:
    """Some matrices of a model, with dither of half a step: their own grid must not be found."""
    random, found = np.random.default_rng(3), {}
    with GGUFFile.open(path) as file:
        for name in ("blk.0.ffn_down.weight", "blk.7.attn_q.weight", "blk.11.ffn_up.weight"):
            values = file.tensor(name)[:128]
            cols = values.shape[1] // 256 * 256
            step = np.abs(values).max() / 64
            found[name] = (values + random.uniform(-step, step, values.shape))[:, :cols].astype(
                "f4"
            )
    return found
