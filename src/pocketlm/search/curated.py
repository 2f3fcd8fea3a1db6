"""The curated catalog as a source: always there, without any network."""

from __future__ import annotations

from pocketlm import catalog
from pocketlm.search.filters import fits, fits_parameters
from pocketlm.search.found import Found
from pocketlm.search.known import with_entry
from pocketlm.search.query import Query


def search_catalog(query: Query) -> list[Found]:
    """Every model of the catalog that fits, in its order: it knows no popularity."""
    everything = (_found(entry) for entry in catalog.entries())
    return [one for one in everything if fits(one, query) and fits_parameters(one, query)]


def _found(entry: catalog.CatalogEntry) -> Found:
    scheme = entry.ref.partition(":")[0]
    found = Found(
        source="catalog",
        id=str(entry),
        ref=str(entry),
        title=entry.ref.partition(":")[2].partition("=")[0],
        publisher=entry.ref.partition(":")[2].partition("/")[0] if scheme == "hf" else None,
        licence=entry.licence,
        tasks=("text-generation",),
        formats=("safetensors",) if scheme == "hf" else ("gguf",),
        gated=entry.gated,
    )
    return with_entry(found, entry)
