"""How much memory a model will take, before any of it is taken.

Weights are counted in the core's packed layouts (``native/pack/layout.h`` is where the sizes come
from), the KV cache from the configuration. Once an executor exists, its ``requirements`` are exact,
workspace included; this is for the decision whether to build one, and for advice.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketlm.gguf import BlockType
from pocketlm.models.config import ModelConfig
from pocketlm.models.spec import ModelSpec

_PANEL = 16  # rows interleaved
_PAGE = 32  # positions per KV page
KV_BYTES = {"f16": 2, "f32": 4}

# Bytes of a panel, for each 32 columns codes and scales, and for each 256 the super-blocks' scales.
_PANEL_BYTES = {
    BlockType.F32: (32 * 64, 0),
    BlockType.F16: (32 * 32, 0),
    BlockType.BF16: (32 * 32, 0),
    BlockType.Q4_0: (256 + 32, 0),
    BlockType.Q4_1: (256 + 64, 0),
    BlockType.Q5_0: (320 + 32, 0),
    BlockType.Q5_1: (320 + 64, 0),
    BlockType.Q8_0: (512 + 32, 0),
    BlockType.Q2_K: (128 + 2 * 16, 64),
    BlockType.Q3_K: (192 + 2 * 16, 32),
    BlockType.Q4_K: (256 + 32, 64),
    BlockType.Q5_K: (320 + 32, 64),
    BlockType.Q6_K: (384 + 2 * 16, 32),
    BlockType.TQ1_0: (128, 32),
    BlockType.TQ2_0: (128, 32),
}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of packed weights and of the KV cache."""

    weights: int
    kv: int


def estimate(spec: ModelSpec, *, positions: int, kv: str = "f16") -> MemoryEstimate:
    """Bytes for ``positions`` cached positions (rounded up to pages), KV in "f16" or "f32"."""
    return MemoryEstimate(weight_bytes(spec), kv_bytes(spec.config, positions, kv))


def kv_bytes(config: ModelConfig, positions: int, kv: str = "f16") -> int:
    pages = -(-positions // _PAGE)
    return pages * _PAGE * config.kv_elements * KV_BYTES[kv]


def weight_bytes(spec: ModelSpec) -> int:
    """Packed size of all matrices."""
    total = 0
    for name, shape in spec.program.shapes().items():
        if len(shape) == 2:
            per_block, per_super = _PANEL_BYTES[spec.source.type(name)]
            blocks = _aligned(shape[1] * per_block // 32)
            panel = _aligned(blocks + shape[1] // 256 * per_super)
            total += -(-shape[0] // _PANEL) * panel
    return total


def _aligned(size: int) -> int:
    """The core aligns each stream of a panel to a cache line."""
    return -(-size // 64) * 64
