"""Writing GGUF files: version 3, little-endian, one tensor at a time, all or nothing.

What `reader` reads, in the other direction: convert, quantize and copy end here. The same input
gives the same bytes. A file that was read and is written again with its metadata and tensors in
their order is byte for byte what it was, if it is one that llama.cpp's writer could have made.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pocketlm.errors import RequestError
from pocketlm.files import Write, atomic_file
from pocketlm.gguf.metadata import MAX_KEYS, Value, encode_metadata, encode_string
from pocketlm.gguf.tensors import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    check_alignment,
    padded,
)
from pocketlm.gguf.types import BlockType, tensor_nbytes

Chunk: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]
Chunks: TypeAlias = Chunk | Iterable[Chunk]

MAX_WRITTEN_NAME_BYTES = 63  # llama.cpp keeps names in 64 bytes with a zero at the end
MAX_BYTES = 1 << 60  # no shape or offset below it can overflow its field


@dataclass(frozen=True)
class TensorData:
    """One tensor to be written.

    `data` is its stored bytes: one array or bytes-like object, an iterable of such chunks, or a
    function that returns either and is called when the tensor's turn has come, so that no more than
    one tensor need be in memory. An array's bytes are taken as they lie, whatever its dtype.
    """

    name: str
    type: BlockType
    #: numpy's order
    shape: Sequence[int]
    data: Chunks | Callable[[], Chunks]


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Value],
    tensors: Iterable[TensorData],
    *,
    alignment: int | None = None,
) -> None:
    """Write a file; `path` appears, or changes, only when it is complete.

    Args:
        path: replaced if it exists.
        metadata: in this order; `pocketlm.gguf.metadata` says how values get their types.
        tensors: in this order. The list of them is taken first, their data one after the other.
        alignment: of tensor data; by default `general.alignment` of the metadata, or 32. Where it
            differs, the metadata in the file is set to it.

    Raises:
        RequestError: something that GGUF cannot hold, or data of another length than the shape's.
        CapacityError: the disk is full.
    """
    plan = list(tensors)
    entries, alignment = _aligned(metadata, alignment)
    header = _header(entries, plan, alignment)
    with atomic_file(Path(path)) as write:
        write(header)
        for tensor in plan:
            nbytes = tensor_nbytes(tensor.type, tensor.shape)
            _write_data(write, tensor, nbytes)
            write(bytes(padded(nbytes, alignment) - nbytes))


def gguf_nbytes(
    metadata: Mapping[str, Value],
    tensors: Iterable[TensorData],
    *,
    alignment: int | None = None,
) -> int:
    """Size of the file that ``write_gguf`` makes of the same; the tensors' data are not looked at.

    Raises RequestError as ``write_gguf`` does.
    """
    plan = list(tensors)
    entries, alignment = _aligned(metadata, alignment)
    sizes = (padded(tensor_nbytes(t.type, t.shape), alignment) for t in plan)
    return len(_header(entries, plan, alignment)) + sum(sizes)


def _aligned(
    metadata: Mapping[str, Value], alignment: int | None
) -> tuple[Mapping[str, Value], int]:
    stated = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if not isinstance(stated, int):
        raise RequestError(f"{ALIGNMENT_KEY} is {stated!r:.80}, expected an int")
    wanted = stated if alignment is None else alignment
    try:
        check_alignment(wanted)
    except ValueError as error:
        raise RequestError(f"the alignment is {error}") from None
    return (metadata if wanted == stated else {**metadata, ALIGNMENT_KEY: wanted}), int(wanted)


def _header(metadata: Mapping[str, Value], plan: Sequence[TensorData], alignment: int) -> bytes:
    if len(plan) > MAX_TENSORS or len(metadata) > MAX_KEYS:
        raise RequestError(
            f"{len(plan):,} tensors and {len(metadata):,} metadata keys, "
            f"expected at most {MAX_TENSORS:,} and {MAX_KEYS:,}"
        )
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(plan), len(metadata)), encode_metadata(metadata)]
    names: set[str] = set()
    offset = 0
    for tensor in plan:
        if tensor.name in names:
            raise RequestError(f"tensor {tensor.name!r} is given twice")
        names.add(tensor.name)
        nbytes = tensor_nbytes(tensor.type, tensor.shape)
        if offset + nbytes > MAX_BYTES:
            raise RequestError(f"tensor {tensor.name!r} takes {nbytes:,} bytes")
        parts.append(_encode_info(tensor, offset))
        offset += padded(nbytes, alignment)
    header = b"".join(parts)
    return header.ljust(padded(len(header), alignment), b"\0")


def _encode_info(tensor: TensorData, offset: int) -> bytes:
    shape = tuple(int(n) for n in tensor.shape)
    name = encode_string(tensor.name)
    length = len(name) - 8
    if not 0 < length <= MAX_WRITTEN_NAME_BYTES:
        raise RequestError(
            f"tensor name {tensor.name!r:.80} has {length} bytes, "
            f"expected 1 to {MAX_WRITTEN_NAME_BYTES}"
        )
    if len(shape) > MAX_DIMENSIONS:
        raise RequestError(
            f"tensor {tensor.name!r} has {len(shape)} dimensions, expected 1 to {MAX_DIMENSIONS}"
        )
    return name + struct.pack(
        f"<I{len(shape)}QIQ", len(shape), *reversed(shape), tensor.type, offset
    )


def _write_data(write: Write, tensor: TensorData, nbytes: int) -> None:
    data = tensor.data() if callable(tensor.data) else tensor.data
    chunks = [data] if isinstance(data, bytes | bytearray | memoryview | np.ndarray) else data
    written = 0
    for chunk in chunks:
        view = _bytes_of(chunk)
        written += view.nbytes
        if written > nbytes:
            break
        write(view)
    if written != nbytes:
        more = "at least " if written > nbytes else ""
        raise RequestError(
            f"tensor {tensor.name!r} takes {nbytes:,} bytes as {tensor.type.name} "
            f"{tuple(tensor.shape)}, its data has {more}{written:,}"
        )


def _bytes_of(chunk: Chunk) -> memoryview:
    if isinstance(chunk, np.ndarray):
        return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
    return memoryview(chunk).cast("B")
