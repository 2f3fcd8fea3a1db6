"""The integer codes of quantized blocks, chosen anew for the scales that blocks have.

A weight of every block type is ``offset + scale * code``, where scale and offset belong to a group
of 16 or 32 weights. Error-compensating rounding keeps a block's scales and chooses other codes:
this module shows blocks in that form. Layouts: ggml-common.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketlm.gguf import BlockType, block_bytes, block_elements, dequantize

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Field:
    """Some bits of every code: ``bits`` from bit ``low`` on, at byte ``start`` of the block.

    ``run`` neighbouring weights take the same bits of neighbouring bytes, the next ``run`` weights
    the next higher bits of the same bytes, until the bytes are full.
    """

    low: int
    bits: int
    run: int
    start: int


@dataclass(frozen=True)
class Layout:
    """How a block type keeps its codes.

    Attributes:
        group: weights that share scale and offset.
        smallest, largest: code.
        fields: where the bits of a code are.
        flip: exclusive-or between the code and what is stored (Q8_0 stores a signed byte).
    """

    group: int
    smallest: int
    largest: int
    fields: tuple[_Field, ...]
    flip: int = 0


LAYOUTS = {
    BlockType.Q4_0: Layout(32, 0, 15, (_Field(0, 4, 16, 2),)),
    BlockType.Q4_1: Layout(32, 0, 15, (_Field(0, 4, 16, 4),)),
    BlockType.Q5_0: Layout(32, 0, 31, (_Field(0, 4, 16, 6), _Field(4, 1, 1, 2))),
    BlockType.Q5_1: Layout(32, 0, 31, (_Field(0, 4, 16, 8), _Field(4, 1, 1, 4))),
    BlockType.Q8_0: Layout(32, 1, 255, (_Field(0, 8, 1, 2),), flip=0x80),
    BlockType.Q2_K: Layout(16, 0, 3, (_Field(0, 2, 32, 16),)),
    BlockType.Q3_K: Layout(16, 0, 7, (_Field(0, 2, 32, 32), _Field(2, 1, 32, 0))),
    BlockType.Q4_K: Layout(32, 0, 15, (_Field(0, 4, 32, 16),)),
    BlockType.Q5_K: Layout(32, 0, 31, (_Field(0, 4, 32, 48), _Field(4, 1, 32, 16))),
    BlockType.Q6_K: Layout(16, 0, 63, (_Field(0, 4, 64, 0), _Field(4, 2, 32, 128))),
}


def grid(type: BlockType, blocks: Bytes, rows: int) -> tuple[Floats, Floats]:
    """Scale and offset of each group: two arrays [rows, groups of a row].

    Args:
        type: one of ``LAYOUTS``.
        blocks: a matrix of ``rows`` rows, one-dimensional.
    """
    layout = LAYOUTS[type]
    count = blocks.size // block_bytes(type) * block_elements(type)

    def decoded(code: int) -> Floats:
        same = put_codes(type, blocks, np.full((rows, count // rows), code, np.uint8))
        values = dequantize(type, same, (rows, count // rows))
        return values[:, :: layout.group]

    first = layout.smallest
    offset = decoded(first)
    scale = decoded(first + 1) - offset
    return scale, offset - np.float32(first) * scale


def put_codes(type: BlockType, blocks: Bytes, codes: Codes) -> Bytes:
    """The blocks with other codes and the scales that they have.

    Args:
        type: one of ``LAYOUTS``.
        blocks: one-dimensional.
        codes: [rows, cols], from the layout's smallest to its largest.
    """
    layout = LAYOUTS[type]
    out = blocks.reshape(-1, block_bytes(type)).copy()
    stored = (codes ^ layout.flip).reshape(len(out), block_elements(type))
    for field in layout.fields:
        bits = (stored >> field.low) & ((1 << field.bits) - 1)
        per_byte = 8 // field.bits
        planes = bits.reshape(len(out), -1, per_byte, field.run)
        shifts = (np.arange(per_byte, dtype=np.uint8) * field.bits)[:, None]
        packed = np.bitwise_or.reduce(planes << shifts, axis=2).reshape(len(out), -1)
        out[:, field.start : field.start + packed.shape[1]] = packed
    return np.asarray(out.reshape(-1), np.uint8)
