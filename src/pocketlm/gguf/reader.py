"""A GGUF file, opened: checked header, typed metadata, tensors as views of the mapped bytes.

Everything above this floor sees a model file through `GGUFFile`. Nothing in a file is trusted: each
count, length, type and offset is checked against the bytes that are there before it sizes or
indexes anything, and an error names the field and its byte. The work is bounded by the file's size.
Format: docs/gguf.md of ggml, versions 2 and 3, little-endian.

The file must not be truncated while it is open: as with every memory map, touching a page that is
gone kills the process. The store never changes a file in place, so its files are safe.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
import numpy.typing as npt

from pocketlm.errors import (
    ModelFileError,
    NotFoundError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from pocketlm.gguf.cursor import Cursor
from pocketlm.gguf.metadata import MAX_KEYS, SMALLEST_ENTRY, Value, read_metadata
from pocketlm.gguf.split import (
    check_member,
    check_total,
    split_count,
    split_paths,
    without_split_keys,
)
from pocketlm.gguf.tensors import (
    MAX_TENSORS,
    SMALLEST_INFO,
    TensorInfo,
    check_i2_s,
    read_alignment,
    read_tensor_infos,
)
from pocketlm.gguf.types import dequantize

MAGIC = b"GGUF"
IN_MEMORY = Path("<memory>")


@dataclass(frozen=True)
class Part:
    """One file's worth of GGUF, parsed. ``buffer`` may be the first of its ``size`` bytes."""

    path: Path
    buffer: npt.NDArray[np.uint8]
    size: int
    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]


