"""Writing safetensors: one file, or shards and the index that names the file of each tensor.

The writing direction of ``models.safetensors``, tensor by tensor, so that a model of any size
passes through the memory of one. Header: JSON of ``name: {dtype, shape, data_offsets}``, padded
with spaces to 8 bytes; the metadata ``format: pt`` is what transformers asks for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketlm.files import atomic_file
from pocketlm.models.sources import Bytes

SHARD_BYTES = 5_000_000_000
_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}


@dataclass(frozen=True)
class SafeTensor:
    """One tensor to be written; ``chunks`` gives its bytes, little-endian, when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Bytes]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _SIZES[self.dtype]


def shards(tensors: Sequence[SafeTensor], limit: int) -> list[list[SafeTensor]]:
    """The tensors in order, in groups of at most ``limit`` bytes, or of one tensor."""
    groups: list[list[SafeTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    return groups


def write_safetensors(
    folder: Path, tensors: Sequence[SafeTensor], *, limit: int = SHARD_BYTES
) -> list[Path]:
    """Write the tensors into ``folder``; the files' paths.

    Raises:
        CapacityError: the disk is full.
    """
    groups = shards(tensors, limit)
    if len(groups) == 1:
        path = folder / "model.safetensors"
        _write_file(path, groups[0])
        return [path]
    paths = []
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        path = folder / f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _write_file(path, group)
        paths.append(path)
        weight_map |= dict.fromkeys((tensor.name for tensor in group), path.name)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)},
        "weight_map": weight_map,
    }
    with atomic_file(folder / "model.safetensors.index.json") as write:
        write(json.dumps(index, indent=2).encode())
    return paths


def _write_file(path: Path, tensors: Sequence[SafeTensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with atomic_file(path) as write:
        write(len(text).to_bytes(8, "little"))
        write(text)
        for tensor in tensors:
            written = 0
            for chunk in tensor.chunks():
                write(chunk.data)
                written += chunk.nbytes
            assert written == tensor.nbytes, tensor.name
