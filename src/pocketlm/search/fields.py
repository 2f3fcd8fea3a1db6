"""Reading fields of JSON that anybody may have written: of the type that is wanted, or not there.

Hubs let people write most of what they answer with, and change its shape over the years.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

_LONGEST = 300
_MOST = 4096


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """A list as it is, one text as a list of it, anything else as none."""
    if isinstance(value, str):
        return [value]
    return value[:_MOST] if isinstance(value, list) else []


def text(value: object) -> str | None:
    """On one line and not endless: it is shown in tables."""
    if not isinstance(value, str) or not value.strip():
        return None
    return " ".join(value.split())[:_LONGEST]


def texts(value: object) -> tuple[str, ...]:
    return tuple(found for one in items(value) if (found := text(one)))


def count(value: object) -> int | None:
    """A number of things: whole, not negative, not absurd."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        return None
    return value


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def time(value: object) -> datetime | None:
    """ISO 8601, in UTC; fractions of a second as long as anybody likes."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
