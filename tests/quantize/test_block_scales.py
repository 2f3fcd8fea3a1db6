"""Blocks as linear functions of their float16 fields."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm.gguf import BlockType, block_bytes, block_elements, dequantize, tensor_nbytes
from pocketlm.quantize.block_scales import TUNABLE, V_RUN, factorize, with_fields

ROWS, COLS = 3, 512


def random_blocks(type: BlockType, rows: int = ROWS, cols: int = COLS) -> np.ndarray:
    """Every code and sub-scale occurs; scales and minima lie between 0.005 and 0.02."""
    rng = np.random.default_rng(int(type))
    data = rng.integers(0, 256, tensor_nbytes(type, (rows, cols)), dtype=np.uint8)
    shape = (rows, cols // block_elements(type))
    scale, minimum = rng.uniform(0.005, 0.02, (2, *shape)).astype(np.float32)
    return with_fields(type, data, scale, minimum)


@pytest.mark.parametrize("type", sorted(TUNABLE), ids=lambda t: t.name)
def test_weights_are_linear_in_the_fields(type: BlockType) -> None:
    data = random_blocks(type)
    factors = factorize(type, data, ROWS, COLS)
    size = block_elements(type)
    expected = np.repeat(factors.scale, size, axis=1) * factors.u
    if factors.minimum is not None and factors.v is not None:
        v = np.repeat(factors.v, V_RUN, axis=1)
        expected = expected + np.repeat(factors.minimum, size, axis=1) * v
    found = dequantize(type, data, (ROWS, COLS))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("type", sorted(TUNABLE), ids=lambda t: t.name)
def test_only_the_fields_change(type: BlockType) -> None:
    data = random_blocks(type)
    factors = factorize(type, data, ROWS, COLS)
    assert np.array_equal(with_fields(type, data, factors.scale, factors.minimum), data)
    minimum = None if factors.minimum is None else 3 * factors.minimum
    changed = with_fields(type, data, 2 * factors.scale, minimum)
    again = factorize(type, changed, ROWS, COLS)
    assert np.array_equal(again.scale, 2 * factors.scale)
    assert np.array_equal(again.u, factors.u)
    differs = (changed != data).reshape(-1, block_bytes(type)).any(axis=0)
    assert differs.sum() <= (2 if minimum is None else 4)


def test_a_scale_beyond_float16_is_clipped() -> None:
    data = random_blocks(BlockType.Q4_0)
    factors = factorize(BlockType.Q4_0, data, ROWS, COLS)
    changed = with_fields(BlockType.Q4_0, data, factors.scale * 1e9, None)
    assert factorize(BlockType.Q4_0, changed, ROWS, COLS).scale.max() == 65504
