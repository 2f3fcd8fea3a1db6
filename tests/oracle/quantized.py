"""Random matrices in every block type, for the quantized tiny models.

The gguf package quantizes the simple types. For the K types it only decodes, so their blocks are
made of random bits, with super-block scales that bring the decoded weights to the size wanted.
"""

from __future__ import annotations

from typing import Any

import gguf as gguf_py
import numpy as np

from pocketlm.gguf import BlockType

Array = np.ndarray[Any, np.dtype[Any]]

# Where the float16 super-block scales of a block stand, and what they are to each other: the scale
# of the minimum is the mean code, so that the weights have a mean of zero.
_SCALES_AT = {
    BlockType.Q2_K: {80: 1.0, 82: 1.5},
    BlockType.Q3_K: {108: 1.0},
    BlockType.Q4_K: {0: 1.0, 2: 7.5},
    BlockType.Q5_K: {0: 1.0, 2: 15.5},
    BlockType.Q6_K: {208: 1.0},
}


def quantize(values: Array, type: BlockType, seed: int) -> tuple[Array, Array]:
    """Blocks (uint8, flat) of about ``values``, or of their size only, and what they decode to."""
    kind = gguf_py.GGMLQuantizationType(int(type))
    if type not in _SCALES_AT:
        blocks = gguf_py.quants.quantize(values, kind)
    else:
        blocks = _random_blocks(values, type, seed)
    decoded = gguf_py.quants.dequantize(blocks, kind).astype(np.float32)
    return np.ascontiguousarray(blocks).view(np.uint8).reshape(-1), decoded.reshape(values.shape)


def _random_blocks(values: Array, type: BlockType, seed: int) -> Array:
    kind = gguf_py.GGMLQuantizationType(int(type))
    _, size = gguf_py.GGML_QUANT_SIZES[kind]
    rows, cols = values.shape
    blocks = np.random.default_rng(seed).integers(0, 256, (rows, cols // 256, size), dtype=np.uint8)
    flat, scale = blocks.reshape(rows, -1), 1.0
    for _ in range(2):
        for at, factor in _SCALES_AT[type].items():
            half = np.float16(scale * factor)
            blocks[:, :, at : at + 2] = np.frombuffer(half.tobytes(), dtype=np.uint8)
        scale *= values.std() / gguf_py.quants.dequantize(flat, kind).std()
    return flat
