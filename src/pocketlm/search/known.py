"""What PocketLM knows of a model that a source names: the catalog's count, and the name's."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from pocketlm import catalog
from pocketlm.catalog import size_class
from pocketlm.search.found import Found

# "Qwen3-0.6B", "SmolLM2-135M-Instruct", "phi-4-14b"; not the 8B of "8x7B" nor the A4B of experts.
_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4}(?:\.\d{1,3})?)([MB])(?![A-Za-z0-9])", re.I)
_VARIANT = re.compile(
    r"-(?:generic|cuda|trtrtx|tensorrt|webgpu|openvino|qnn|vitis|vitisai|directml|dml)"
    r"-(?:cpu|gpu|npu)(?::\d+)?$",
    re.I,
)


def in_name(name: str) -> int | None:
    """Parameters that a model's name claims; None where it claims none, or two things."""
    found = {
        round(float(value) * (10**9 if unit in "bB" else 10**6))
        for value, unit in _IN_NAME.findall(name.rpartition("/")[2])
    }
    return found.pop() if len(found) == 1 else None


@cache
def _by_repo() -> dict[str, catalog.CatalogEntry]:
    """The catalog by the hub's repositories: ``org/repo``, in lower case."""
    known: dict[str, catalog.CatalogEntry] = {}
    for entry in catalog.entries():
        scheme, _, rest = entry.ref.partition(":")
        if scheme == "hf":
            known.setdefault(rest.partition("@")[0].lower(), entry)
    return known


@cache
def _by_name() -> dict[str, catalog.CatalogEntry]:
    """The catalog by the last part of a repository's name, and by ``org-repo``."""
    known: dict[str, catalog.CatalogEntry] = {}
    for repo, entry in _by_repo().items():
        known.setdefault(repo.rpartition("/")[2], entry)
        known.setdefault(repo.replace("/", "-"), entry)
    return known


def entry_of_repo(repo: str) -> catalog.CatalogEntry | None:
    return _by_repo().get(repo.lower())


def entry_of_name(name: str) -> catalog.CatalogEntry | None:
    """The entry of a model that another source names as the hub does, such as
    ``Phi-4-mini-instruct`` or ``qwen3-0.6b-generic-cpu``."""
    return _by_name().get(_VARIANT.sub("", name).lower())


def with_entry(found: Found, entry: catalog.CatalogEntry | None) -> Found:
    """With the catalog's count, where it has the model, and the class of the best count."""
    named = in_name(found.id)
    if entry is not None:
        return replace(
            found,
            parameters=entry.parameters,
            counted="catalog",
            size_class=size_class(entry.parameters),
            context=found.context or entry.context,
            catalog=str(entry),
            name_parameters=named,
        )
    parameters = found.stated
    return replace(
        found,
        parameters=parameters,
        counted="source" if parameters is not None else None,
        size_class=size_class(parameters) if parameters is not None else None,
        name_parameters=named,
    )
