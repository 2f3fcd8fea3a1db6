"""BitNet's matrices as transformers packs them: four rows of codes in a byte, and one scale.

The inverse of ``models.ternary.unpack_quarters``, for the way back from GGUF.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlm.errors import UnsupportedError
from pocketlm.gguf import dequantize
from pocketlm.models.families.bitnet import BIT_LINEAR
from pocketlm.models.sources import Bytes, Matrix
from pocketlm.models.ternary import split_ternary


@dataclass(frozen=True)
class PackedMatrix:
    """Codes uint8 [rows / 4 * cols], bits 2k of a byte being row quarter k; times ``scale``."""

    codes: Bytes
    scale: float


def is_bit_linear(name: str) -> bool:
    """Whether a BitNet model keeps this matrix in ternary."""
    return BIT_LINEAR.fullmatch(name) is not None


def pack(matrix: Matrix, name: str, path: Path) -> PackedMatrix:
    """A matrix that is ternary with one scale, packed.

    Raises:
        UnsupportedError: it is not, or its rows are no multiple of four.
    """
    weights = dequantize(matrix.type, matrix.data, (matrix.rows, matrix.cols))
    found = split_ternary(weights)
    if found is None or matrix.rows % 4:
        raise UnsupportedError(
            f"tensor '{name}' is not ternary with one scale, so it cannot be packed", path=path
        )
    codes, scale = found
    quarters = (codes + 1).astype(np.uint8).reshape(4, -1)
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return PackedMatrix(packed, scale)
