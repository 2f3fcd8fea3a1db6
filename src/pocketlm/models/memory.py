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

# Packed bytes of 256 columns of a panel: codes + scales + super-block scales, each 16 rows wide.
_PANEL_BYTES = {
    BlockType.F32: 256 * 16 * 4,
    BlockType.F16: 256 * 16 * 2,
    BlockType.BF16: 256 * 16 * 2,
    BlockType.Q4_0: 2048 + 8 * 32,
    BlockType.Q4_1: 2048 + 8 * 64,
    BlockType.Q5_0: 2560 + 8 * 32,
    BlockType.Q5_1: 2560 + 8 * 64,
    BlockType.Q8_0: 4096 + 8 * 32,
    BlockType.Q2_K: 1024 + 16 * 16 + 64,
    BlockType.Q3_K: 1536 + 16 * 16 + 32,
    BlockType.Q4_K: 2048 + 8 * 32 + 64,
    BlockType.Q5_K: 2560 + 8 * 32 + 64,
    BlockType.Q6_K: 3072 + 16 * 16 + 32,
    BlockType.TQ1_0: 1024 + 32,
    BlockType.TQ2_0: 1024 + 32,
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
    """Packed size of all matrices, within the core's alignment (under 0.1 % for real models)."""
    total = 0
    for name, shape in spec.program.shapes().items():
        if len(shape) == 2:
            panels = -(-shape[0] // _PANEL)
            total += panels * _PANEL_BYTES[spec.source.type(name)] * shape[1] // 256
    return total
