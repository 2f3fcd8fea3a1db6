"""The curated catalog: what models there are, what is known of them, and where they come from.

The facts are data: a TOML file for each publisher under ``data``, published scores in
``scores.toml``; this package reads and checks them. Users and companies add catalogs of their own
(``own``). The store asks what a name such as ``smollm2:135m`` means and holds what it gets to the
digest that is written there.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from pocketlm.catalog.entry import (
    CatalogEntry,
    RopeFacts,
    Score,
    Shape,
    Weights,
    read_entries,
)
from pocketlm.catalog.own import merged, own_catalogs
from pocketlm.catalog.scores import Table, scores_of, tables
from pocketlm.settings import Settings
from pocketlm.size_classes import SizeClass, classes, size_class

__all__ = [
    "CatalogEntry",
    "RopeFacts",
    "Score",
    "Shape",
    "SizeClass",
    "Table",
    "Weights",
    "classes",
    "collections",
    "entries",
    "find",
    "names",
    "read_entries",
    "shipped",
    "size_class",
    "suggest",
    "tables",
]

# The first model of a name is the one that is meant without a tag.
_FILES = (
    "huggingface",
    "google",
    "qwen",
    "microsoft",
    "meta",
    "mistral",
    "ibm",
    "liquid",
)


@cache
def shipped() -> tuple[CatalogEntry, ...]:
    """The models of the catalog that ships with PocketLM."""
    folder = files(__name__) / "data"
    found = [
        entry
        for name in _FILES
        for entry in read_entries((folder / f"{name}.toml").read_text("utf-8"))
    ]
    return tuple(entry.model_copy(update={"scores": scores_of(str(entry))}) for entry in found)


def entries() -> tuple[CatalogEntry, ...]:
    """Every model: what ships with PocketLM, then those of the user's own catalogs."""
    own = own_catalogs(Settings.from_environment().home)
    return tuple(merged(shipped(), own).values())


def find(name: str, tag: str | None) -> CatalogEntry | None:
    """The entry of that name; without a tag the first one of the name. None where there is none."""
    for entry in entries():
        if entry.name == name and tag in (None, entry.tag):
            return entry
    return None


def names() -> list[str]:
    """Every ``NAME:TAG``."""
    return [str(entry) for entry in entries()]


def suggest(text: str, most: int = 3) -> list[str]:
    """Names that are close to a mistaken one, the closest first."""
    known = names()
    close = difflib.get_close_matches(text.lower(), known, n=most, cutoff=0.6)
    same_name = [one for one in known if one.partition(":")[0] == text.lower().partition(":")[0]]
    return list(dict.fromkeys([*close, *same_name]))[:most]


def collections() -> dict[str, Sequence[CatalogEntry]]:
    """The models of each collection, by its name."""
    found: dict[str, list[CatalogEntry]] = {}
    for entry in entries():
        for collection in entry.collections:
            found.setdefault(collection, []).append(entry)
    return dict(sorted(found.items()))
