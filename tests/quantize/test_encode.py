"""The native quantizers as Python calls them: sources, methods, importance and refusals.

That the bytes are ggml's is tests/oracle/test_encode.py's; all instruction sets, and rows of every
odd kind, are native/tests/test_quantize.cc's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pocketlm import _native
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, block_elements, dequantize, tensor_nbytes

Array = np.ndarray[Any, np.dtype[Any]]

FLOATS = [BlockType.F32, BlockType.F16, BlockType.BF16]
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
types = pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)


def encode(
    values: Array,
    type: BlockType,
    method: str,
    importance: Array | None = None,
    *,
    source: BlockType = BlockType.F32,
    threads: int = 2,
) -> Array:
    """Blocks of ``values`` [rows, cols], which are floats or, with a source, blocks of it."""
    rows, cols = values.shape
    if source is not BlockType.F32:
        cols = cols // tensor_nbytes(source, (block_elements(source),)) * block_elements(source)
    data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    return _native.quantize(int(source), data, rows, cols, int(type), method, importance, threads)


def weights(seed: int = 0, shape: tuple[int, int] = (24, 768)) -> Array:
    return np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)


def error(values: Array, blocks: Array, type: BlockType, importance: Array | None = None) -> float:
    rest = dequantize(type, blocks, values.shape).astype(np.float64) - values
    return float((rest**2 * (1 if importance is None else importance)).sum())


@pytest.mark.parametrize("method", ["nearest", "search"])
@pytest.mark.parametrize("type", FLOATS + QUANTIZED, ids=lambda type: type.name)
def test_sizes_and_threads(type: BlockType, method: str) -> None:
    values = weights(shape=(333, 256))
    blocks = encode(values, type, method, threads=1)
    assert blocks.dtype == np.uint8
    assert blocks.shape == (tensor_nbytes(type, values.shape),)
    np.testing.assert_array_equal(encode(values, type, method, threads=3), blocks)


@pytest.mark.parametrize("type", FLOATS, ids=lambda type: type.name)
def test_float_types_round_as_numpy(type: BlockType) -> None:
    values = weights()
    decoded = dequantize(type, encode(values, type, "search"), values.shape)
    tolerance = {BlockType.F32: 0.0, BlockType.F16: 2.0**-11, BlockType.BF16: 2.0**-8}[type]
    np.testing.assert_allclose(decoded, values, rtol=tolerance, atol=1e-7 if tolerance else 0)
    if type is BlockType.F16:
        np.testing.assert_array_equal(decoded, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("source", [*FLOATS[1:], *QUANTIZED], ids=lambda type: type.name)
def test_a_source_of_any_type_is_decoded_first(source: BlockType) -> None:
    blocks = encode(weights(), source, "nearest")
    decoded = dequantize(source, blocks, (24, 768))
    found = encode(blocks.reshape(24, -1), BlockType.Q4_K, "search", source=source)
    np.testing.assert_array_equal(found, encode(decoded, BlockType.Q4_K, "search"))


@types
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
def test_search_lowers_the_weighted_error(type: BlockType, weighted: bool) -> None:
    values, importance = weights(1), None
    if weighted:
        importance = np.exp(np.random.default_rng(2).normal(0, 1, 768)).astype(np.float32)
    before = error(values, encode(values, type, "nearest"), type, importance)
    after = error(values, encode(values, type, "search", importance), type, importance)
    assert after < 0.97 * before


@types
def test_only_ratios_of_importance_matter(type: BlockType) -> None:
    values = weights(3)
    importance = np.exp2(np.random.default_rng(4).integers(-3, 4, 768)).astype(np.float32)
    found = encode(values, type, "search", importance)
    for factor in (2.0**-40, 2.0**40):
        scaled = importance * np.float32(factor)
        np.testing.assert_array_equal(encode(values, type, "search", scaled), found)
    nothing = encode(values, type, "search", np.zeros(768, np.float32))
    np.testing.assert_array_equal(nothing, encode(values, type, "search"))


@pytest.mark.parametrize("type", [BlockType.Q4_0, BlockType.Q4_1, BlockType.Q5_0, BlockType.Q5_1])
def test_search_comes_near_the_best_scale(type: BlockType) -> None:
    """Against scales tried one by one, far more finely than a quantizer can afford to."""
    values = weights(5, (8, 32))
    found = error(values, encode(values, type, "search"), type)
    assert found <= 1.02 * sum(_least_error(row, type) for row in values.astype(np.float64))


def _least_error(row: Array, type: BlockType) -> float:
    bits = 4 if type in (BlockType.Q4_0, BlockType.Q4_1) else 5
    if type in (BlockType.Q4_0, BlockType.Q5_0):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scales = np.abs(row).max() / np.linspace(high * 0.6, high * 1.6, 2000)
        scales = np.concatenate([scales, -scales])
        codes = np.clip(np.round(row / scales[:, None]), low, high)
        best = (codes @ row) ** 2 / np.maximum((codes**2).sum(1), 1)
        return float((row**2).sum() - best.max())
    top, span = 2**bits - 1, row.max() - row.min()
    below, above = np.meshgrid(np.linspace(-0.5, 2.5, 150), np.linspace(-0.5, 2.5, 150))
    scales = (span / (top + below + above)).reshape(-1, 1)
    codes = np.clip(np.round((row - row.min()) / scales - below.reshape(-1, 1)), 0, top)
    centered = codes - codes.mean(1, keepdims=True)
    deviations = row - row.mean()
    best = (centered @ deviations) ** 2 / np.maximum((centered**2).sum(1), 1e-30)
    return float((deviations**2).sum() - best.max())


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(
        np.float32, (2, 256), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=True)
    ),
    type=st.sampled_from(QUANTIZED),
)
def test_search_never_loses(values: Array, type: BlockType) -> None:
    before = error(values, encode(values, type, "nearest"), type)
    after = error(values, encode(values, type, "search"), type)
    assert after <= before * (1 + 1e-4) + 1e-12


@pytest.mark.parametrize("method", ["nearest", "search"])
@types
def test_weights_that_cannot_be_written_are_named(type: BlockType, method: str) -> None:
    values = weights()
    values[20, 700] = np.nan
    with pytest.raises(ValueError, match="row 20, column 700 is NaN"):
        encode(values, type, method)
    values[20, 700] = -np.inf
    with pytest.raises(ValueError, match="row 20, column 700 is infinite"):
        encode(values, type, method)
    values[20, 700] = 3e38
    with pytest.raises(ValueError, match=r"weights from row 20, column \d+ on .* too large"):
        encode(values, type, method)


def test_requests_that_make_no_sense_are_refused() -> None:
    values = weights()
    with pytest.raises(ValueError, match="'best' is none of nearest, search"):
        encode(values, BlockType.Q4_0, "best")
    with pytest.raises(ValueError, match="a row of 720 weights is not a whole number of blocks"):
        encode(weights(shape=(4, 720)), BlockType.Q4_K, "search")
    with pytest.raises(ValueError, match="one value for each column"):
        encode(values, BlockType.Q4_0, "search", np.ones(8, np.float32))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            encode(values, BlockType.Q4_0, "search", np.full(768, bad, np.float32))
    with pytest.raises(ValueError, match="weights take 73728 bytes, found 8"):
        _native.quantize(0, np.zeros(8, np.uint8), 24, 768, 2, "search", None, 1)
    with pytest.raises(ModelFileError, match="12345"):
        _native.quantize(0, np.zeros(128, np.uint8), 1, 32, 12345, "search", None, 1)
