"""A stand-in for an original: a quantized file expanded to F16 with dither.

    python benchmarks/stand_in.py MODEL.gguf OUT.gguf [--seed 1]

Where the unquantized weights of a real model are not at hand, quantizers can still be compared on
this: each quantized weight gets seeded uniform noise of up to half a quantization step, as much as
rounding may have taken, so that no quantizer can simply find the old grid again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketlm.gguf import BlockType, GGUFFile, TensorData, block_bytes, dequantize, write_gguf

_F16 = 1  # general.file_type: mostly F16
# Where a block keeps the low bits of its codes, and the byte that says code 1 for each of them.
_CODES = {
    BlockType.Q4_0: (slice(2, 18), 0x11),
    BlockType.Q4_1: (slice(4, 20), 0x11),
    BlockType.Q5_0: (slice(6, 22), 0x11),
    BlockType.Q5_1: (slice(8, 24), 0x11),
    BlockType.Q8_0: (slice(2, 34), 0x01),
    BlockType.Q2_K: (slice(16, 80), 0x55),
    BlockType.Q3_K: (slice(32, 96), 0x55),
    BlockType.Q4_K: (slice(16, 144), 0x11),
    BlockType.Q5_K: (slice(48, 176), 0x11),
    BlockType.Q6_K: (slice(0, 128), 0x11),
}


def steps(file: GGUFFile, name: str) -> NDArray[np.float32]:
    """The distance of neighbouring codes for each weight, in the tensor's shape."""
    info = file.tensors[name]
    where, one = _CODES[info.type]
    blocks = file.tensor_bytes(name).reshape(-1, block_bytes(info.type)).copy()
    blocks[:, where] = 0
    zeros = dequantize(info.type, blocks.reshape(-1), info.shape)
    blocks[:, where] = one
    return np.abs(dequantize(info.type, blocks.reshape(-1), info.shape) - zeros)


def expanded(file: GGUFFile, name: str, rng: np.random.Generator) -> TensorData:
    """A quantized tensor as dithered F16, any other as it is."""
    info = file.tensors[name]
    if info.type not in _CODES:
        return TensorData(name, info.type, info.shape, file.tensor_bytes(name))
    noise = rng.random(info.shape, dtype=np.float32) - np.float32(0.5)
    values = file.tensor(name) + noise * steps(file, name)
    return TensorData(name, BlockType.F16, info.shape, values.astype(np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with GGUFFile.open(options.model) as file:
        metadata = {**file.metadata, "general.file_type": _F16}
        write_gguf(options.out, metadata, [expanded(file, name, rng) for name in file.tensors])


if __name__ == "__main__":
    main()
