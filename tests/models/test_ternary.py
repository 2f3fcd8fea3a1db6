"""Ternary matrices: rounding, unpacking, and when the 2-bit form may be used."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm.gguf import BlockType, dequantize
from pocketlm.models.sources import Matrix
from pocketlm.models.ternary import (
    split_ternary,
    ternarize,
    ternary_matrix,
    tq2_0,
    unpack_quarters,
)

RNG = np.random.default_rng(0)


def values_of(matrix: Matrix) -> np.ndarray:  # type: ignore[type-arg]
    return dequantize(matrix.type, matrix.data, (matrix.rows, matrix.cols))


def random_codes(rows: int, cols: int) -> np.ndarray:  # type: ignore[type-arg]
    return RNG.integers(-1, 2, (rows, cols)).astype(np.int8)


def test_tq2_0_blocks_decode_to_the_codes() -> None:
    codes = random_codes(3, 512)
    blocks = tq2_0(codes, np.float16(0.375))
    assert blocks.size == 3 * 2 * 66
    np.testing.assert_array_equal(
        dequantize(BlockType.TQ2_0, blocks, (3, 512)), codes * np.float32(0.375)
    )


@pytest.mark.parametrize(
    ("cols", "scale", "exact", "type"),
    [
        (256, 0.375, True, BlockType.TQ2_0),
        (256, 1.0390625, True, BlockType.TQ2_0),  # a bfloat16 value
        (256, 0.1, True, BlockType.F32),
        (256, 0.1, False, BlockType.TQ2_0),
        (256, 1e-6, False, BlockType.F32),  # float16 would lose digits
        (256, 1e6, False, BlockType.F32),
        (128, 0.375, True, BlockType.F32),
    ],
)
def test_form_by_scale(cols: int, scale: float, exact: bool, type: BlockType) -> None:
    codes = random_codes(2, cols)
    matrix = ternary_matrix(codes, scale, exact=exact)
    assert matrix.type == type
    rtol = 0 if exact or type == BlockType.F32 else 2**-11
    np.testing.assert_allclose(values_of(matrix), codes * np.float32(scale), rtol=rtol)


def test_absmean_rounding() -> None:
    weights = np.array([[0.1, -0.4, 0.6, 2.9]], dtype=np.float32)  # mean|w| = 1
    codes, scale = ternarize(weights)
    np.testing.assert_array_equal(codes, [[0, 0, 1, 1]])
    assert scale == pytest.approx(1.0)
    assert ternarize(np.zeros((2, 2), dtype=np.float32))[1] == pytest.approx(1e-5)


def test_quarters_are_not_interleaved() -> None:
    packed = np.array([0b10_01_00_10, 0b00_01_10_01], dtype=np.uint8)  # one row of two columns
    np.testing.assert_array_equal(unpack_quarters(packed, 4, 2), [[1, 0], [-1, 1], [0, 0], [1, -1]])


def test_floats_that_are_ternary_already() -> None:
    codes = random_codes(4, 8)
    found = split_ternary(codes * np.float32(0.7))
    assert found is not None
    np.testing.assert_array_equal(found[0], codes)
    assert found[1] == np.float32(0.7)
    assert split_ternary(np.array([[0.5, 0.25]], dtype=np.float32)) is None
