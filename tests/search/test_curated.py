"""Searching the curated catalog, which needs no network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pocketlm import catalog
from pocketlm.search import AtLeast, Query, Range, search
from pocketlm.search.query import class_range

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")


def refs(query: Query) -> set[str]:
    return {found.ref for found in search(query).found}


def expected(test: Callable[[catalog.CatalogEntry], bool]) -> set[str]:
    return {str(entry) for entry in catalog.entries() if test(entry)}


def test_everything_is_found() -> None:
    results = search(Query(source="catalog", limit=100))
    assert {found.ref for found in results.found} == set(catalog.names())
    assert all(found.counted == "catalog" for found in results.found)
    assert results.fetched is None
    assert not results.cached


@pytest.mark.parametrize(
    ("query", "test"),
    [
        (Query(parameters=class_range("micro")), lambda e: e.parameters < 15 * 10**8),
        (Query(parameters=Range(10**10)), lambda e: e.parameters >= 10**10),
        (Query(licences=("apache-2.0", "MIT")), lambda e: e.licence in ("apache-2.0", "mit")),
        (Query(gated=False, languages=("es",)), lambda e: not e.gated and "es" in e.languages),
        (Query(formats=("gguf",)), lambda e: any(w.format == "gguf" for w in e.weights)),
        (Query(since=date(2025, 6, 1)), lambda e: e.released and e.released >= date(2025, 6, 1)),
        (Query(text="qwen"), lambda e: "qwen" in f"{e} {e.title}".lower()),
        (
            Query(benchmarks=(AtLeast("IFEval", 80),)),
            lambda e: any(s.benchmark == "IFEval" and s.value >= 80 for s in e.scores),
        ),
    ],
)
def test_filters(query: Query, test: Callable[[catalog.CatalogEntry], bool]) -> None:
    from dataclasses import replace

    found = refs(replace(query, source="catalog", limit=100))
    assert found == expected(test)
    assert found


def test_the_table_shows_where_the_hub_counts_otherwise(pocketlm: Run, tmp_path: Path) -> None:
    code, out, err = pocketlm("search", "qwen3:0.6b", "--source", "catalog")
    assert (code, err) == (0, "")
    (row,) = (line for line in out.splitlines() if line.startswith("qwen3:0.6b "))
    assert "596.0M" in row
    assert "the hub says 751.6M" in row


def test_nothing_fits(pocketlm: Run) -> None:
    assert pocketlm("search", "no such model", "--source", "catalog")[1] == "Nothing fits.\n"
