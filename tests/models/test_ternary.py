"""Ternary matrices: rounding, unpacking, and when the 2-bit form may be used."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm.gguf import BlockType, dequantize, tensor_nbytes
from pocketlm.models.sources import Matrix
from pocketlm.models.ternary import (
    i2_s,
    i2_s_scale,
    split_ternary,
    ternarize,
    ternary_matrix,
    tq2_0,
    unpack_quarters,
    with_scale,
    with_unit_scale,
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
    ("cols", "scale", "type"),
    [
        (256, 0.375, BlockType.TQ2_0),
        (256, 1.0390625, BlockType.TQ2_0),  # a bfloat16 value
        (256, 0.1, BlockType.I2_S),
        (256, 1e-6, BlockType.I2_S),  # float16 would lose digits
        (256, 1e6, BlockType.I2_S),
        (128, 0.375, BlockType.F32),
        (128, 0.1, BlockType.F32),
    ],
)
def test_form_by_scale(cols: int, scale: float, type: BlockType) -> None:
    codes = random_codes(2, cols)
    matrix = ternary_matrix(codes, scale)
    assert matrix.type == type
    np.testing.assert_array_equal(values_of(matrix), codes * np.float32(scale))


def test_codes_that_are_none_stay_floats() -> None:
    codes = random_codes(2, 256)
    codes[1, 7] = 2
    assert ternary_matrix(codes, 0.1).type == BlockType.F32


def test_i2_s_keeps_codes_and_scale() -> None:
    codes = random_codes(3, 384)
    data = i2_s(codes, np.float32(0.1))
    assert data.size == tensor_nbytes(BlockType.I2_S, (3, 384)) == 3 * 384 // 4 + 32
    assert i2_s_scale(data) == np.float32(0.1)
    np.testing.assert_array_equal(
        dequantize(BlockType.I2_S, data, (3, 384)), codes * np.float32(0.1)
    )


def test_i2_s_bits_of_a_byte() -> None:
    codes = np.zeros((1, 128), dtype=np.int8)
    codes[0, [0, 32, 64, 96]] = [1, -1, 0, 1]
    assert i2_s(codes, np.float32(1))[:2].tolist() == [0b10_00_01_10, 0b01_01_01_01]


def test_i2_s_for_other_readers() -> None:
    codes = random_codes(2, 512)
    matrix = ternary_matrix(codes, 0.1)
    blocks, scale = with_unit_scale(matrix)
    assert scale == np.float32(0.1)
    np.testing.assert_array_equal(dequantize(BlockType.TQ2_0, blocks, (2, 512)), codes)
    back = with_scale(Matrix(BlockType.TQ2_0, 2, 512, blocks), scale)
    assert back is not None
    np.testing.assert_array_equal(back.data, matrix.data)


def test_scale_over_a_scale() -> None:
    matrix = ternary_matrix(random_codes(2, 256), 0.1)
    scaled = with_scale(matrix, 0.3)
    assert scaled is not None
    assert scaled.type == BlockType.I2_S
    np.testing.assert_array_equal(scaled.data[:128], matrix.data[:128])
    assert i2_s_scale(scaled.data) == np.float32(0.1) * np.float32(0.3)


def test_one_scale_over_blocks_of_two() -> None:
    codes = random_codes(2, 256)
    blocks = np.concatenate([tq2_0(codes[:1], np.float16(1)), tq2_0(codes[1:], np.float16(2))])
    assert with_scale(Matrix(BlockType.TQ2_0, 2, 256, blocks), 0.1) is None
    same = with_scale(Matrix(BlockType.TQ2_0, 2, 256, tq2_0(codes, np.float16(2))), 0.1)
    assert same is not None
    np.testing.assert_array_equal(values_of(same), codes * (2 * np.float32(0.1)))


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
