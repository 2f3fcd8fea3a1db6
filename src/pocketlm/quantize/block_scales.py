"""The float16 fields of quantized blocks, and the weights as a linear function of them.

A weight of every block type here is ``scale * u + minimum * v``: ``scale`` and ``minimum`` are
float16 numbers at fixed places of the block (d; m or dmin), u and v are small integers made of
codes and sub-scales. So u is what a block decodes to with the fields 1 and 0, v with 0 and 1, and
nothing else need be known of a type's layout than where its fields are. Distillation tunes the
fields and leaves everything else of a file alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketlm.gguf import BlockType, block_bytes, block_elements, dequantize

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.signedinteger]
Bytes = npt.NDArray[np.uint8]

V_RUN = 16  # weights that share a minimum's factor: the finest sub-block of any type

# A type: byte offsets of its scale and of its minimum in a block (`ggml-common.h`)
_FIELDS: dict[BlockType, tuple[int, int | None]] = {
    BlockType.Q4_0: (0, None),
    BlockType.Q4_1: (0, 2),
    BlockType.Q5_0: (0, None),
    BlockType.Q5_1: (0, 2),
    BlockType.Q8_0: (0, None),
    BlockType.Q2_K: (80, 82),
    BlockType.Q3_K: (108, None),
    BlockType.Q4_K: (0, 2),
    BlockType.Q5_K: (0, 2),
    BlockType.Q6_K: (208, None),
}
TUNABLE = frozenset(_FIELDS)


@dataclass(frozen=True)
class Factors:
    """A matrix [rows, cols] of one of the ``TUNABLE`` types, taken apart.

    Attributes:
        type: its block type.
        scale: float32 [rows, blocks], exactly the file's float16 values.
        minimum: the same, None for a type without.
        u: integers [rows, cols], int8 or int16.
        v: int8 [rows, cols / V_RUN], None for a type without a minimum; 16 neighbours share one.
    """

    type: BlockType
    scale: Floats
    minimum: Floats | None
    u: Integers
    v: Integers | None


def factorize(type: BlockType, data: Bytes, rows: int, cols: int) -> Factors:
    """Takes the blocks of a matrix [rows, cols] apart; ``data`` is one-dimensional."""
    scale_at, minimum_at = _FIELDS[type]
    blocks = data.reshape(-1, block_bytes(type)).copy()
    shape = (rows, cols // block_elements(type))
    scale = _field(blocks, scale_at).astype(np.float32).reshape(shape)
    _field(blocks, scale_at)[:] = 1
    if minimum_at is None:
        return Factors(type, scale, None, _integers(type, blocks, rows, cols), None)
    minimum = _field(blocks, minimum_at).astype(np.float32).reshape(shape)
    _field(blocks, minimum_at)[:] = 0
    u = _integers(type, blocks, rows, cols)
    _field(blocks, scale_at)[:] = 0
    _field(blocks, minimum_at)[:] = 1
    v = _integers(type, blocks, rows, cols)[:, ::V_RUN].copy()
    return Factors(type, scale, minimum, u, v)


def with_fields(type: BlockType, data: Bytes, scale: Floats, minimum: Floats | None) -> Bytes:
    """A copy of the blocks with other fields, rounded to float16; ``data`` is one-dimensional.

    A number too large for float16 is clipped to its largest.
    """
    scale_at, minimum_at = _FIELDS[type]
    blocks = data.reshape(-1, block_bytes(type)).copy()
    _field(blocks, scale_at)[:] = _to_float16(scale)
    if minimum_at is not None:
        assert minimum is not None
        _field(blocks, minimum_at)[:] = _to_float16(minimum)
    return blocks.reshape(-1)


def _to_float16(values: Floats) -> npt.NDArray[np.float16]:
    largest = float(np.finfo(np.float16).max)
    return np.clip(values, -largest, largest).astype(np.float16).reshape(-1)


def _field(blocks: Bytes, offset: int) -> npt.NDArray[np.float16]:
    """The float16 at ``offset`` of every block: a writable view [blocks]."""
    return blocks[:, offset : offset + 2].view("<f2")[:, 0]


def _integers(type: BlockType, blocks: Bytes, rows: int, cols: int) -> Integers:
    values = dequantize(type, blocks.reshape(-1), (rows, cols))
    fits = values.min() >= -128 and values.max() <= 127
    return values.astype(np.int8 if fits else np.int16)
