"""Times as people and the Ollama API write them: ``5m``, ``1h30m``, ``300`` (seconds), ``-1``."""

from __future__ import annotations

import math
import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_MOST_S = 10 * 365 * 86400.0


def seconds(text: str) -> float:
    """Seconds; negative ones are for ever. Raises ValueError for what is no time."""
    text = text.strip()
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if len(rest) > 64:
        raise ValueError("too long for a time")
    parts = _PART.findall(rest)
    if parts and "".join(number + unit for number, unit in parts) == rest:
        found = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        found = float(rest)
    if not math.isfinite(found):
        raise ValueError("a time is finite")
    return sign * min(found, _MOST_S)
