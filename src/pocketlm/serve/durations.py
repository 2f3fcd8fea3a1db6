"""Times as people and the Ollama API write them: ``5m``, ``1h30m``, ``300`` (seconds), ``-1``."""

from __future__ import annotations

import math
import re

# Both ways to write a micro: the sign of its own, and the Greek letter.
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MOST_CHARACTERS = 64
_MOST_S = 10 * 365 * 86400.0


def duration(text: str) -> float:
    """Seconds of a duration as Go writes them: ``300ms``, ``1h30m``, ``-1s``, ``0``.

    Raises ValueError for anything else, in Go's words (time.ParseDuration).
    """
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    found, at = 0.0, 0
    while len(text) <= _MOST_CHARACTERS and (part := _PART.match(rest, at)):
        found += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at == 0 or at < len(rest):
        number = rest.replace(".", "", 1).isdigit()
        why = "missing unit in duration" if number else "invalid duration"
        raise ValueError(f'time: {why} "{text[:_MOST_CHARACTERS]}"')
    return sign * found


def seconds(text: str) -> float:
    """Seconds of a duration or of a plain number of them; negative ones are for ever.

    Raises ValueError for what is no time.
    """
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        raise ValueError("too long for a time")
    found = duration(text) if text[-1:].isalpha() else float(text)
    if not math.isfinite(found):
        raise ValueError("a time is finite")
    return max(-_MOST_S, min(found, _MOST_S))
