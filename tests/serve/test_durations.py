"""Times as people write them."""

from __future__ import annotations

import math

import pytest

from pocketlm.serve.durations import seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("90s", 90),
        ("300", 300),
        ("0", 0),
        ("-1", -1),
        ("-1m", -60),
        ("1.5h", 5400),
        ("250ms", 0.25),
        (" 2s ", 2),
        ("+3s", 3),
    ],
)
def test_times(text: str, found: float) -> None:
    assert math.isclose(seconds(text), found)


@pytest.mark.parametrize("text", ["", "soon", "5x", "5m5", "m", "nan", "inf", "1e400", "9" * 100])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|convert"):
        seconds(text)


def test_no_time_is_endless() -> None:
    assert seconds("9999999999h") < 1e9
