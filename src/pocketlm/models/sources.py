"""Where the weights of a model come from: one interface over GGUF files and safetensors folders.

A TensorSource knows tensors by their canonical names, which are GGUF's, and gives them in the form
that the engine computes with: rope as rotated halves, norms as plain multipliers. Where a kind of
file keeps other values, its family wraps the source in an ``Adapted`` one. Nothing is read before
it is asked for, and matrices are views of the mapped file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import NATIVE_TYPES, BlockType, GGUFFile

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Matrix:
    """A weight matrix as ``_native.Weight.pack`` takes it.

    Attributes:
        type: block type of ``data``.
        rows, cols: out and in features.
        data: the blocks, uint8 [bytes], rows in file order.
        row_map: row r of the matrix is row ``row_map[r]`` of the data; None for the identity.
    """

    type: BlockType
    rows: int
    cols: int
    data: Bytes
    row_map: npt.NDArray[np.int32] | None = None


class TensorSource(Protocol):
    """Tensors by canonical name; asking for an unknown one is a ModelFileError."""

    @property
    def path(self) -> Path: ...

    def names(self) -> Iterable[str]:
        """Every tensor of the file; one without a canonical name stands under its own."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Slowest dimension first: a matrix is (out_features, in_features)."""

    def type(self, name: str) -> BlockType: ...

    def matrix(self, name: str) -> Matrix: ...

    def vector(self, name: str) -> Floats: ...

    def release_pages(self) -> None:
        """Lets what was read so far leave memory; views that were given out stay valid."""

    def close(self) -> None:
        """Lets the file go; views that were given out keep their pages."""


def missing(name: str, path: Path) -> ModelFileError:
    return ModelFileError(
        f"tensor '{name}' is missing",
        path=path,
        hint="The file is incomplete, or its metadata does not belong to its tensors.",
    )


def require_packable(name: str, type: BlockType, path: Path) -> None:
    """Raises UnsupportedError for a matrix whose block type the core has no kernel for."""
    if type not in NATIVE_TYPES:
        known = " ".join(t.name for t in sorted(NATIVE_TYPES))
        raise UnsupportedError(
            f"tensor '{name}' has the block type {type.name}, which PocketLM does not run",
            path=path,
            hint=f"It runs {known}.",
        )


class GGUFSource:
    """The tensors of an open GGUF file, as they stand in it."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    @property
    def path(self) -> Path:
        return self._file.path

    def names(self) -> Iterable[str]:
        return self._file.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        self._require(name)
        return self._file.tensors[name].shape

    def type(self, name: str) -> BlockType:
        self._require(name)
        return self._file.tensors[name].type

    def matrix(self, name: str) -> Matrix:
        self._require(name)
        info = self._file.tensors[name]
        require_packable(name, info.type, self.path)
        rows, cols = info.shape
        return Matrix(info.type, rows, cols, self._file.tensor_bytes(name))

    def vector(self, name: str) -> Floats:
        self._require(name)
        return self._file.tensor(name).reshape(-1)

    def release_pages(self) -> None:
        self._file.release_pages()

    def close(self) -> None:
        self._file.close()

    def _require(self, name: str) -> None:
        if name not in self._file.tensors:
            raise missing(name, self.path)


class Adapted:
    """A source whose values are changed on the way; subclasses override what changes."""

    def __init__(self, inner: TensorSource) -> None:
        self.inner = inner

    @property
    def path(self) -> Path:
        return self.inner.path

    def names(self) -> Iterable[str]:
        return self.inner.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.inner.shape(name)

    def type(self, name: str) -> BlockType:
        return self.inner.type(name)

    def matrix(self, name: str) -> Matrix:
        return self.inner.matrix(name)

    def vector(self, name: str) -> Floats:
        return self.inner.vector(name)

    def release_pages(self) -> None:
        self.inner.release_pages()

    def close(self) -> None:
        self.inner.close()


def checked_floats(name: str, values: Floats, path: Path) -> Floats:
    """The values; raises ModelFileError when one is not finite."""
    if not np.isfinite(values).all():
        raise ModelFileError(f"tensor '{name}' holds a value that is not finite", path=path)
    return values


_DTYPES: dict[BlockType, npt.DTypeLike] = {
    BlockType.F32: np.float32,
    BlockType.F16: np.float16,
    BlockType.BF16: ml_dtypes.bfloat16,
}


def decode(matrix: Matrix) -> Floats:
    """A matrix of a float block type as float32 [rows, cols], rows in file order."""
    values = matrix.data.view(_DTYPES[matrix.type])
    return values.astype(np.float32).reshape(-1, matrix.cols)


def rounded_to(value: float, type: BlockType) -> float:
    """``value`` rounded to a tensor's float type."""
    return float(np.float32(value).astype(_DTYPES[type]))
