"""Which block type each tensor of a file gets: the published mixes behind names like ``Q4_K_M``.

Attention values and the second matrix of the feed-forward block suffer most from rounding, and so
do the output matrix and the first and last layers; a mix gives them more bits. The rules are
llama.cpp's (``llama-quant.cpp``, build 11434), for the architectures that PocketLM knows, so that a
file of a name has the size that its name promises. Held to llama.cpp by tests/oracle/test_mix.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pocketlm.gguf import BlockType, block_elements

Q2_K, Q3_K, Q4_K = BlockType.Q2_K, BlockType.Q3_K, BlockType.Q4_K
Q5_K, Q6_K = BlockType.Q5_K, BlockType.Q6_K

# Where rows are no whole number of blocks of 256: a type of blocks of 32 with as many bits or more.
FALLBACKS = {
    BlockType.Q2_K: BlockType.Q4_0,
    BlockType.Q3_K: BlockType.Q4_0,
    BlockType.Q4_K: BlockType.Q5_0,
    BlockType.Q5_K: BlockType.Q5_1,
    BlockType.Q6_K: BlockType.Q8_0,
    BlockType.TQ1_0: BlockType.Q4_0,
    BlockType.TQ2_0: BlockType.Q4_0,
}
_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_NEVER = ("_norm.weight", "ffn_gate_inp.weight")


@dataclass(frozen=True)
class Shape:
    """What a mix needs to know of a model.

    Attributes:
        layers: how many.
        queries_per_kv: query heads that share one KV head.
        tied: whether the embedding is the output matrix.
    """

    layers: int
    queries_per_kv: int
    tied: bool


def quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a weight matrix: vectors, norms and gates stay as they are."""
    return len(shape) >= 2 and name.endswith("weight") and not name.endswith(_NEVER)


def fitting(type: BlockType, cols: int) -> BlockType:
    """``type``, or what takes its place where rows of ``cols`` weights are no whole blocks."""
    if cols % block_elements(type):
        type = FALLBACKS.get(type, BlockType.F16)
    return BlockType.F16 if cols % block_elements(type) else type


def mixed(
    file_type: str, base: BlockType, name: str, cols: int, model: Shape, *, has_importance: bool
) -> BlockType:
    """The type that the mix ``file_type`` gives to a weight matrix, before ``fitting``."""
    if name == "output.weight" or (name == "token_embd.weight" and model.tied):
        if cols % block_elements(base) or base == BlockType.Q8_0:
            return BlockType.Q8_0
        return Q6_K
    if name == "token_embd.weight":
        return Q4_K if base in (BlockType.TQ1_0, BlockType.TQ2_0) else base
    match = _LAYER.fullmatch(name)
    if match is None:
        return base
    layer, kind = int(match[1]), match[2]
    if kind in ("attn_v.weight", "attn_qkv.weight"):
        return _attention_values(file_type, base, layer, model)
    if kind == "ffn_down.weight":
        return _feed_forward_down(file_type, base, layer, model, has_importance)
    if kind == "attn_output.weight":
        return {"Q2_K": Q3_K, "Q3_K_M": Q4_K, "Q3_K_L": Q5_K}.get(file_type, base)
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _attention_values(file_type: str, base: BlockType, layer: int, model: Shape) -> BlockType:
    match file_type:
        case "Q2_K":
            return Q4_K if model.queries_per_kv >= 4 else Q3_K
        case "Q2_K_S" if model.queries_per_kv >= 4:
            return Q4_K
        case "Q3_K_M":
            return Q5_K if layer < 2 else Q4_K
        case "Q3_K_L":
            return Q5_K
        case "Q4_K_S" if layer < 4:
            return Q5_K
        case "Q4_K_M" | "Q5_K_M" if _more_bits(layer, model.layers):
            return Q6_K
    return base


def _feed_forward_down(
    file_type: str, base: BlockType, layer: int, model: Shape, has_importance: bool
) -> BlockType:
    early = layer < model.layers // 8
    match file_type:
        case "Q2_K":
            return Q3_K
        case "Q2_K_S" if early:
            return Q4_K
        case "Q3_K_M":
            return Q5_K if layer < model.layers // 16 else Q4_K
        case "Q3_K_L":
            return Q5_K
        case "Q4_K_S" if early:
            return Q5_K
        case "Q4_K_M" | "Q5_K_M" if _more_bits(layer, model.layers):
            return Q6_K
        case "Q4_0" if early and has_importance:
            return BlockType.Q4_1
        case "Q5_0" if early and has_importance:
            return BlockType.Q5_1
    return base
