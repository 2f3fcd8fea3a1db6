"""Published scores of several models, one table of one evaluator at a time.

Publishers differ by tens of points on the same model and test, so a score stands only beside others
of the same table, and a table is shown only where it has two of the models or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pocketlm.advise.comparison.records import ScoreRow, ScoreTable


class Published(Protocol):
    """A table of the catalog: ``rows`` has a value for each benchmark, by ``NAME:TAG``."""

    @property
    def name(self) -> str: ...
    @property
    def evaluator(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def benchmarks(self) -> Sequence[str]: ...
    @property
    def rows(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def mode(self) -> str | None: ...


def score_tables(
    models: Sequence[str | None], published: Iterable[Published]
) -> tuple[ScoreTable, ...]:
    """The tables that have at least two of the models; None is one that the catalog has not."""
    found = []
    for table in published:
        given = [table.rows.get(model) if model is not None else None for model in models]
        if len({model for model, row in zip(models, given, strict=True) if row}) < 2:
            continue
        rows = tuple(
            ScoreRow(
                benchmark,
                table.mode,
                tuple(row[i] if row is not None and i < len(row) else None for row in given),
            )
            for i, benchmark in enumerate(table.benchmarks)
        )
        found.append(ScoreTable(table.name, table.evaluator, table.protocol, table.source, rows))
    return tuple(found)
