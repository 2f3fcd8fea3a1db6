"""The importance matrix: how much each column of each weight matrix is used.

For a matrix W and its inputs x, the mean of x² column by column, over a calibration text. A
rounding error in column j costs about that much, so ``search`` weighs its squared errors with it.
Measured by ``measuring`` and ``calibrated``, or read from a file of llama.cpp's imatrix tool. Both
of its file forms are read and written here:

* GGUF, ``general.type = "imatrix"``: for each matrix the sums of squares ``<name>.in_sum2`` and the
  number of tokens ``<name>.counts``, F32.
* the legacy ``.dat``, little-endian: i32 entries; of each entry i32 length and bytes of the name,
  i32 calls, i32 columns, f32 columns × (mean × calls); then, perhaps, i32 chunks, i32 length and
  bytes of the data set's name. It does not say how many tokens a call had.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from pocketlm.errors import ModelFileError, RequestError, UnsupportedError
from pocketlm.files import atomic_file
from pocketlm.gguf import BlockType, GGUFFile, TensorData, Value, write_gguf
from pocketlm.gguf.cursor import Cursor
from pocketlm.gguf.reader import MAGIC, map_file

Columns = npt.NDArray[np.float32]

LEGACY_SUFFIX = ".dat"
TYPE_KEY = "general.type"
TYPE = "imatrix"
DATASETS_KEY = "imatrix.datasets"
CHUNKS_KEY = "imatrix.chunk_count"
CHUNK_SIZE_KEY = "imatrix.chunk_size"
_SUMS = ".in_sum2"
_COUNTS = ".counts"

_I32 = struct.Struct("<i")
_F32 = np.dtype("<f4")
_SMALLEST_ENTRY = 4 + 1 + 4 + 4 + 4  # name length, name, calls, columns, one column
_MAX_I32 = (1 << 31) - 1
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Importance:
    """What was measured, and on what.

    Attributes:
        sums: by name of the weight matrix, the sum of squares of each of its inputs, float32
            [cols], as a file has them: what is saved and loaded again is the same.
        counts: by the same names, how many tokens the sums are of; from a legacy file, how many
            calls.
        datasets: names of the texts.
        chunks: how many sequences the text was cut into.
        chunk_size: tokens in each; 0 where a legacy file did not say.
    """

    sums: Mapping[str, Columns]
    counts: Mapping[str, int]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0

    @classmethod
    def from_sums(
        cls,
        sums: Mapping[str, tuple[npt.NDArray[np.float64], int]],
        *,
        datasets: tuple[str, ...],
        chunks: int,
        chunk_size: int,
    ) -> Importance:
        """Of sums of squares [cols] and the tokens that they are of; matrices without are left out.

        Raises:
            ModelFileError: a sum is no finite float32, so the model's activations were none.
        """
        counts = {name: count for name, (_, count) in sums.items() if count > 0}
        checked = {name: _checked(name, sums[name][0]) for name in counts}
        return cls(
            MappingProxyType(checked), MappingProxyType(counts), tuple(datasets), chunks, chunk_size
        )

    @cached_property
    def means(self) -> Mapping[str, Columns]:
        """The mean square of each input, by name of the matrix, float32 [cols]."""
        means = {name: sums / np.float32(self.counts[name]) for name, sums in self.sums.items()}
        return MappingProxyType(means)

    @classmethod
    def load(cls, path: Path) -> Importance:
        """Read a file of either form; its content says which.

        Raises:
            NotFoundError, SourceError: it cannot be read.
            ModelFileError: it breaks its form; the message names the field.
            UnsupportedError: it is of a mixture of experts.
        """
        start = map_file(path)[: len(MAGIC)]
        return _read_gguf(path) if start.tobytes() == MAGIC else _read_legacy(path)

    def save(self, path: Path) -> None:
        """Write it, all or nothing: in the legacy form where the name ends in .dat, else as GGUF.

        Raises:
            RequestError: the path cannot be written to, or nothing was measured.
            CapacityError: the disk is full.
        """
        if not self.sums:
            raise RequestError("the importance matrix is empty: no matrix saw a token", path=path)
        if path.suffix.lower() == LEGACY_SUFFIX:
            _write_legacy(self, path)
        else:
            _write_gguf(self, path)

    def for_matrix(self, name: str, cols: int) -> Columns | None:
        """The weights of a matrix's columns, float32 [cols]; None where nothing is known of it.

        Nothing is known, either, where all inputs were zero: no column matters more than another.
        Raises RequestError when the matrix it was measured on had another width.
        """
        means = self.means.get(name)
        if means is None:
            return None
        if means.shape != (cols,):
            raise RequestError(
                f"the importance matrix has {means.size:,} columns for '{name}', "
                f"but the tensor has {cols:,}",
                hint="It was measured on another model.",
            )
        return means if means.any() else None

    def require_match(self, widths: Mapping[str, int]) -> None:
        """Raises RequestError unless it is of a model with these matrices, columns by name."""
        for name, cols in widths.items():
            self.for_matrix(name, cols)
        if widths and not widths.keys() & self.means.keys():
            theirs, ours = min(self.means, default="nothing"), min(widths)
            raise RequestError(
                "the importance matrix knows none of the model's matrices: "
                f"it has names like '{theirs}', the model has names like '{ours}'",
                hint="It was measured on another model.",
            )


def _checked(name: str, sums: npt.NDArray[np.floating], path: Path | None = None) -> Columns:
    """``sums`` as read-only float32. Raises ModelFileError naming the input."""
    good = (sums >= 0) & (sums <= _LARGEST)  # false for NaN, too
    if not good.all():
        column = int(np.argmin(good))
        raise ModelFileError(
            f"the sum of squares of input {column} of '{name}' is {sums[column]}, "
            "expected a finite number that is not negative",
            path=path,
        )
    columns = sums.astype(np.float32)
    columns.flags.writeable = False
    return columns


def _read_gguf(path: Path) -> Importance:
    with GGUFFile.open(path) as file:
        if file.metadata.get(TYPE_KEY) != TYPE:
            found = file.metadata.get(TYPE_KEY, file.metadata.get("general.architecture"))
            raise ModelFileError(
                f"{TYPE_KEY} is {found!r:.80}, expected '{TYPE}': it holds no importance matrix",
                path=path,
            )
        names = [n.removesuffix(_SUMS) for n in file.tensors if n.endswith(_SUMS)]
        if not names:
            raise ModelFileError(f"no tensor has a name that ends in {_SUMS}", path=path)
        sums = {name: _checked(name, _floats(file, name + _SUMS), path) for name in names}
        counts = {name: _token_count(file, name) for name in names}
        return Importance(
            MappingProxyType({name: row for name, row in sums.items() if counts[name]}),
            MappingProxyType({name: count for name, count in counts.items() if count}),
            _datasets(file),
            _stated(file, CHUNKS_KEY),
            _stated(file, CHUNK_SIZE_KEY),
        )


def _floats(file: GGUFFile, tensor: str) -> Columns:
    info = file.tensors.get(tensor)
    if info is None:
        raise ModelFileError(f"tensor '{tensor}' is missing", path=file.path)
    if info.type != BlockType.F32:
        raise ModelFileError(
            f"tensor '{tensor}' is {info.type.name}, expected F32",
            path=file.path,
            offset=info.offset,
        )
    if max(info.shape) != math.prod(info.shape):
        raise UnsupportedError(
            f"tensor '{tensor}' has the shape {info.shape}, expected one row: "
            "it is of a mixture of experts, which PocketLM does not quantize",
            path=file.path,
        )
    return file.tensor(tensor).reshape(-1)


def _token_count(file: GGUFFile, name: str) -> int:
    counts = _floats(file, name + _COUNTS)
    if counts.size != 1:
        raise UnsupportedError(
            f"'{name}{_COUNTS}' has {counts.size:,} counts, expected one: "
            "it is of a mixture of experts, which PocketLM does not quantize",
            path=file.path,
        )
    count = float(counts[0])
    if not 0 <= count < 1 << 63:
        raise ModelFileError(
            f"'{name}{_COUNTS}' is {count}, expected a number of tokens", path=file.path
        )
    return round(count)


def _datasets(file: GGUFFile) -> tuple[str, ...]:
    found = file.metadata.get(DATASETS_KEY, [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ModelFileError(
            f"{DATASETS_KEY} is {found!r:.80}, expected a list of names", path=file.path
        )
    return tuple(str(name) for name in found)


def _stated(file: GGUFFile, key: str) -> int:
    found = file.metadata.get(key, 0)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 32:
        raise ModelFileError(f"{key} is {found!r:.80}, expected a count", path=file.path)
    return int(found)


def _write_gguf(importance: Importance, path: Path) -> None:
    metadata: dict[str, Value] = {
        TYPE_KEY: TYPE,
        DATASETS_KEY: list(importance.datasets),
        CHUNKS_KEY: importance.chunks,
        CHUNK_SIZE_KEY: importance.chunk_size,
    }
    tensors = []
    for name in sorted(importance.sums):  # as llama.cpp's tool writes them
        sums = importance.sums[name].astype(_F32)
        counted = np.array([importance.counts[name]], _F32)
        tensors.append(TensorData(name + _SUMS, BlockType.F32, (1, sums.size), sums))
        tensors.append(TensorData(name + _COUNTS, BlockType.F32, (1, 1), counted))
    write_gguf(path, metadata, tensors)


def _read_legacy(path: Path) -> Importance:
    cursor = Cursor(map_file(path), path)
    entries = _count(cursor, "the number of entries", each=_SMALLEST_ENTRY, least=1)
    sums: dict[str, Columns] = {}
    counts: dict[str, int] = {}
    for index in range(entries):
        at = cursor.offset
        name = _text(cursor, f"the name of entry {index}")
        if not name or name in sums:
            raise cursor.error(f"entry {index} has an empty name or another's: {name!r:.80}", at=at)
        at = cursor.offset
        calls = int(cursor.unpack(_I32, f"the calls of '{name}'"))
        if calls < 0:
            raise cursor.error(f"the calls of '{name}' are {calls:,}, less than none", at=at)
        cols = _count(cursor, f"the columns of '{name}'", each=_F32.itemsize, least=1)
        values = cursor.numbers(_F32, cols, f"the values of '{name}'")
        counts[name] = max(1, calls)  # llama.cpp, too, takes the values as they are where it is 0
        sums[name] = _checked(name, values, path)
    chunks, datasets = _legacy_rest(cursor)
    return Importance(MappingProxyType(sums), MappingProxyType(counts), datasets, chunks, 0)


def _legacy_rest(cursor: Cursor) -> tuple[int, tuple[str, ...]]:
    """The number of chunks and the data set's name, which the oldest files end without."""
    chunks, datasets = 0, ""
    if cursor.left():
        at = cursor.offset
        chunks = int(cursor.unpack(_I32, "the number of chunks"))
        if chunks < 0:
            raise cursor.error(f"the number of chunks is {chunks:,}", at=at)
    if cursor.left():
        datasets = _text(cursor, "the name of the data set")
    if cursor.left():
        raise cursor.error(f"{cursor.left():,} bytes follow the last field")
    return chunks, (datasets,) if datasets else ()


