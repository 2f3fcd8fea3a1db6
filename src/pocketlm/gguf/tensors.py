"""The list of tensors in a GGUF file: names, types, shapes, and where the bytes are.

Read after the metadata (which may set the alignment), before any weight. Checks everything that
later code relies on: a TensorInfo that exists describes bytes that exist and are nobody else's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf.cursor import Cursor
from pocketlm.gguf.metadata import Value, ValueType, value_type
from pocketlm.gguf.types import BlockType, block_elements, block_type, tensor_nbytes

MAX_TENSORS = 1 << 17
MAX_NAME_BYTES = 64
MAX_DIMENSIONS = 4
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MIN_ALIGNMENT = 8  # the specification wants a multiple of 8
MAX_ALIGNMENT = 1 << 20

SMALLEST_INFO = 8 + 1 + 4 + 8 + 4 + 8  # name length, name, n_dims, one dimension, type, offset


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about one tensor."""

    name: str
    type: BlockType
    #: numpy's order, slowest first: a matrix is (rows = out_features, cols = in_features)
    shape: tuple[int, ...]
    #: absolute, in the file
    offset: int
    nbytes: int
    #: which file of a split set
    part: int = 0


def check_alignment(alignment: int) -> None:
    """Raises ValueError that says what is wrong."""
    if alignment & (alignment - 1) or not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT:
        raise ValueError(
            f"{alignment:,}, expected a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT:,}"
        )


def read_alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    """`general.alignment`, 32 where it is absent; a u32 and a power of two."""
    value = metadata.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    found = value_type(value)
    if found is not ValueType.UINT32 or not isinstance(value, int):
        raise cursor.error(f"{ALIGNMENT_KEY} is a {found.name}, expected a UINT32")
    try:
        check_alignment(value)
    except ValueError as error:
        raise cursor.error(f"{ALIGNMENT_KEY} is {error}") from None
    return value


def padded(offset: int, alignment: int) -> int:
    """The next multiple of `alignment` that is not below `offset`."""
    return (offset + alignment - 1) // alignment * alignment


def read_tensor_infos(cursor: Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    """`count` entries from the cursor on, with absolute offsets, in the file's order.

    Raises:
        ModelFileError: an entry breaks the format, or its bytes are not all there or shared.
        UnsupportedError: a block type of another program.
    """
    entries: dict[str, _Entry] = {}
    for index in range(count):
        at = cursor.offset
        name = cursor.string(f"name of tensor {index}", limit=MAX_NAME_BYTES)
        if not name:
            raise cursor.error(f"the name of tensor {index} is empty", at=at)
        if name in entries:
            raise cursor.error(f"tensor {name!r} stands twice in the file", at=at)
        entries[name] = _read_entry(cursor, name)
    base = padded(cursor.offset, alignment)
    infos = {name: _placed(cursor, name, e, base, alignment) for name, e in entries.items()}
    _check_overlaps(cursor, infos)
    return infos


@dataclass(frozen=True)
class _Entry:
    type: BlockType
    shape: tuple[int, ...]
    nbytes: int
    relative: int
    offset_at: int  # where in the file its offset is written, for errors


def _read_entry(cursor: Cursor, name: str) -> _Entry:
    what = f"tensor {name!r}"
    at = cursor.offset
    n_dims = cursor.u32(f"n_dims of {what}")
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        raise cursor.error(
            f"{what} has {n_dims:,} dimensions, expected 1 to {MAX_DIMENSIONS}", at=at
        )
    at = cursor.offset
    shape = tuple(cursor.u64(f"shape of {what}") for _ in range(n_dims))[::-1]
    type_at = cursor.offset
    type = _read_type(cursor, what)
    if 0 in shape:
        raise cursor.error(f"{what} has a zero dimension: {shape}", at=at)
    weights = math.prod(shape)
    if weights >= 1 << 63:
        raise cursor.error(f"{what} has more than 2^63 weights: {shape}", at=at)
    elements = block_elements(type)
    if shape[-1] % elements:
        raise cursor.error(
            f"{what} has rows of {shape[-1]:,} weights, "
            f"not a whole number of {type.name} blocks of {elements}",
            at=type_at,
        )
    at = cursor.offset
    relative = cursor.u64(f"offset of {what}")
    return _Entry(type, shape, tensor_nbytes(type, shape), relative, at)


def _read_type(cursor: Cursor, what: str) -> BlockType:
    at = cursor.offset
    try:
        return block_type(cursor.u32(f"type of {what}"))
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{what}: {error.message}", path=cursor.path, offset=at, hint=error.hint
        ) from None
    except ModelFileError as error:
        if error.path is not None:
            raise
        raise cursor.error(f"{what}: {error.message}", at=at, hint=error.hint) from None


def _placed(cursor: Cursor, name: str, entry: _Entry, base: int, alignment: int) -> TensorInfo:
    if entry.relative % alignment:
        raise cursor.error(
            f"tensor {name!r} has offset {entry.relative:,}, not a multiple of {alignment}",
            at=entry.offset_at,
        )
    offset = base + entry.relative
    if offset + entry.nbytes > cursor.size:
        raise cursor.error(
            f"tensor {name!r} ends at byte {offset + entry.nbytes:,}, "
            f"but the file has {cursor.size:,} bytes",
            at=entry.offset_at,
            hint="The file is probably incomplete.",
        )
    return TensorInfo(name, entry.type, entry.shape, offset, entry.nbytes)


def check_i2_s(
    architecture: Value | None,
    infos: Mapping[str, TensorInfo],
    *,
    size: int,
    alignment: int,
    path: Path,
) -> None:
    """Refuses what has type 36 and is not I2_S.

    bitnet.cpp gave the id of ggml's removed IQ4_NL_4_4 to I2_S. The one stands in files of BitNet
    models only; the other takes 18 bytes for 32 weights, so its tensors lie further apart.

    Args:
        architecture: ``general.architecture``; without one, only the sizes count.
        infos: of one file, which has ``size`` bytes.

    Raises:
        UnsupportedError: naming such a tensor.
    """
    bitnet = architecture is None or str(architecture).startswith("bitnet")
    end = size
    for info in sorted(infos.values(), key=lambda info: info.offset, reverse=True):
        room, end = end - info.offset, info.offset
        if info.type is not BlockType.I2_S:
            continue
        fits = room < max(info.nbytes + alignment, math.prod(info.shape) // 32 * 18)
        if not fits or not bitnet:
            raise UnsupportedError(
                f"tensor {info.name!r} has block type 36, which is I2_S in BitNet models and "
                "IQ4_NL_4_4, a type that ggml has removed, in old files; this is not I2_S",
                path=path,
                hint="Convert the model anew from its original weights.",
            )


def _check_overlaps(cursor: Cursor, infos: Mapping[str, TensorInfo]) -> None:
    before: TensorInfo | None = None
    for info in sorted(infos.values(), key=lambda info: info.offset):
        if before is not None and info.offset < before.offset + before.nbytes:
            raise cursor.error(
                f"tensor {info.name!r} shares bytes with tensor {before.name!r}", at=info.offset
            )
        before = info
