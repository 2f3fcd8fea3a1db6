"""Ternary matrices: the forms that BitNet checkpoints keep them in, and how they are packed here.

A ternary matrix is codes -1, 0, 1 times one scale. The core's form of it is TQ2_0: 2 bits a code
and a float16 scale per 256 columns. That is exact when float16 holds the scale, which it does for
every bfloat16 scale of ordinary size. Where it does not, the matrix stays in float32 rows, unless
the checkpoint itself is in 16 bits (the inverse of a bfloat16 scale): then the scale is only known
to 2^-9 anyway, and float16's 2^-12 adds nothing that matters beside 8-bit activations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pocketlm.gguf import BlockType
from pocketlm.models.sources import Bytes, Floats, Matrix

Codes = npt.NDArray[np.int8]

_BLOCK = 256
_F16_ROUNDING = 2.0**-11


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


def ternary_matrix(codes: Codes, scale: float, *, exact: bool) -> Matrix:
    """The matrix codes * scale in the smallest form that holds it.

    Args:
        codes: [rows, cols] of -1, 0, 1.
        scale: of all codes.
        exact: whether a scale that float16 would round keeps the matrix in float32.
    """
    with np.errstate(over="ignore"):
        half = np.float16(scale)
    error = abs(float(half) - scale)
    fits = error == 0 if exact else error <= _F16_ROUNDING * abs(scale)
    rows, cols = codes.shape
    if not fits_blocks((rows, cols)) or not fits or codes.max(initial=0) > 1:
        return float_matrix(codes.astype(np.float32) * np.float32(scale))
    return Matrix(BlockType.TQ2_0, rows, cols, tq2_0(codes, half))


def fits_blocks(shape: tuple[int, ...]) -> bool:
    """Whether the rows of a matrix of this shape are whole TQ2_0 blocks."""
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
