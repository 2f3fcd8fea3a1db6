"""Weights of any type as F32, F16 or BF16, a few rows at a time.

What is written without being quantized passes through here: conversion to float GGUF files and to
safetensors. A weight that is not a finite number is an error that names its tensor, as is one that
float16 cannot hold: both would spoil every answer, far from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt

from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, block_bytes, block_elements, dequantize

FLOAT_TYPES: dict[BlockType, npt.DTypeLike] = {
    BlockType.F32: np.dtype("<f4"),
    BlockType.F16: np.dtype("<f2"),
    BlockType.BF16: np.dtype(ml_dtypes.bfloat16),
}
_CHUNK_WEIGHTS = 1 << 20

Bytes = npt.NDArray[np.uint8]


def recoded(
    data: Bytes,
    type: BlockType,
    shape: tuple[int, ...],
    to: BlockType,
    *,
    name: str,
    path: Path,
    rows: npt.NDArray[np.int32] | None = None,
) -> Iterator[Bytes]:
    """The tensor's bytes in another float type, in pieces of about a million weights.

    Args:
        data: uint8, as ``type`` stores them.
        shape: numpy's order.
        to: F32, F16 or BF16; where it is ``type``, the bytes pass as they are.
        name, path: of the tensor, for errors.
        rows: row r of the result is row ``rows[r]`` of the data; None for the same order.

    Raises:
        ModelFileError: a weight is NaN or infinite, or too large for ``to``.
        UnsupportedError: ``type`` has no decoder.
    """
    cols = shape[-1]
    if type == BlockType.I2_S:  # its scale stands after all rows: nothing of it can be cut off
        data, type = dequantize(type, data, shape).reshape(-1).view(np.uint8), BlockType.F32
    row_bytes = cols // block_elements(type) * block_bytes(type)
    table = data.reshape(-1, row_bytes)
    step = max(1, _CHUNK_WEIGHTS // cols)
    for start in range(0, len(table), step):
        chosen = slice(start, start + step) if rows is None else rows[start : start + step]
        part = np.ascontiguousarray(table[chosen])
        if type in FLOAT_TYPES:
            values = part.view(FLOAT_TYPES[type])
        else:
            values = dequantize(type, part.reshape(-1), (len(part), cols))
        _check(values, name, path)
        if type == to:
            yield part.reshape(-1)
            continue
        with np.errstate(over="ignore"):
            written = values.astype(FLOAT_TYPES[to])
        if to is BlockType.F16:
            _check_range(values, written, name, path)
        yield written.reshape(-1).view(np.uint8)


def _check(values: npt.NDArray[np.generic], name: str, path: Path) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        found = values.reshape(-1)[int(np.argmin(finite))]
        raise ModelFileError(
            f"tensor '{name}' holds a weight that is not a finite number ({float(found)})",
            path=path,
            hint="The checkpoint is damaged, or its training diverged.",
        )


def _check_range(
    values: npt.NDArray[np.generic], written: npt.NDArray[np.generic], name: str, path: Path
) -> None:
    finite = np.isfinite(written)
    if not finite.all():
        found = float(values.reshape(-1)[int(np.argmin(finite))])
        raise ModelFileError(
            f"tensor '{name}' holds {found:g}, which float16 cannot hold",
            path=path,
            hint="Take bf16 or f32.",
        )
