"""What a search asks for, and how its filters are written."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from pocketlm.catalog import classes
from pocketlm.errors import RequestError

Format = Literal["gguf", "safetensors", "onnx", "mlx"]
Sort = Literal["downloads", "likes", "trending", "created", "modified"]
Where = Literal["hub", "azure", "catalog", "all"]
Device = Literal["cpu", "gpu", "npu"]
Deployment = Literal["serverless", "managed", "provisioned", "batch", "local"]

MOST = 100  # on a page
LAST_PAGE = 50

_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmb]?)", re.IGNORECASE | re.ASCII)
_UNIT = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BENCHMARK = re.compile(r"(.{1,80}?)\s*>=\s*(-?\d{1,6}(?:\.\d{1,6})?)\s*(%?)")
_AGE = re.compile(r"(\d{1,5})\s*([dwmy])", re.IGNORECASE | re.ASCII)
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}


@dataclass(frozen=True)
class Range:
    """Counts from ``least`` to below ``below``; None is no limit."""

    least: int | None = None
    below: int | None = None

    def __contains__(self, count: int) -> bool:
        return (self.least is None or count >= self.least) and (
            self.below is None or count < self.below
        )


@dataclass(frozen=True)
class AtLeast:
    """A benchmark result that a model must have reached."""

    benchmark: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Query:
    """Every filter that is set must hold; of several values in one, any.

    Attributes:
        text: words that the name must have.
        count: whether to count the headers of the weights; False takes the source's word.
        refresh: ask the sources whatever is cached.
        device, deployment, fine_tunable, sold_by_azure: only Azure's catalog says them.
        subscription, location: search what this Azure subscription has deployed, or with a
            location what it can deploy there, instead of the public catalog.
    """

    text: str = ""
    source: Where = "hub"
    parameters: Range | None = None
    licences: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()
    library: str | None = None
    publisher: str | None = None
    benchmarks: tuple[AtLeast, ...] = ()
    gated: bool | None = None
    min_downloads: int = 0
    min_likes: int = 0
    since: date | None = None
    device: Device | None = None
    deployment: Deployment | None = None
    fine_tunable: bool | None = None
    sold_by_azure: bool | None = None
    subscription: str | None = None
    location: str | None = None
    sort: Sort = "downloads"
    limit: int = 20
    page: int = 1
    count: bool = True
    refresh: bool = False

    def __post_init__(self) -> None:
        for name, value, most in (("limit", self.limit, MOST), ("page", self.page, LAST_PAGE)):
            if not 1 <= value <= most:
                raise RequestError(f"{name} is {value}, expected 1 to {most}")
        if len(self.text) > 200:
            raise RequestError(f"the text has {len(self.text):,} characters, expected at most 200")
        if self.location is not None and self.subscription is None:
            raise RequestError("a location of Azure needs the subscription that is to deploy there")


def parse_range(text: str) -> Range:
    """``0.5B..4B``, ``..1.5B``, ``7B..``; a count is a number with K, M or B.

    The upper end is included as people write it: ``..4B`` takes what rounds to 4.0B, so 4.02B too.
    Raises RequestError for anything else.
    """
    low, dots, high = (part.strip() for part in text.partition(".."))
    least, most = _count(low), _count(high)
    if not dots or (not low and not high) or (low and least is None) or (high and most is None):
        raise RequestError(
            f"'{text}' is no range of parameters, expected one such as 0.5B..4B, 1B.. or ..600M"
        )
    if least is not None and most is not None and least > most:
        raise RequestError(f"the range {text} ends before it begins", hint=f"Say {high}..{low}.")
    return Range(least, None if most is None else most + _half_step(high))


def _count(text: str) -> int | None:
    match = _COUNT.fullmatch(text) if len(text) <= 20 else None
    return None if match is None else round(float(match[1]) * _UNIT[match[2].lower()])


def _half_step(text: str) -> int:
    """Half of a tenth of a billion where billions are written, of a million where millions are: a
    model of 4.02B is a "4B" to everybody."""
    return {"b": 50_000_000, "m": 500_000}.get(text[-1:].lower(), 1)


def parse_benchmark(text: str) -> AtLeast:
    """``MMLU>=60``, ``gsm8k >= 0.5``. Raises RequestError for anything else."""
    match = _BENCHMARK.fullmatch(text.strip())
    if match is None:
        raise RequestError(f"'{text}' is no limit of a benchmark, expected one such as MMLU>=60")
    return AtLeast(match[1].strip(), float(match[2]))


def parse_since(text: str, today: date | None = None) -> date:
    """``2026-01-31``, or an age such as ``90d``, ``6m``, ``1y``. Raises RequestError."""
    age = _AGE.fullmatch(text.strip())
    try:
        if age is None:
            return date.fromisoformat(text.strip())
        days = int(age[1]) * _DAYS[age[2].lower()]
        return (today or datetime.now(UTC).date()) - timedelta(days=days)
    except (ValueError, OverflowError):
        raise RequestError(
            f"'{text}' is no date, expected one such as 2026-01-31, or an age such as 90d, 6m, 1y"
        ) from None


def class_range(name: str) -> Range:
    """The range of Micro, Small or Medium. Raises RequestError for any other name."""
    known = {each.lower(): limits for each, limits in classes().items()}
    if name.lower() not in known:
        raise _unknown("--class", name, tuple(known))
    return Range(*known[name.lower()])


def parse_query(**wanted: Any) -> Query:
    """A query from text: what takes one of a few words is held against them.

    Raises RequestError with a suggestion.
    """
    words = {"source": Where, "sort": Sort, "device": Device, "deployment": Deployment}
    given = [(name, wanted.get(name), kind) for name, kind in words.items()]
    given += [("format", one, Format) for one in wanted.get("formats", ())]
    for name, word, kind in given:
        if word is not None and word not in get_args(kind):
            raise _unknown(f"--{name}", word, get_args(kind))
    return Query(**wanted)


def _unknown(option: str, word: str, known: tuple[str, ...]) -> RequestError:
    close = difflib.get_close_matches(word.lower(), known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else None
    return RequestError(f"{option} is '{word}', expected one of {', '.join(known)}", hint=hint)


def comparable(value: float, wanted: float) -> float:
    """``value`` on the scale of ``wanted``: shares from 0 to 1 are per cent where those are asked
    for, since pages write either."""
    if not math.isfinite(value):
        return -math.inf
    if wanted > 1 and 0 <= value <= 1:
        return 100 * value
    if 0 < wanted <= 1 < value <= 100:
        return value / 100
    return value
