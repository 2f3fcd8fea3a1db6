"""``keep_alive``: seconds as a number, or a duration as Go writes them."""

from __future__ import annotations

import math

from pocketlm.errors import RequestError
from pocketlm.serve.durations import duration

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
        try:
            seconds = duration(value)
        except ValueError as error:
            raise RequestError(
                str(error), hint="Durations look like 300ms, 5m or 1h30m; a number is seconds."
            ) from error
    else:
        raise RequestError(f"keep_alive is {value!r}, expected seconds or a duration such as '5m'")
    if math.isnan(seconds):
        raise RequestError("keep_alive is not a number")
    return seconds if 0 <= seconds < _LONGEST else -1.0
