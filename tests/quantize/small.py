"""Small random models in real GGUF files, wide enough for K types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.synthetic import layer_shapes
from pocketlm.gguf import BlockType, TensorData, write_gguf

HIDDEN = 256
FFN = 512
VOCAB = 96


def write_model(path: Path, arch: str = "llama", *, layers: int = 2, seed: int = 0) -> Path:
    """A model with 4 heads over 2 KV heads of 64; weights about as large as trained ones."""
    rng = np.random.default_rng(seed)
    keys: dict[str, Any] = {
        "block_count": layers,
        "context_length": 512,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.sliding_window": 16,
        "rope.dimension_count": 64,
        "rope.freq_base": 10000.0,
    }
    metadata: dict[str, Any] = {"general.architecture": arch}
    metadata |= {f"{arch}.{key}": value for key, value in keys.items()}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
    for i in range(layers):
        for name, shape in layer_shapes(arch, HIDDEN, 4, 2, 64, FFN).items():
            shapes[f"blk.{i}.{name}"] = shape
    write_gguf(path, metadata, [_tensor(rng, name, shape) for name, shape in shapes.items()])
    return path


def _tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> TensorData:
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        values = 1 + values / 10
    elif name != "token_embd.weight":
        values /= np.float32(np.sqrt(shape[-1]))
    return TensorData(name, BlockType.F32, shape, values)


def random_tokens(
    sequences: int, length: int, seed: int = 1
) -> np.ndarray[Any, np.dtype[np.int32]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, VOCAB, (sequences, length), dtype=np.int32)
