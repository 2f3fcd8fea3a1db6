"""``keep_alive``: seconds as a number, or a duration as Go writes them."""

from __future__ import annotations

import math
import re

from pocketlm.errors import RequestError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MOST_CHARACTERS = 64
_LONGEST = 2**63 / 1e9  # what a duration of Go holds


def keep_alive_seconds(value: object) -> float | None:
    """Seconds; negative is for ever, None where nothing is asked.

    value: a number of seconds, or text such as "5m", "1h30m", "-1s", "0" (time.ParseDuration).
    Raises RequestError for anything else.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < _LONGEST else math.copysign(math.inf, value)
    elif isinstance(value, str):
        seconds = _parse(value)
    else:
        raise RequestError(f"keep_alive is {value!r}, expected seconds or a duration such as '5m'")
    if math.isnan(seconds):
        raise RequestError("keep_alive is not a number")
    return seconds if 0 <= seconds < _LONGEST else -1.0


def _parse(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    seconds, at = 0.0, 0
    while len(text) <= _MOST_CHARACTERS and (part := _PART.match(rest, at)):
        seconds += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at == 0 or at < len(rest):
        why = (
            "missing unit in duration" if rest.replace(".", "", 1).isdigit() else "invalid duration"
        )
        raise RequestError(
            f'time: {why} "{text[:_MOST_CHARACTERS]}"',
            hint="Durations look like 300ms, 5m or 1h30m; a number is seconds.",
        )
    return sign * seconds
