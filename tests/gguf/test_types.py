"""Block types: ids, sizes, and a few blocks decoded by hand; tests/oracle compares them all."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pocketlm.errors import ModelFileError, RequestError, UnsupportedError
from pocketlm.gguf import (
    BlockType,
    block_bytes,
    block_elements,
    decodable,
    dequantize,
    tensor_nbytes,
)
from pocketlm.gguf.types import block_type


@pytest.mark.parametrize(
    ("type", "elements", "nbytes"),
    [
        (BlockType.F32, 1, 4),
        (BlockType.BF16, 1, 2),
        (BlockType.Q4_0, 32, 18),
        (BlockType.Q5_1, 32, 24),
        (BlockType.Q8_0, 32, 34),
        (BlockType.Q4_K, 256, 144),
        (BlockType.Q6_K, 256, 210),
        (BlockType.TQ1_0, 256, 54),
        (BlockType.TQ2_0, 256, 66),
    ],
)
def test_sizes(type: BlockType, elements: int, nbytes: int) -> None:
    assert (block_elements(type), block_bytes(type)) == (elements, nbytes)
    assert tensor_nbytes(type, (3, 2 * elements)) == 6 * nbytes
    assert block_type(int(type)) is type


def test_every_type_has_a_size() -> None:
    for type in BlockType:
        tail = 32 if type is BlockType.I2_S else 0
        assert tensor_nbytes(type, (block_elements(type),)) == block_bytes(type) + tail


@pytest.mark.parametrize("id", [4, 5, 31, 33, 38, 137, 202])
def test_ids_of_other_programs(id: int) -> None:
    with pytest.raises(UnsupportedError, match=f"block type {id} is"):
        block_type(id)


@pytest.mark.parametrize("id", [-1, 43, 96, 400, 2**32 - 1])
def test_unknown_ids(id: int) -> None:
    with pytest.raises(ModelFileError, match=f"block type {id} is unknown"):
        block_type(id)


@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (-32,), (33,), (32, 16)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError):
        tensor_nbytes(BlockType.Q4_0, shape)


def test_sizes_do_not_wrap() -> None:
    assert tensor_nbytes(BlockType.F32, (1 << 62, 4)) == 1 << 66


@pytest.mark.parametrize(
    ("type", "format"),
    [
        (BlockType.F32, "f"),
        (BlockType.F16, "e"),
        (BlockType.F64, "d"),
        (BlockType.I8, "b"),
        (BlockType.I16, "h"),
        (BlockType.I32, "i"),
        (BlockType.I64, "q"),
    ],
)
def test_numbers(type: BlockType, format: str) -> None:
    data = np.frombuffer(struct.pack(f"<6{format}", -3, -2, 0, 1, 2, 100), np.uint8)
    weights = dequantize(type, data, (2, 3))
    assert weights.dtype == np.float32
    assert weights.tolist() == [[-3, -2, 0], [1, 2, 100]]


def test_an_offset_of_one_byte_does_not_matter() -> None:
    data = np.frombuffer(b"x" + struct.pack("<2f", 1.5, -2), np.uint8)[1:]
    assert dequantize(BlockType.F32, data, (2,)).tolist() == [1.5, -2]
    wide = np.frombuffer(b"x" + struct.pack("<2d", 1.5, -2), np.uint8)[1:]
    assert dequantize(BlockType.F64, wide, (2,)).tolist() == [1.5, -2]


def test_a_block_of_q4_0() -> None:
    data = struct.pack("<e", 0.5) + bytes([0xF0]) + bytes([0x88]) * 15
    weights = dequantize(BlockType.Q4_0, np.frombuffer(data, np.uint8), (1, 32))
    assert weights[0, 0] == -4
    assert weights[0, 16] == 3.5
    assert np.count_nonzero(weights) == 2


def test_data_that_is_too_short() -> None:
    with pytest.raises(RequestError, match=r"Q8_0 tensor \(2, 32\) takes 68 bytes, found 67"):
        dequantize(BlockType.Q8_0, np.zeros(67, np.uint8), (2, 32))


def test_types_without_a_decoder() -> None:
    without = [type for type in BlockType if not decodable(type)]
    assert BlockType.IQ2_XXS in without
    assert not {t.name for t in without} & {"F32", "F16", "BF16", "Q2_K", "Q3_K", "TQ1_0", "I8"}
    for type in without:
        with pytest.raises(UnsupportedError, match=type.name):
            dequantize(type, np.zeros(block_bytes(type), np.uint8), (block_elements(type),))
