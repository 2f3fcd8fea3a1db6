"""What the curated catalog knows of models that other sources name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pocketlm import catalog
from pocketlm.search.found import Found
from pocketlm.size_classes import claimed

# Azure's catalog names the forms of a model for devices so.
_VARIANT = re.compile(
    r"-(?:generic|cuda|trtrtx|tensorrt|webgpu|openvino|qnn|vitis|vitisai|directml|dml)"
    r"-(?:cpu|gpu|npu)(?::\d+)?$",
    re.I,
)


@dataclass(frozen=True)
class Known:
    """The catalog, by names in lower case.

    Attributes:
        by_repo: the hub's repositories, ``org/repo``: of the models and of all their forms.
        by_name: the last part of the models' own repositories, and ``org-repo``.
    """

    by_repo: Mapping[str, catalog.CatalogEntry]
    by_name: Mapping[str, catalog.CatalogEntry]

    @classmethod
    def now(cls) -> Known:
        """With the user's own catalogs as they are now."""
        by_repo: dict[str, catalog.CatalogEntry] = {}
        by_name: dict[str, catalog.CatalogEntry] = {}
        entries = catalog.entries()
        for entry in entries:
            if repo := _repo(entry.ref):
                by_repo.setdefault(repo, entry)
                by_name.setdefault(repo.rpartition("/")[2], entry)
                by_name.setdefault(repo.replace("/", "-"), entry)
        for entry in entries:
            for weights in entry.weights:
                if repo := _repo(weights.ref):
                    by_repo.setdefault(repo, entry)
        return cls(by_repo, by_name)

    def of_repo(self, repo: str) -> catalog.CatalogEntry | None:
        return self.by_repo.get(repo.lower())

    def of_name(self, name: str) -> catalog.CatalogEntry | None:
        """The entry of a model that another source names as the hub does, such as
        ``Phi-4-mini-instruct`` or ``qwen3-0.6b-generic-cpu``."""
        return self.by_name.get(_VARIANT.sub("", name).lower())


def with_entry(found: Found, entry: catalog.CatalogEntry | None) -> Found:
    """With the catalog's count, where it has the model, else the source's, and the class of it."""
    parameters = found.stated if entry is None else entry.parameters
    found = replace(
        found,
        parameters=parameters,
        size_class=None if parameters is None else catalog.size_class(parameters),
        name_parameters=claimed(found.id.rpartition("/")[2]),
    )
    if entry is None:
        return replace(found, counted=None if parameters is None else "source")
    context = found.context or entry.context
    return replace(found, counted="catalog", context=context, catalog=str(entry))


def _repo(ref: str) -> str | None:
    """``org/repo`` of a ref of the hub."""
    scheme, _, rest = ref.partition(":")
    return re.split("[@:]", rest)[0].lower() if scheme == "hf" else None