class GGUFFile:
    """An opened GGUF file, or the set of files that a model was split into.

    Use as a context manager or call `close`. Closing lets go of the map; arrays that were handed
    out keep it alive for as long as they live, so they stay valid. Metadata is copied and outlives
    the file.

    Attributes:
        path: the file (the first one of a split set).
        version: 2 or 3.
        alignment: of tensor data, in bytes.
        metadata: in the file's order; a split set has the first file's, without its `split.` keys.
        tensors: by name, in the file's order.
    """

    def __init__(self, parts: list[Part]) -> None:
        first = parts[0]
        metadata, tensors = dict(first.metadata), dict(first.tensors)
        if len(parts) > 1:
            metadata = without_split_keys(metadata)
            tensors = _joined(parts)
        for part in parts:
            check_i2_s(
                metadata.get("general.architecture"),
                part.tensors,
                size=part.size,
                alignment=part.alignment,
                path=part.path,
            )
        self.path = first.path
        self.version = first.version
        self.alignment = first.alignment
        self.metadata: Mapping[str, Value] = MappingProxyType(metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self._buffers: list[npt.NDArray[np.uint8]] | None = [part.buffer for part in parts]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GGUFFile:
        """Map and check a file; the other files of a split set are found beside it.

        Raises:
            NotFoundError, SourceError: it cannot be read.
            ModelFileError: it breaks the format.
            UnsupportedError: big-endian, a version or a block type that we do not read.
        """
        path = Path(path)
        part = parse_part(map_file(path), path)
        count = split_count(part.metadata, path)
        return cls([part] if count == 1 else _open_set(path, count))

    @classmethod
    def parse(cls, buffer: bytes | npt.NDArray[np.uint8], path: Path | None = None) -> GGUFFile:
        """The same for a whole model's bytes in memory; `path` is for errors."""
        path = path or IN_MEMORY
        part = parse_part(np.frombuffer(buffer, np.uint8), path)
        count = split_count(part.metadata, path)
        if count > 1:
            raise UnsupportedError(f"the bytes are one of {count} files of a model", path=path)
        return cls([part])

    def tensor_bytes(self, name: str) -> npt.NDArray[np.uint8]:
        """A tensor's stored bytes, shape (nbytes,): a read-only view of the map.

        Raises:
            ModelFileError: there is no such tensor.
            RequestError: the file is closed.
        """
        info = self._info(name)
        if self._buffers is None:
            raise RequestError(f"{self.path} is closed")
        return self._buffers[info.part][info.offset : info.offset + info.nbytes]

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor's weights as float32, in its shape.

        Raises:
            ModelFileError: there is no such tensor.
            UnsupportedError: its block type has no decoder.
            RequestError: the file is closed.
        """
        info = self._info(name)
        return dequantize(info.type, self.tensor_bytes(name), info.shape)

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise ModelFileError(f"tensor {name!r} is missing", path=self.path)
        return info

    def release_pages(self) -> None:
        """Let what was read of the file leave memory; it is read again where it is touched."""
        for buffer in self._buffers or ():
            release_pages(buffer)

    def close(self) -> None:
        """Let go of the bytes; may be called twice."""
        self._buffers = None

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_set(path: Path, count: int) -> list[Part]:
    parts = []
    for number, member in enumerate(split_paths(path, count)):
        try:
            part = parse_part(map_file(member), member)
        except NotFoundError as error:
            raise ModelFileError(
                f"file {number + 1} of {count} of the model is missing",
                path=member,
                hint="All files of a split model must lie in one folder.",
            ) from error
        check_member(part.metadata, number, count, member)
        parts.append(part)
    return parts


def _joined(parts: list[Part]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for number, part in enumerate(parts):
        for name, info in part.tensors.items():
            if name in tensors:
                raise ModelFileError(f"tensor {name!r} is in two files of the set", path=part.path)
            tensors[name] = replace(info, part=number)
    check_total(parts[0].metadata, len(tensors), parts[0].path)
    return tensors


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """A file's bytes as a read-only array over a memory map, unmapped with the last view of it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # asked first: opening a pipe would wait
            raise ModelFileError("not a regular file, expected a GGUF file", path=path)
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelFileError("the file is empty", path=path, offset=0)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("there is no such file", path=path) from error
    except OSError as error:
        raise SourceError(f"cannot read the file: {error.strerror}", path=path) from error


def release_pages(mapped: npt.NDArray[np.uint8]) -> None:
    """Let the pages of a mapped file leave this process's memory; its bytes stay readable.

    They would count as used until the file is closed. Does nothing for an array that maps no file,
    and where the system cannot be told so (Windows).
    """
    base = mapped.base.obj if isinstance(mapped.base, memoryview) else mapped.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def parse_part(buffer: npt.NDArray[np.uint8], path: Path) -> Part:
    """Check and parse everything but the weights.

    Raises:
        ModelFileError, UnsupportedError: see GGUFFile.open.
    """
    return read_part(Cursor(buffer, path))


def read_part(cursor: Cursor) -> Part:
    """The same from a cursor at the start of a file."""
    buffer, path = cursor.array, cursor.path
    cursor.need(4, "the magic")
    magic = bytes(buffer[:4])
    if magic != MAGIC:
        raise cursor.error(f"the file starts with {magic!r}, not {MAGIC!r}: it is no GGUF file")
    cursor.offset = 4
    version = _read_version(cursor)
    n_tensors = cursor.count("n_tensors", each=SMALLEST_INFO, limit=MAX_TENSORS)
    n_kv = cursor.count("n_kv", each=SMALLEST_ENTRY, limit=MAX_KEYS)
    metadata = read_metadata(cursor, n_kv)
    alignment = read_alignment(cursor, metadata)
    tensors = read_tensor_infos(cursor, n_tensors, alignment)
    return Part(path, buffer, cursor.size, version, alignment, metadata, tensors)


def _read_version(cursor: Cursor) -> int:
    at = cursor.offset
    version = cursor.u32("version")
    if version in (2, 3):
        return version
    if version and version & 0xFFFF == 0:
        raise UnsupportedError(
            "the file is big-endian",
            hint="Convert it with gguf-convert-endian of the gguf package.",
            path=cursor.path,
            offset=at,
        )
    if version == 1 or 3 < version < 100:
        raise UnsupportedError(
            f"GGUF version is {version}, expected 2 or 3", path=cursor.path, offset=at
        )
    raise cursor.error(f"GGUF version is {version:,}, expected 2 or 3", at=at)
