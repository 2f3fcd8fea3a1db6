"""Ternary matrices: the forms that BitNet checkpoints keep them in, and how they are packed here.

A ternary matrix is codes -1, 0, 1 times one scale. The core runs 2 bits a code, from either of two
block types, both exact: TQ2_0, whose blocks of 256 columns have a float16 scale each, where float16
holds the scale (every bfloat16 scale of ordinary size), and else I2_S, which has one float32 scale
for the whole matrix.

A file for others has no I2_S, which only bitnet.cpp's fork knows: there such a matrix is TQ2_0 of
scale 1 beside a float32 tensor ``.scale`` of one value. ``with_unit_scale`` gives both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pocketlm.gguf import BlockType
from pocketlm.models.sources import Bytes, Floats, Matrix

Codes = npt.NDArray[np.int8]

_BLOCK = 256  # of TQ2_0
_I2_S_TAIL = 32  # bytes after the codes, the float32 scale first


def unpack_quarters(packed: Bytes, rows: int, cols: int) -> Codes:
    """Codes of transformers' packed form [rows / 4, cols]: bits 2k of a byte are row quarter k.

    The code 3, which no packer writes, comes out as 2 like transformers' own unpacking.
    """
    planes = packed.reshape(rows // 4, cols)
    quarters = [(planes >> shift) & 3 for shift in (0, 2, 4, 6)]
    return np.concatenate(quarters).astype(np.int8) - 1


def ternarize(weights: Floats) -> tuple[Codes, float]:
    """BitNet b1.58's absmean rounding: codes of w / mean|w|, clamped, and the scale mean|w|."""
    mean = max(np.float32(np.abs(weights).mean(dtype=np.float64)), np.float32(1e-5))
    factor = np.float32(1) / mean
    codes = np.clip(np.rint(weights * factor), -1, 1).astype(np.int8)
    return codes, float(np.float32(1) / factor)


def split_ternary(weights: Floats) -> tuple[Codes, float] | None:
    """Codes and scale of floats that are ternary already, None when they are not."""
    scale = np.float32(np.abs(weights).max(initial=0))
    codes = np.sign(weights).astype(np.int8)
    if np.array_equal(codes * scale, weights):
        return codes, float(scale)
    return None


def float_matrix(weights: Floats) -> Matrix:
    """Float32 rows."""
    rows, cols = weights.shape
    data = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint8).reshape(-1)
    return Matrix(BlockType.F32, rows, cols, data)


def ternary_matrix(codes: Codes, scale: float) -> Matrix:
    """The matrix codes * float32(scale): TQ2_0, I2_S where float16 would round the scale.

    Args:
        codes: int8 [rows, cols] of -1, 0, 1. Where a row is no whole number of blocks, or a code
            is none of these, the result is float32 rows.
        scale: of all codes.
    """
    single = np.float32(scale)
    rows, cols = codes.shape
    if not fits_blocks((rows, cols)) or codes.max(initial=0) > 1:
        return float_matrix(codes.astype(np.float32) * single)
    with np.errstate(over="ignore"):
        half = np.float16(single)
    if np.float32(half) == single:
        return Matrix(BlockType.TQ2_0, rows, cols, tq2_0(codes, half))
    return Matrix(BlockType.I2_S, rows, cols, i2_s(codes, single))


def fits_blocks(shape: tuple[int, ...]) -> bool:
    """Whether the core runs such a matrix in 2 bits: its rows are whole TQ2_0 blocks."""
    return shape[-1] % _BLOCK == 0


def tq2_0(codes: Codes, scale: np.float16) -> Bytes:
    """GGUF TQ2_0 blocks: 64 bytes of codes + 1, then the float16 scale.

    Of a block's 256 codes, code 128 g + 32 l + j is bits 2l of byte 32 g + j.
    """
    rows, cols = codes.shape
    planes = (codes + 1).astype(np.uint8).reshape(-1, 2, 4, 32)
    packed = planes[:, :, 0] | planes[:, :, 1] << 2 | planes[:, :, 2] << 4 | planes[:, :, 3] << 6
    blocks = np.empty((rows * cols // _BLOCK, 66), dtype=np.uint8)
    blocks[:, :64] = packed.reshape(-1, 64)
    blocks[:, 64:] = np.frombuffer(scale.astype("<f2").tobytes(), dtype=np.uint8)
    return blocks.reshape(-1)


def i2_s(codes: Codes, scale: np.float32) -> Bytes:
    """The bytes of a GGUF I2_S tensor: codes + 1, the float32 scale, 28 zeros.

    Of 128 codes, code 32 l + j is bits 6 - 2l of byte j.
    """
    planes = (codes + 1).astype(np.uint8).reshape(-1, 4, 32)
    packed = planes[:, 0] << 6 | planes[:, 1] << 4 | planes[:, 2] << 2 | planes[:, 3]
    return _with_tail(packed.astype(np.uint8), scale)


def _with_tail(packed: Bytes, scale: np.float32) -> Bytes:
    out = np.zeros(packed.size + _I2_S_TAIL, dtype=np.uint8)
    out[: packed.size] = packed.reshape(-1)
    out[packed.size :][:4] = np.frombuffer(scale.astype("<f4").tobytes(), dtype=np.uint8)
    return out


def i2_s_scale(data: Bytes) -> float:
    """The scale of an I2_S tensor's bytes."""
    return float(data[data.size - _I2_S_TAIL :][:4].view("<f4")[0])


# Of four codes in a byte, TQ2_0 has the first in the lowest bits and I2_S in the highest; where the
# byte stands is the same in both.
_MIRRORED = np.array(
    [(b & 3) << 6 | (b & 12) << 2 | (b & 48) >> 2 | b >> 6 for b in range(256)], dtype=np.uint8
)


def with_unit_scale(matrix: Matrix) -> tuple[Bytes, float]:
    """An I2_S matrix as TQ2_0 blocks of scale 1, and the scale to go into ``.scale``.

    Together they are what a GGUF file keeps of a ternary matrix whose scale float16 would round:
    TQ2_0 ``blk.N.attn_q.weight`` beside F32 ``blk.N.attn_q.scale`` of shape (1,). Readers multiply
    the product by the scale, so the logits are those of the I2_S matrix to the bit.
    """
    assert matrix.type == BlockType.I2_S
    assert matrix.row_map is None
    codes = _MIRRORED[matrix.data[:-_I2_S_TAIL]].reshape(-1, 64)
    blocks = np.empty((len(codes), 66), dtype=np.uint8)
    blocks[:, :64] = codes
    blocks[:, 64:] = np.frombuffer(np.float16(1).astype("<f2").tobytes(), dtype=np.uint8)
    return blocks.reshape(-1), i2_s_scale(matrix.data)


def with_scale(matrix: Matrix, scale: float) -> Matrix | None:
    """The inverse: a TQ2_0 or I2_S matrix times ``scale`` as I2_S; None if its scales differ."""
    assert matrix.row_map is None
    if matrix.type == BlockType.I2_S:
        own = np.float32(i2_s_scale(matrix.data))
        return replace(matrix, data=_with_tail(matrix.data[:-_I2_S_TAIL], own * np.float32(scale)))
    assert matrix.type == BlockType.TQ2_0
    blocks = matrix.data.reshape(-1, 66)
    halves = np.ascontiguousarray(blocks[:, 64:]).view("<f2")
    if (halves != halves[0]).any():  # also where one is no number
        return None
    data = _with_tail(_MIRRORED[blocks[:, :64]], np.float32(halves[0, 0]) * np.float32(scale))
    return Matrix(BlockType.I2_S, matrix.rows, matrix.cols, data)
