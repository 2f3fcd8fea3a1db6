"""Model files that exist only as metadata: enough for everything that happens before weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pocketlm.gguf import BlockType

PATH = Path("synthetic.gguf")

# A small model that every GGUF family accepts with its own architecture put before the keys.
KEYS: dict[str, Any] = {
    "block_count": 2,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.sliding_window": 16,
}
VOCAB = 100


@dataclass(frozen=True)
class Info:
    shape: tuple[int, ...]
    type: BlockType = BlockType.F32


@dataclass
class SyntheticFile:
    """What ``GGUFFile`` shows of a file, with zeros for data."""

    metadata: dict[str, Any]
    tensors: dict[str, Info]
    values: dict[str, list[float]] = field(default_factory=dict)
    path: Path = PATH
    closed: bool = False

    def tensor(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        values = self.values.get(name)
        if values is not None:
            return np.array(values, dtype=np.float32)
        return np.zeros(self.tensors[name].shape, dtype=np.float32)

    def tensor_bytes(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.zeros(4 * math.prod(self.tensors[name].shape), dtype=np.uint8)

    def release_pages(self) -> None:
        """There are none."""

    def close(self) -> None:
        self.closed = True


def layer_shapes(arch: str, hidden: int, heads: int, kv: int, head_dim: int, ffn: int) -> Any:
    """Shapes of one layer's tensors, as the architecture's files have them."""
    shapes = {
        "attn_norm.weight": (hidden,),
        "attn_q.weight": (heads * head_dim, hidden),
        "attn_k.weight": (kv * head_dim, hidden),
        "attn_v.weight": (kv * head_dim, hidden),
        "attn_output.weight": (hidden, heads * head_dim),
        "ffn_norm.weight": (hidden,),
        "ffn_gate.weight": (ffn, hidden),
        "ffn_up.weight": (ffn, hidden),
        "ffn_down.weight": (hidden, ffn),
    }
    if arch == "qwen2":
        shapes |= {f"attn_{n}.bias": (shapes[f"attn_{n}.weight"][0],) for n in "qkv"}
    if arch in ("qwen3", "gemma3"):
        shapes |= {"attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,)}
    if arch == "gemma3":
        shapes |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    if arch == "phi3":
        rows = sum(shapes.pop(f"attn_{n}.weight")[0] for n in "qkv")
        shapes |= {"attn_qkv.weight": (rows, hidden), "ffn_up.weight": (2 * ffn, hidden)}
        del shapes["ffn_gate.weight"]
    if arch.startswith("bitnet"):
        shapes |= {"attn_sub_norm.weight": (heads * head_dim,), "ffn_sub_norm.weight": (ffn,)}
    return shapes


def gguf(
    arch: str = "llama",
    changes: Mapping[str, Any] | None = None,
    *,
    top: Mapping[str, Any] | None = None,
    drop: Iterable[str] = (),
    tensors: Mapping[str, Info] | None = None,
) -> SyntheticFile:
    """A file of one architecture; a change to None removes a key, ``drop`` removes tensors."""
    metadata: dict[str, Any] = {"general.architecture": arch}
    metadata |= {f"{arch}.{key}": value for key, value in {**KEYS, **(changes or {})}.items()}
    metadata = {k: v for k, v in (metadata | dict(top or {})).items() if v is not None}
    infos = {"token_embd.weight": Info((VOCAB, 64)), "output_norm.weight": Info((64,))}
    for i in range(2):
        for name, shape in layer_shapes(arch, 64, 4, 2, 16, 96).items():
            infos[f"blk.{i}.{name}"] = Info(shape)
    infos |= tensors or {}
    for name in drop:
        del infos[name]
    return SyntheticFile(metadata, infos)
