"""Published benchmark results, table by table: ``scores.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pocketlm.catalog.entry import Score


@dataclass(frozen=True)
class Table:
    """What one evaluator measured one way.

    Attributes:
        name: of the table.
        evaluator, protocol, source: who measured, how, and where it is published.
        mode: of the models, where they have several.
        rows: by ``NAME:TAG``, a value for each of ``benchmarks``.
    """

    name: str
    evaluator: str
    protocol: str
    source: str
    benchmarks: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    mode: str | None = None


@cache
def tables() -> Mapping[str, Table]:
    """All tables by name."""
    given = tomllib.loads((files(__package__) / "scores.toml").read_text("utf-8"))
    return {
        name: Table(
            name=name,
            evaluator=facts["evaluator"],
            protocol=facts["protocol"],
            source=facts["source"],
            benchmarks=tuple(facts["benchmarks"]),
            rows={model: tuple(values) for model, values in facts["rows"].items()},
            mode=facts.get("mode"),
        )
        for name, facts in given.items()
    }


def scores_of(model: str) -> tuple[Score, ...]:
    """What is published of ``NAME:TAG``."""
    return tuple(
        Score(table=table.name, benchmark=benchmark, value=float(value), mode=table.mode)
        for table in tables().values()
        for benchmark, value in zip(table.benchmarks, table.rows.get(model, ()), strict=False)
    )
