"""Published scores: only beside others of the same table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketlm.advise.comparison.records import ScoreRow
from pocketlm.advise.comparison.scores import score_tables


@dataclass(frozen=True)
class Published:
    name: str
    rows: Mapping[str, Sequence[float]]
    benchmarks: Sequence[str] = ("MMLU", "GSM8K")
    evaluator: str = "somebody"
    protocol: str = "0-shot"
    source: str = "a report"
    mode: str | None = None


ONE = Published("one", {"a:1": (10.0, 20.0), "b:1": (30.0,), "c:1": (1.0, 2.0)})
OTHER = Published("other", {"a:1": (90.0, 91.0)}, mode="thinking")


def test_a_table_has_all_of_its_models_and_no_others() -> None:
    (table,) = score_tables(["b:1", None, "a:1", "d:1"], [ONE, OTHER])
    assert (table.name, table.protocol) == ("one", "0-shot")
    assert table.rows == (
        ScoreRow("MMLU", None, (30.0, None, 10.0, None)),
        ScoreRow("GSM8K", None, (None, None, 20.0, None)),
    )


def test_a_score_is_never_shown_alone_or_across_tables() -> None:
    assert score_tables(["a:1"], [ONE, OTHER]) == ()
    only_b = Published("b's", {"b:1": (5.0, 6.0)})
    assert score_tables(["a:1", "b:1"], [OTHER, only_b]) == ()


def test_one_model_twice_is_not_two() -> None:
    assert score_tables(["a:1", "a:1"], [OTHER]) == ()
