"""The block types of GGUF tensors: their ids, their sizes, and their weights as float32.

The ground of the gguf floor. A tensor's weights are stored in blocks along the fastest dimension:
`block_elements` weights take `block_bytes` bytes. Ids and layouts: `ggml.h` and `ggml-common.h` of
ggml. The arithmetic of decoding is native (`native/formats/decode.cc`); a tensor of a type that has
no decoder can still be listed and copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pocketlm import _native
from pocketlm.errors import ModelFileError, RequestError, UnsupportedError


class BlockType(IntEnum):
    """How a tensor's weights are stored, with the ids that stand in a file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    I2_S = 36  # of bitnet.cpp; see tensors.check_i2_s
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


_BY_ID = {int(type): type for type in BlockType}

# A type: (weights of a block, bytes of a block)
_SIZES: dict[BlockType, tuple[int, int]] = {
    BlockType.F32: (1, 4),
    BlockType.F16: (1, 2),
    BlockType.Q4_0: (32, 18),
    BlockType.Q4_1: (32, 20),
    BlockType.Q5_0: (32, 22),
    BlockType.Q5_1: (32, 24),
    BlockType.Q8_0: (32, 34),
    BlockType.Q8_1: (32, 36),
    BlockType.Q2_K: (256, 84),
    BlockType.Q3_K: (256, 110),
    BlockType.Q4_K: (256, 144),
    BlockType.Q5_K: (256, 176),
    BlockType.Q6_K: (256, 210),
    BlockType.Q8_K: (256, 292),
    BlockType.IQ2_XXS: (256, 66),
    BlockType.IQ2_XS: (256, 74),
    BlockType.IQ3_XXS: (256, 98),
    BlockType.IQ1_S: (256, 50),
    BlockType.IQ4_NL: (32, 18),
    BlockType.IQ3_S: (256, 110),
    BlockType.IQ2_S: (256, 82),
    BlockType.IQ4_XS: (256, 136),
    BlockType.I8: (1, 1),
    BlockType.I16: (1, 2),
    BlockType.I32: (1, 4),
    BlockType.I64: (1, 8),
    BlockType.F64: (1, 8),
    BlockType.IQ1_M: (256, 56),
    BlockType.BF16: (1, 2),
    BlockType.TQ1_0: (256, 54),
    BlockType.TQ2_0: (256, 66),
    BlockType.I2_S: (128, 32),
    BlockType.MXFP4: (32, 17),
    BlockType.NVFP4: (64, 36),
    BlockType.Q1_0: (128, 18),
    BlockType.Q2_0: (64, 18),
}

# What the core decodes, and packs for the kernels.
NATIVE_TYPES = frozenset(
    {
        BlockType.F32,
        BlockType.F16,
        BlockType.BF16,
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
        BlockType.I2_S,
    }
)
# Bytes that a tensor has after its blocks: I2_S's one float32 scale, and nothing up to 32.
_TAILS = {BlockType.I2_S: 32}
_NUMPY = {
    BlockType.I8: "<i1",
    BlockType.I16: "<i2",
    BlockType.I32: "<i4",
    BlockType.I64: "<i8",
    BlockType.F64: "<f8",
}

# Ids that other programs gave away: such a file may be sound, but its layout is not ours to guess.
_FOREIGN = {
    **dict.fromkeys((4, 5, 31, 32, 33, 37, 38), "a type that ggml has removed"),
    **dict.fromkeys(range(97, 400), "a type of the ik_llama.cpp fork"),
}


def block_type(id: int) -> BlockType:
    """The type with this id.

    Raises:
        UnsupportedError: an id that ggml removed or that a fork uses.
        ModelFileError: no id of any program we know.
    """
    if id in _BY_ID:
        return _BY_ID[id]
    if id in _FOREIGN:
        raise UnsupportedError(f"block type {id} is {_FOREIGN[id]}")
    raise ModelFileError(f"block type {id} is unknown", hint="The file may be newer than PocketLM.")


def block_elements(type: BlockType) -> int:
    """Weights of one block."""
    return _SIZES[type][0]


def block_bytes(type: BlockType) -> int:
    """Bytes of one block."""
    return _SIZES[type][1]


def decodable(type: BlockType) -> bool:
    """Whether `dequantize` knows this type."""
    return type in NATIVE_TYPES or type in _NUMPY


def tensor_nbytes(type: BlockType, shape: Sequence[int]) -> int:
    """Bytes of a tensor; `shape` is in numpy's order, so its last entry is the length of a row.

    Raises:
        RequestError: no whole number of blocks makes a row, or a dimension is not positive.
    """
    elements, nbytes = _SIZES[type]
    if not shape or min(shape) < 1:
        raise RequestError(f"shape {tuple(shape)} has no weights")
    if shape[-1] % elements:
        raise RequestError(
            f"a row of {shape[-1]} weights is not a whole number of {type.name} blocks "
            f"of {elements}"
        )
    return math.prod(shape) // elements * nbytes + _TAILS.get(type, 0)


def dequantize(
    type: BlockType, data: npt.NDArray[np.uint8], shape: Sequence[int]
) -> npt.NDArray[np.float32]:
    """The weights of a tensor as float32, in `shape`.

    Args:
        type: how `data` is stored.
        data: at least `tensor_nbytes(type, shape)` bytes, one-dimensional and contiguous.
        shape: numpy's order.

    Raises:
        UnsupportedError: the type has no decoder.
        RequestError: `data` is too short or `shape` does not fit the type.
    """
    wanted = tensor_nbytes(type, shape)
    if data.size < wanted:
        raise RequestError(
            f"a {type.name} tensor {tuple(shape)} takes {wanted:,} bytes, found {data.size:,}"
        )
    if type in NATIVE_TYPES:
        return _native.dequantize(int(type), data[:wanted], math.prod(shape)).reshape(shape)
    if type in _NUMPY:
        with np.errstate(over="ignore", invalid="ignore"):
            return data[:wanted].view(_NUMPY[type]).astype(np.float32).reshape(shape)
    raise UnsupportedError(
        f"block type {type.name} has no decoder",
        hint="Convert the model to one of: Q4_K, Q6_K, Q8_0, F16.",
    )
