"""Models small enough to be made anew in each test."""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np


@lru_cache
def gguf(seed: int = 0, *, floats: int = 50_000) -> bytes:
    """A GGUF of one matrix and rope factors, about ``4 * floats`` bytes that do not compress."""
    from pocketlm.gguf import BlockType, TensorData, write_gguf

    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(floats).astype(np.float32)
    factors = np.ones(4, dtype=np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder, "tiny.gguf")
        write_gguf(
            path,
            {
                "general.architecture": "llama",
                "general.license": "mit",
                "general.file_type": 0,
                "general.name": f"tiny {seed}",
            },
            [
                TensorData("token_embd.weight", BlockType.F32, (floats // 10, 10), weight),
                TensorData("rope_freqs.weight", BlockType.F32, (4,), factors),
            ],
        )
        return path.read_bytes()


def safetensors(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """A safetensors file of zeros: name -> (dtype, shape)."""
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "U32": 4}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + int(np.prod(shape)) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)
