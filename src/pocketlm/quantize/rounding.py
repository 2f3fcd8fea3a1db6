"""Error-compensating rounding of one weight matrix, given what its inputs are like.

The weights W of a linear layer are replaced by blocks Q so that the layer's outputs change least
over calibration text: minimise ||(W - Q) X||^2, X being its inputs. Columns are rounded one after
the other, and each one's rounding error is made up for by the columns not rounded yet (OBQ and
GPTQ, arXiv:2210.17323; the same as LDLQ, arXiv:2307.13304). Before that, W itself is moved to where
it undoes what the layers before lost (QEP, arXiv:2504.09629; Qronos, arXiv:2505.11695).

Blocks keep their place in the file, so any GGUF engine reads them. Their scales are searched when
their turn comes, on weights that already carry the compensation, and stay as they are from then on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketlm import _native
from pocketlm.gguf import BlockType, block_elements
from pocketlm.quantize.codes import LAYOUTS, Bytes, Floats, grid, put_codes

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_CHUNK = 32  # columns that are compensated one by one; what they owe the rest is paid together


@dataclass(frozen=True)
class Curvature:
    """What rounding a column costs and where to make up for it; shared by all rows.

    Attributes:
        order: columns in the order of rounding: whole blocks, the most excited first.
        factor: upper triangular U with U^T U = (H + damping)^-1, rows and columns in that order.
        block: columns of a block.
    """

    order: Indices
    factor: Floats
    block: int


def curvature(second: Doubles, block: int, damping: float) -> Curvature:
    """The curvature for inputs with the second moment ``second`` = X X^T / tokens, [cols, cols].

    Args:
        block: columns of a block; orders whole blocks by their energy.
        damping: added to the diagonal, as a share of its mean.
    """
    energy = np.diag(second).reshape(-1, block)
    blocks = np.argsort(-energy.sum(1), kind="stable")
    within = np.argsort(-energy, axis=1, kind="stable")
    order = (blocks[:, None] * block + within[blocks]).reshape(-1)
    damped = damp(second, damping)[np.ix_(order, order)]
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    return Curvature(order, np.ascontiguousarray(factor, np.float32), block)


def damp(second: Doubles, damping: float) -> Doubles:
    """``second`` with a share of its mean diagonal added to the diagonal; never singular."""
    mean = float(np.diag(second).mean())
    return second + np.eye(len(second)) * (damping * mean if mean > 0 else 1.0)


def compensated(weights: Floats, curve: Curvature, type: BlockType, *, threads: int) -> Bytes:
    """The blocks of ``weights`` [rows, cols], uint8, rounded with compensation.

    Args:
        weights: finite.
        curve: of a block size that is ``type``'s.
        type: one of ``codes.LAYOUTS``.
    """
    rows, cols = weights.shape
    size = block_elements(type)
    assert curve.block == size
    # columns are rows here: what one step touches lies together
    pending = np.ascontiguousarray(weights.T[curve.order])
    blocks = np.empty((rows, cols // size, 0), np.uint8)
    for begin in range(0, cols, size):
        here = slice(begin, begin + size)
        data, errors = _round_block(pending[here], curve, begin, type, threads)
        if not blocks.shape[2]:
            blocks = np.empty((rows, cols // size, data.shape[1]), np.uint8)
        blocks[:, curve.order[begin] // size] = data
        pending[begin + size :] -= curve.factor[here, begin + size :].T @ errors
    return blocks.reshape(-1)


def _round_block(
    pending: Floats, curve: Curvature, begin: int, type: BlockType, threads: int
) -> tuple[Bytes, Floats]:
    """One block of every row: bytes [rows, bytes], and errors in units of the factor [size, rows].

    ``pending`` is [size, rows] in rounding order, and is used up.
    """
    size, rows = pending.shape
    layout = LAYOUTS[type]
    columns = curve.order[begin : begin + size] % size  # within the block
    factor = curve.factor[begin : begin + size, begin : begin + size]
    importance = np.empty(size, np.float32)
    importance[columns] = np.diag(factor) ** -2
    values = np.empty((rows, size), np.float32)
    values[:, columns] = pending.T
    raw = values.reshape(-1).view(np.uint8)
    data = _native.quantize(BlockType.F32, raw, rows, size, type, "search", importance, threads)
    scale, offset = (np.ascontiguousarray(part.T) for part in grid(type, data, rows))
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.empty((size, rows), np.uint8)
    errors = np.empty((size, rows), np.float32)
    for chunk in range(0, size, _CHUNK):
        end = chunk + _CHUNK
        for j in range(chunk, end):
            group = columns[j] // layout.group
            code = np.rint((pending[j] - offset[group]) * inverse[group])
            np.clip(code, layout.smallest, layout.largest, out=code)
            codes[columns[j]] = code
            errors[j] = (pending[j] - (offset[group] + scale[group] * code)) / factor[j, j]
            pending[j + 1 : end] -= factor[j, j + 1 : end, None] * errors[j]
        pending[end:] -= factor[chunk:end, end:].T @ errors[chunk:end]
    blocks = put_codes(type, data, np.ascontiguousarray(codes.T))
    return blocks.reshape(rows, -1), errors
