"""A Hugging Face folder of safetensors files as a TensorSource.

The format (``safetensors`` README): 8 bytes of little-endian header length, a JSON object of
``name: {dtype, shape, data_offsets}``, then the data. A big model is several such files and an
index that names the file of each tensor. Headers are distrusted: every offset is checked against
the file before a view is taken, and a shard's name may not leave the folder. Files are mapped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType, release_pages
from pocketlm.models.sources import Bytes, Floats, Matrix, decode, missing

_MAX_HEADER = 100 << 20
_MAX_JSON = 64 << 20
_FLOATS = {"F32": BlockType.F32, "F16": BlockType.F16, "BF16": BlockType.BF16}
_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor: its file, dtype as safetensors spells it, shape and bytes [begin, end)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of the folder. Raises ModelFileError for anything else."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ModelFileError("the file is too large to be metadata", path=path)
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(f"the folder has no {path.name}", path=path.parent) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ModelFileError(f"not readable as JSON: {error}", path=path) from error
    if not isinstance(value, dict):
        raise ModelFileError("expected a JSON object", path=path)
    return value


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, every size checked against the file's."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(size - 8, _MAX_HEADER):
                raise ModelFileError(
                    f"the header claims {length:,} bytes but the file has {size:,}", path=path
                )
            text = stream.read(length)
    except OSError as error:
        raise ModelFileError(f"cannot be read: {error.strerror}", path=path) from error
    return parse_header(text, size, path)


def parse_header(text: bytes, size: int, path: Path) -> dict[str, Entry]:
    """The tensors that the JSON of a header names, for a file of ``size`` bytes."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the header is not JSON: {error}", path=path) from error
    if not isinstance(header, dict):
        raise ModelFileError("the header is not a JSON object", path=path)
    header.pop("__metadata__", None)
    start = 8 + len(text)
    entries = {name: _entry(path, name, facts, start, size) for name, facts in header.items()}
    _refuse_overlaps(entries, path)
    return entries


def _entry(path: Path, name: str, facts: object, start: int, size: int) -> Entry:
    def wrong(what: str) -> ModelFileError:
        return ModelFileError(f"tensor '{name}': {what}", path=path)

    if not isinstance(facts, dict):
        raise wrong("its entry is not an object")
    dtype, shape, offsets = (facts.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not _whole_numbers(shape) or len(shape) > 8:
        raise wrong("'shape' is not a list of at most 8 sizes")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise wrong("'data_offsets' is not a pair of offsets")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise wrong(f"its data ends at byte {start + end:,} but the file has {size:,} bytes")
    if not isinstance(dtype, str):
        raise wrong("'dtype' is not a string")
    if dtype in _SIZES and math.prod(shape) * _SIZES[dtype] != end - begin:
        raise wrong(f"{end - begin:,} bytes of data cannot be {shape} of {dtype}")
    return Entry(path, dtype, tuple(shape), start + begin, start + end)


def _whole_numbers(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 62 for v in values
    )


def _refuse_overlaps(entries: Mapping[str, Entry], path: Path) -> None:
    last_name, last_end = "", 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
        if entry.begin < last_end and entry.end > entry.begin:
            raise ModelFileError(f"tensors '{last_name}' and '{name}' overlap", path=path)
        last_name, last_end = name, max(last_end, entry.end)


def read_folder(folder: Path) -> dict[str, Entry]:
    """The tensors of a folder: of model.safetensors or of the shards its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() and not index.is_file():
        return read_header(single)
    if not index.is_file():
        if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
            raise UnsupportedError(
                "the weights are pickled PyTorch files, which can run code when they are opened",
                path=folder,
                hint="Take a version of the model in safetensors or GGUF.",
            )
        raise ModelFileError("the folder has no model.safetensors and no index of one", path=folder)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise ModelFileError("'weight_map' does not map tensors to files", path=index)
    entries: dict[str, Entry] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelFileError(f"'{shard}' is not the name of a file in the folder", path=index)
        inside = read_header(folder / shard)
        entries |= {name: e for name, e in inside.items() if weight_map.get(name) == shard}
    for name in weight_map:
        if name not in entries:
            raise ModelFileError(
                f"tensor '{name}' is not in '{weight_map[name]}', where the index has it",
                path=index,
            )
    return entries


class FolderSource:
    """The tensors of a folder under canonical names, in the values the folder holds.

    Args:
        folder: where they are.
        entries: what ``read_folder`` found.
        names: canonical name of each tensor; those not in it keep their own.
    """

    def __init__(
        self, folder: Path, entries: Mapping[str, Entry], names: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._entries = {names.get(own, own): entry for own, entry in entries.items()}
        self._maps: dict[Path, Bytes] = {}

    @property
    def path(self) -> Path:
        return self._folder

    def names(self) -> Iterable[str]:
        return self._entries.keys()

    def entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise missing(name, self._folder)
        return self._entries[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entry(name).shape

    def type(self, name: str) -> BlockType:
        entry = self.entry(name)
        if entry.dtype not in _FLOATS:
            raise UnsupportedError(
                f"tensor '{name}' holds {entry.dtype}, PocketLM runs F32, F16 and BF16",
                path=entry.file,
            )
        return _FLOATS[entry.dtype]

    def bytes(self, name: str) -> Bytes:
        """The tensor's bytes as they lie in the file."""
        entry = self.entry(name)
        if entry.file not in self._maps:
            self._maps[entry.file] = np.memmap(entry.file, dtype=np.uint8, mode="r")
        return self._maps[entry.file][entry.begin : entry.end]

    def matrix(self, name: str) -> Matrix:
        rows, cols = self.shape(name)
        return Matrix(self.type(name), rows, cols, self.bytes(name))

    def vector(self, name: str) -> Floats:
        size = math.prod(self.shape(name))
        return decode(Matrix(self.type(name), 1, max(size, 1), self.bytes(name))).reshape(-1)

    def release_pages(self) -> None:
        for mapped in self._maps.values():
            release_pages(mapped)

    def close(self) -> None:
        self._maps.clear()
