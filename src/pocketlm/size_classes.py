"""How large a model is, in a word: classes by counted parameters, from ``size_classes.toml``."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

SizeClass = Literal["Micro", "Small", "Medium", "outside"]

_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_CLAIM = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", re.IGNORECASE)


@cache
def _facts() -> dict[str, dict[str, object]]:
    return tomllib.loads(Path(__file__).with_name("size_classes.toml").read_text("utf-8"))


def classes() -> dict[str, tuple[int, int]]:
    """Each class's parameters: at least the first number, fewer than the second."""
    given: dict[str, list[int]] = _facts()["classes"]  # type: ignore[assignment]
    return {name: (low, high) for name, (low, high) in given.items()}


def size_class(parameters: int) -> SizeClass:
    """The class of a model by its parameter count."""
    for name, (low, high) in classes().items():
        if low <= parameters < high:
            return name  # type: ignore[return-value]
    return "outside"


def other_view(parameters: int) -> str | None:
    """What the field's other threshold makes of a model where that differs; None elsewhere."""
    other = _facts()["other"]
    threshold = int(other["threshold"])  # type: ignore[call-overload]
    if size_class(parameters) == "Small" and parameters >= threshold:
        return str(other["says"])
    return None


def claimed(name: str) -> int | None:
    """Parameters that a name claims: 1,000,000,000 for "granite-4.0-1b"; None where it does not."""
    found = _CLAIM.findall(name)
    if not found:
        return None
    number, unit = found[-1]
    return round(float(number) * _UNITS[unit.lower()])
