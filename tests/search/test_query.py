"""How filters are written, and what models are called."""

from __future__ import annotations

from datetime import date

import pytest

from pocketlm.catalog import size_class
from pocketlm.errors import RequestError
from pocketlm.search import AtLeast
from pocketlm.search.known import Known
from pocketlm.search.query import (
    class_range,
    comparable,
    parse_benchmark,
    parse_range,
    parse_since,
)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("0.5B..4B", (500_000_000, 4_022_468_096, 4_049_999_999), (499_999_999, 4_050_000_000)),
        ("..600M", (0, 596_049_920, 600_499_999), (600_500_000,)),
        ("7b..", (7_000_000_000, 10**12), (6_999_999_999,)),
        ("100..200", (100, 200), (99, 201)),
        (" 1 B .. 2 B ", (1_500_000_000,), (999_999_999,)),
    ],
)
def test_ranges(text: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    found = parse_range(text)
    assert all(count in found for count in inside)
    assert not any(count in found for count in outside)


@pytest.mark.parametrize(
    "text", ["", "..", "4B", "a..b", "1B..x", "-1B..2B", "1e9..", "1B...2B", "9" * 99 + ".."]
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(RequestError, match="is no range"):
        parse_range(text)


@pytest.mark.parametrize(
    "count",
    [edge + more for edge in (10**8, 15 * 10**8, 14 * 10**9, 30 * 10**9) for more in (-1, 0, 1)],
)
def test_the_ranges_of_classes_are_those_of_counts(count: int) -> None:
    among = [name for name in ("Micro", "Small", "Medium") if count in class_range(name)]
    assert among == [name for name in (size_class(count),) if name != "outside"]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("MMLU>=60", AtLeast("MMLU", 60)),
        (" gsm8k >= 0.5 ", AtLeast("gsm8k", 0.5)),
        ("MMLU Pro>=60%", AtLeast("MMLU Pro", 60)),
    ],
)
def test_benchmarks(text: str, limit: AtLeast) -> None:
    assert parse_benchmark(text) == limit


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [(0.62, 60, 62), (62, 0.6, 0.62), (62, 60, 62), (0.62, 0.6, 0.62), (5.8, 5, 5.8), (1, 60, 100)],
)
def test_shares_and_per_cent(value: float, wanted: float, same: float) -> None:
    assert comparable(value, wanted) == pytest.approx(same)


def test_dates() -> None:
    today = date(2026, 11, 23)
    assert parse_since("2026-01-31", today) == date(2026, 1, 31)
    assert parse_since("90d", today) == date(2026, 8, 25)
    assert parse_since("1Y", today) == date(2025, 11, 23)
    for text in ("", "soon", "2026-13-01", "99999y", "1h"):
        with pytest.raises(RequestError, match="is no date"):
            parse_since(text, today)


def test_names_of_other_sources_meet_the_catalog() -> None:
    known = Known.now()
    for name in (
        "Phi-4-mini-instruct",
        "phi-4-mini-instruct-generic-cpu",
        "Phi-4-mini-instruct-cuda-gpu:2",
        "microsoft-phi-4-mini-instruct",
    ):
        entry = known.of_name(name)
        assert entry is not None, name
        assert str(entry) == "phi4-mini:3.8b"
    assert known.of_name("phi-4-mini") is None
    assert known.of_repo("qwen/qwen3-0.6b") is not None
    assert known.of_repo("qwen/qwen3-0.6b-gguf") is known.of_repo("qwen/qwen3-0.6b")
    assert known.of_repo("acme/qwen3-0.6b") is None
