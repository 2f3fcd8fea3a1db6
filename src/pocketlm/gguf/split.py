"""A model that was split into several GGUF files (`name-00001-of-00003.gguf`, ...), as one.

llama.cpp's convention (`llama-gguf-split`): every file is a GGUF file of its own with
`split.no`, `split.count` and `split.tensors.count`; the first carries the metadata. `reader` comes
here when a file says that it is one of several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pocketlm.errors import ModelFileError
from pocketlm.gguf.metadata import Value

MAX_FILES = 1 << 12
_COUNT, _NUMBER, _TENSORS = "split.count", "split.no", "split.tensors.count"
_NAME = re.compile(r"(.+-)(\d{5})-of-(\d{5})(\.gguf)", re.DOTALL | re.IGNORECASE)


def split_count(metadata: Mapping[str, Value], path: Path) -> int:
    """How many files the model is in; 1 for a file that is whole."""
    return _field(metadata, _COUNT, path, low=0, high=MAX_FILES) or 1 if _COUNT in metadata else 1


def split_paths(path: Path, count: int) -> list[Path]:
    """The paths of all files of the set that `path` belongs to, in order.

    Raises:
        ModelFileError: its name does not say so.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelFileError(
            f"the file is one of a set of {count} "
            f"but its name does not end in '-NNNNN-of-{count:05}.gguf'",
            path=path,
            hint="Give the files of the set their original names back.",
        )
    return [
        path.with_name(f"{match[1]}{number:05}-of-{match[3]}{match[4]}")
        for number in range(1, count + 1)
    ]


def split_set(path: Path) -> list[Path]:
    """The paths of the set that a file belongs to, if its name says so, else its own."""
    match = _NAME.fullmatch(path.name)
    return [path] if match is None else split_paths(path, min(int(match[3]), MAX_FILES))


def check_member(metadata: Mapping[str, Value], number: int, count: int, path: Path) -> None:
    """Raises ModelFileError unless a file says that it is file `number` (from 0) of `count`."""
    found = _field(metadata, _NUMBER, path, low=0, high=MAX_FILES)
    if found != number or split_count(metadata, path) != count:
        raise ModelFileError(
            f"the file says that it is number {found} of {split_count(metadata, path)}, "
            f"its name that it is number {number} of {count} (counted from 0)",
            path=path,
        )


def check_total(metadata: Mapping[str, Value], tensors: int, path: Path) -> None:
    """Raises ModelFileError unless the set has as many tensors as its first file says."""
    wanted = _field(metadata, _TENSORS, path, low=0, high=1 << 31)
    if tensors != wanted:
        raise ModelFileError(
            f"{_TENSORS} is {wanted:,}, but the files have {tensors:,} tensors", path=path
        )


def without_split_keys(metadata: Mapping[str, Value]) -> dict[str, Value]:
    """The metadata of the whole model."""
    return {key: metadata[key] for key in metadata if key not in (_COUNT, _NUMBER, _TENSORS)}


def _field(metadata: Mapping[str, Value], key: str, path: Path, *, low: int, high: int) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        found = "absent" if value is None else f"{value!r:.60}"
        raise ModelFileError(f"{key} is {found}, expected an int from {low} to {high:,}", path=path)
    return value
