"""What a search finds: one shape for the models of every source.

A source fills in what it tells and leaves the rest at None or empty, which always means "not said".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

SourceName = Literal["catalog", "hub", "azure"]
Counted = Literal["catalog", "headers", "source"]


@dataclass(frozen=True)
class Score:
    """A benchmark result as a model's own page gives it.

    Attributes:
        benchmark: the page's word for it.
        value: as given: some write 0.62 for what others write 62.
        metric: such as ``acc``, where it is said.
        source: who measured it, or where it is written.
    """

    benchmark: str
    value: float
    metric: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model that a source has.

    Attributes:
        ref: what the other verbs take; of Azure's catalog, which has nothing to pull, its asset id.
        parameters: by the best count there is; ``counted`` says whose: the catalog's, ours from the
            headers of the weights, or the source's own.
        stated: the count that the source gives, kept beside ours.
        uncounted: why the headers were not counted, where that was tried.
        name_parameters: what the model's name says that it has.
        size_class: of ``parameters``.
        context: positions, where the source says so.
        formats: of the weights: gguf, safetensors, onnx, mlx.
        modified, created: in UTC.
        revision: the commit that the count holds for.
        files: of the repository, for counting.
        catalog: ``NAME:TAG`` where the curated catalog has the model.
        devices, deployments, fine_tunable, sold_by_azure, size: only Azure says them. Size: bytes.
    """

    source: SourceName
    id: str
    ref: str
    title: str | None = None
    publisher: str | None = None
    parameters: int | None = None
    counted: Counted | None = None
    stated: int | None = None
    uncounted: str | None = None
    name_parameters: int | None = None
    size_class: str | None = None
    context: int | None = None
    licence: str | None = None
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    library: str | None = None
    gated: bool | None = None
    downloads: int | None = None
    likes: int | None = None
    trending: float | None = None
    created: datetime | None = None
    modified: datetime | None = None
    scores: tuple[Score, ...] = ()
    tags: tuple[str, ...] = ()
    revision: str | None = None
    files: tuple[str, ...] = ()
    catalog: str | None = None
    devices: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()
    fine_tunable: bool | None = None
    sold_by_azure: bool | None = None
    size: int | None = None


@dataclass(frozen=True)
class Origin:
    """How one source answered.

    Attributes:
        looked_at: models of the source that the filters were held against.
        more: whether the next page has something, as far as is known.
        fetched: when the oldest of the answers that were used came; None where none was needed.
        cached: whether some were kept from before.
        failure: why nothing, or nothing newer, could be had.
    """

    source: SourceName
    looked_at: int = 0
    more: bool = False
    fetched: datetime | None = None
    cached: bool = False
    failure: str | None = None


@dataclass(frozen=True)
class Results:
    """A page of what was found, source by source, in the order that was asked for.

    Attributes:
        notes: what the user should know: bounds that were met, answers that were skipped.
    """

    found: tuple[Found, ...]
    origins: tuple[Origin, ...]
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return "+".join(origin.source for origin in self.origins)

    @property
    def fetched(self) -> datetime | None:
        """When the oldest answer came."""
        return min((o.fetched for o in self.origins if o.fetched), default=None)

    @property
    def cached(self) -> bool:
        return any(origin.cached for origin in self.origins)