def _count(cursor: Cursor, what: str, *, each: int, least: int = 0) -> int:
    """An i32 that counts items of at least ``each`` bytes which follow in the file."""
    at = cursor.offset
    found = int(cursor.unpack(_I32, what))
    most = cursor.left() // each
    if not least <= found <= most:
        raise cursor.error(
            f"{what} is {found:,}, expected {least} to {most:,} by the bytes left",
            at=at,
            hint="The file is incomplete, or it is no importance matrix.",
        )
    return found


def _text(cursor: Cursor, what: str) -> str:
    length = _count(cursor, f"the length of {what}", each=1)
    begin = cursor.offset
    cursor.offset += length
    try:
        return str(cursor.view[begin : cursor.offset], "utf-8")
    except UnicodeDecodeError as error:
        raise cursor.error(f"{what} is not UTF-8", at=begin) from error


def _write_legacy(importance: Importance, path: Path) -> None:
    with atomic_file(path) as write:
        write(_I32.pack(len(importance.sums)))
        for name in sorted(importance.sums):
            encoded, count = name.encode(), importance.counts[name]
            # A call is one chunk; where chunks are unknown, counts are calls already.
            calls = min(-(-count // max(1, importance.chunk_size)), _MAX_I32)
            values = (importance.sums[name] * (calls / count)).astype(_F32)
            write(_I32.pack(len(encoded)) + encoded + _I32.pack(calls) + _I32.pack(values.size))
            write(values.tobytes())
        dataset = ", ".join(importance.datasets).encode()
        write(_I32.pack(min(importance.chunks, _MAX_I32)))
        write(_I32.pack(len(dataset)) + dataset)
