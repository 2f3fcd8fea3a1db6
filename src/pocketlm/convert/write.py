"""A stream as a GGUF file of floats: every matrix in one type, vectors in float32.

What needs no quantizer is written here: F32, F16 and BF16, or each tensor as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pocketlm.convert.floats import FLOAT_TYPES, recoded
from pocketlm.convert.space import require_space
from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.gguf import BlockType, TensorData, Value, tensor_nbytes, write_gguf
from pocketlm.gguf.file_types import FILE_TYPE_IDS, FILE_TYPE_KEY
from pocketlm.models.sources import Bytes
from pocketlm.progress import Progress, ProgressCallback, silent

# What a folder's weights can be: types that say alone what kind of file it is.
_KINDS = {BlockType.F32, BlockType.F16, BlockType.BF16, BlockType.TQ2_0}


@dataclass(frozen=True)
class WrittenFile:
    """What was written: the type of most weights, tensors, and bytes of weights."""

    path: Path
    type: BlockType
    tensors: int
    nbytes: int


def write_floats(
    stream: TensorStream,
    out: Path,
    *,
    type: BlockType | None = None,
    extra_metadata: Mapping[str, Value] | None = None,
    progress: ProgressCallback = silent,
) -> WrittenFile:
    """Write ``out``, which appears when it is complete.

    Args:
        stream: an open one.
        out: replaced if it is there.
        type: F32, F16 or BF16 for all matrices; None leaves each tensor in its own type.
        extra_metadata: set over the stream's and over the file type that is made out.
        progress: in bytes of the file's weights.

    Raises:
        ModelFileError: a weight is no finite number, or too large for float16.
        CapacityError: the disk is full.
    """
    types = {tensor.name: _type_of(tensor, type) for tensor in stream.tensors}
    total = sum(tensor_nbytes(types[tensor.name], tensor.shape) for tensor in stream.tensors)
    require_space(out.absolute().parent, total)
    done = 0
    name = stream.metadata.get("general.name", stream.path.name)

    def chunks(tensor: StreamTensor) -> Iterator[Bytes]:
        nonlocal done
        for chunk in _chunks(stream, tensor, types[tensor.name]):
            yield chunk
            done += chunk.nbytes
            progress(Progress(f"convert {name}", done, total))
        tensor.release()

    most = _most(stream, types)
    kind: dict[str, Value] = {FILE_TYPE_KEY: FILE_TYPE_IDS[most.name]} if most in _KINDS else {}
    metadata = {**stream.metadata, **kind, **(extra_metadata or {})}
    data = [TensorData(t.name, types[t.name], t.shape, partial(chunks, t)) for t in stream.tensors]
    write_gguf(out, metadata, data)
    return WrittenFile(out, most, len(data), total)


def _type_of(tensor: StreamTensor, wanted: BlockType | None) -> BlockType:
    if wanted is None or len(tensor.shape) == 1:
        return tensor.type
    return wanted


def _most(stream: TensorStream, types: Mapping[str, BlockType]) -> BlockType:
    counts: Counter[BlockType] = Counter()
    for tensor in stream.tensors:
        counts[types[tensor.name]] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0]


def _chunks(stream: TensorStream, tensor: StreamTensor, to: BlockType) -> Iterator[Bytes]:
    if tensor.type == to and to not in FLOAT_TYPES:
        yield tensor.read()  # blocks are copied as they are
        return
    yield from recoded(
        tensor.read(), tensor.type, tensor.shape, to, name=tensor.name, path=stream.path
    )
