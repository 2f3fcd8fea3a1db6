"""Typed, bounded reading of a model file's metadata: GGUF keys and JSON objects alike.

First step from an opened file to a ModelConfig. Nothing in a model file is trusted: every value
is checked for its type and for a sane range before it can size or index anything, and an error
names the key as it stands in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pocketlm.errors import ModelFileError

_LONGEST_LIST = 1 << 16


class Fields:
    """One mapping of a model file, read by key; a JSON ``null`` counts as absent.

    Args:
        values: the mapping.
        path: the file it came from, for errors.
        prefix: put before every key, for lookup and for errors (``llama.`` in a GGUF file).
        within: how the enclosing JSON object is called (``rope_scaling.``), for errors only.
    """

    def __init__(
        self, values: Mapping[str, object], path: Path, *, prefix: str = "", within: str = ""
    ) -> None:
        self.values = values
        self.path = path
        self.prefix = prefix
        self.within = within

    def __contains__(self, key: str) -> bool:
        return self.raw(key) is not None

    def raw(self, key: str) -> object:
        return self.values.get(self.prefix + key)

    def name(self, key: str) -> str:
        """The key as the file spells it."""
        return self.within + self.prefix + key

    def wrong(self, key: str, wanted: str) -> ModelFileError:
        found = self.raw(key)
        text = "absent" if found is None else repr(found)
        if len(text) > 60:
            text = text[:57] + "..."
        return ModelFileError(
            f"'{self.name(key)}' is {text}, expected {wanted}",
            path=self.path,
        )

    def count(self, key: str, default: int | None = None, *, low: int = 1, high: int) -> int:
        """A whole number in [low, high]."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self.wrong(key, f"a whole number from {low} to {high}")
        if not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return int(value)

    def number(
        self, key: str, default: float | None = None, *, low: float, high: float = 1e30
    ) -> float:
        """A finite number in [low, high]."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        # NaN fails both comparisons; an int of any size compares exactly before it is converted
        if not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool | np.bool_):
            raise self.wrong(key, "true or false")
        return bool(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def numbers(self, key: str, *, low: float, high: float) -> tuple[float, ...]:
        """A list of finite numbers in [low, high]."""
        value = self.raw(key)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list) or len(value) > _LONGEST_LIST:
            raise self.wrong(key, "a list of numbers")
        return checked_numbers(value, low, high, self.wrong(key, f"numbers from {low} to {high}"))

    def section(self, key: str) -> Fields | None:
        """A nested JSON object, None where there is none."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Fields(value, self.path, within=f"{self.name(key)}.")


def checked_numbers(
    values: Sequence[object], low: float, high: float, error: ModelFileError
) -> tuple[float, ...]:
    """The values as floats; raises ``error`` when one is not a finite number in [low, high]."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise error
        if not (low <= value <= high and math.isfinite(value)):
            raise error
    return tuple(float(value) for value in values)  # type: ignore[arg-type]
