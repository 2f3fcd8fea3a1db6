"""The curated catalog as a source: always there, without any network."""

from __future__ import annotations

from datetime import UTC, datetime, time

from pocketlm import catalog
from pocketlm.search.filters import fits, fits_parameters
from pocketlm.search.found import Found, Score
from pocketlm.search.known import with_entry
from pocketlm.search.query import Query


def search_catalog(query: Query) -> tuple[list[Found], int]:
    """Every model of the catalog that fits, in its order, and how many there are: it knows no
    popularity."""
    entries = catalog.entries()
    everything = (_found(entry) for entry in entries)
    fitting = [one for one in everything if fits(one, query) and fits_parameters(one, query)]
    return fitting, len(entries)


def _found(entry: catalog.CatalogEntry) -> Found:
    released = entry.released
    found = Found(
        source="catalog",
        id=str(entry),
        ref=str(entry),
        title=entry.title or None,
        publisher=entry.publisher or None,
        stated=entry.listed,
        licence=entry.licence,
        tasks=("text-generation",),
        languages=tuple(code.lower() for code in entry.languages),
        formats=tuple(dict.fromkeys(weights.format for weights in entry.weights)),
        gated=entry.gated,
        created=None if released is None else datetime.combine(released, time(), UTC),
        scores=tuple(
            Score(score.benchmark, score.value, score.mode, score.table) for score in entry.scores
        ),
        tags=entry.collections,
    )
    return with_entry(found, entry)
